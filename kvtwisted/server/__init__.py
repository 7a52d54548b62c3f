"""Assembles the server, starts and stops it, and binds its sockets."""
