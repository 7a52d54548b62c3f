"""Which keys were used lately, in bounded memory: what approximate LRU eviction goes by."""

from __future__ import annotations


class Recency:
    """The last keys used, in two generations of at most `capacity` keys each.

    A full generation becomes the older one and the older one is forgotten, so that between `capacity` and twice as many
    keys are remembered. Safe from any thread without a lock: a lost touch costs nothing but a little precision.
    """

    def __init__(self, capacity: int = 65_536) -> None:
        self._capacity = capacity
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def touch(self, key: bytes) -> None:
        """`key` was just used."""
        young = self._young
        young.add(key)
        if len(young) >= self._capacity:
            self._old, self._young = young, set()

    def __contains__(self, key: bytes) -> bool:
        return key in self._young or key in self._old
