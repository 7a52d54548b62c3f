"""Who asks, and the one door that all requests go through."""
