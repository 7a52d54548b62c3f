"""Which keys were used lately, in bounded memory.

Approximate LRU eviction goes by it, and so does the hot cache: a key comes in when it is used a second time, so that
a pass over many keys once does not flush what is hot (the idea of TinyLFU's doorkeeper, Einziger et al. 2017).
"""

from __future__ import annotations


class Recency:
    """The last keys used, in two generations of at most `capacity` keys each.

    A full generation becomes the older one and the older one is forgotten, so that between `capacity` and twice as many
    keys are remembered, by their hashes: the keys themselves might take far more memory than what they are good for.
    Safe from any thread without a lock: a lost touch costs nothing but a little precision.
    """

    def __init__(self, capacity: int = 65_536) -> None:
        self._capacity = capacity
        #: Hashes in the younger generation. A key that is in it need not be touched.
        self.young: set[int] = set()
        self._old: set[int] = set()

    def touch(self, key: bytes) -> bool:
        """`key` was just used; returns whether it had been used lately before."""
        hashed = hash(key)
        young = self.young
        if hashed in young:
            return True
        young.add(hashed)
        known = hashed in self._old
        if len(young) >= self._capacity:
            self._old, self.young = young, set()
        return known

    def __contains__(self, key: bytes) -> bool:
        hashed = hash(key)
        return hashed in self.young or hashed in self._old
