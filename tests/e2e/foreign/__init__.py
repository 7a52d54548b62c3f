"""Clients in other languages: programs that do each operation and print what they were answered, as one JSON object."""
