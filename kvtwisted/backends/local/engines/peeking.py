"""What RocksDB's KeyMayExist says, the same for every binding."""

from __future__ import annotations


def within_memory(may_exist: bool, value: bytes | None) -> tuple[bool, bytes | None]:
    """Whether memory told, and what.

    An empty value tells nothing: when the index block of a table is not in the cache, RocksDB (6.25 and 9.8 at least)
    says that it found the key, with an empty value.
    """
    if not may_exist:
        return True, None
    return (True, value) if value else (False, None)
