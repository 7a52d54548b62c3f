"""The HTTP codec: one table of routes, a fast lane, and Klein on Twisted's HTTP server."""
