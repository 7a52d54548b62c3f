"""The process: what it is assembled from, how it starts and stops, and what it listens on."""
