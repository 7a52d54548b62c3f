"""The Deferred form of the operations, over a bounded thread pool."""
