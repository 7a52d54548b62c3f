"""Measurements. Tests never assert a time; this is where times are taken. See docs/performance.md."""
