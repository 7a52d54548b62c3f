"""The gRPC transport: decode, call the threaded store, encode."""
