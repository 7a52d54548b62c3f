"""Maintenance of a store besides its requests: expiry, eviction, disk space, backups."""
