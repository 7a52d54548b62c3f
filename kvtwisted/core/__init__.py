"""The domain: synchronous, pure, and on the standard library alone."""
