"""Twisted's edges: timers, thread pools, ordered start and stop, and private names of Twisted that have no public
equivalent."""
