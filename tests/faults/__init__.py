"""Faults that are really caused under a running server: what clients see, and how it recovers."""
