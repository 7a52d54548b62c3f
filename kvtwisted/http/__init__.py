"""The HTTP interface: decode, call, encode, on Klein and Twisted's HTTP server."""
