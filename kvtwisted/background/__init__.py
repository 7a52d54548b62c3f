"""Timer shells around the rules of core: expiry, eviction, sampling, the performance log."""
