"""TLS for both listeners: contexts, connections, and renewal of certificates while the server runs."""
