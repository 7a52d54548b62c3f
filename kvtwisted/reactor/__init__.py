"""What is particular to the reactor: its time, its pool of threads, and what of Twisted has no public way."""
