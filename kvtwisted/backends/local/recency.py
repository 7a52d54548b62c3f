"""The keys that were used lately, in bounded memory.

Approximate LRU eviction goes by it, and so does the hot cache: a key comes in when it is used a second time, so that
a pass over many keys once does not flush what is hot (the idea of TinyLFU's doorkeeper, Einziger et al. 2017).
"""

from __future__ import annotations

#: Places for each key remembered: the more, the fewer keys share one.
_SPREAD = 8


class Recency:
    """The last keys used, in two generations of at most `capacity` (a power of two) keys each.

    A full generation becomes the older one and the older one is forgotten, so that between `capacity` and twice as many
    keys are remembered. A generation is a table of marks at the places that the keys' hashes give: small enough for a
    processor's cache, and nothing is allocated for a key. Keys that share a place are taken for one another, so that
    about one key in ten looks used that was not.

    Safe from any thread without a lock: a lost touch costs nothing but a little precision.
    """

    def __init__(self, capacity: int = 131_072) -> None:
        self._capacity = capacity
        #: What to `&` with a key's hash to find its place.
        self.mask = _SPREAD * capacity - 1
        #: Marks of the younger generation. A key that is marked there need not be touched.
        self.young = bytearray(_SPREAD * capacity)
        self._old = bytearray(_SPREAD * capacity)
        self._marked = 0

    def touch(self, key: bytes) -> bool:
        """`key` was just used; returns whether it had been used lately before."""
        place = hash(key) & self.mask
        young = self.young
        if young[place]:
            return True
        young[place] = 1
        known = self._old[place]
        self._marked += 1
        if self._marked >= self._capacity:
            self._marked = 0
            self._old, self.young = young, bytearray(len(young))
        return bool(known)

    def __contains__(self, key: bytes) -> bool:
        place = hash(key) & self.mask
        return bool(self.young[place] or self._old[place])
