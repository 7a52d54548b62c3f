"""Timers around the maintenance of the backend: expiry, eviction, sampling, memory, the performance log."""
