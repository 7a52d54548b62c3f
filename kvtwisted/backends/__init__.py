"""The port that carries commands out, and a room for each backend behind it."""
