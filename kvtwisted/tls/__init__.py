"""TLS for both listeners: what is served, on which terms, and how it is renewed while the server runs."""
