"""What all rooms share. Synchronous; needs only the standard library."""
