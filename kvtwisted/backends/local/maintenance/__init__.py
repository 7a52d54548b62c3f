"""What keeps a store in order beside its requests: expiry, eviction, room on the disk, backups."""
