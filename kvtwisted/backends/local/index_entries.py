"""The entry of the expiry index that each key has, as far as it is remembered, so that a write that replaces the key
deletes it too.

RocksDB could tell, for the price of a read before every write. So each write with a ttl leaves its deadline in a table
of fixed size, at the place that the key's hash gives, with some more bits of the hash as a tag. The next such write of
the key, and its deletion, remove the entry in the same batch. A write without a ttl does not look, which costs it
nothing: its key keeps one entry at most, which the next write with a ttl, or the deletion, takes along. A command that
decides (`commands.deciding`) is told what is stored, and so its write removes the entry of that whatever is remembered.

Note [Index hints may be wrong]: keys that share a place forget one another, and a restart forgets all. What is left
behind then is `scrub`'s work, and `doubts` counts how often that may have happened. Two keys may even share a place and
a tag. Then an entry is removed that the index does not have; never one that is needed, since a key loses only entries
of its own, in the batch that replaces its record.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from ...commands.command import Change
from .engines.engine import EXPIRY, Mutation
from .records import index_key

#: Places of the table, a power of two; 8 bytes each, once there is a first ttl.
SLOTS = 1 << 20
#: Keys that are deleted at once for which the whole index is gone through.
FLOOD = 500
#: A place holds a deadline in its lower bits (until the year 2527), and a tag in those above.
_DEADLINE_BITS = 44
_DEADLINE = (1 << _DEADLINE_BITS) - 1
_TAG = (1 << 64) - 1 - _DEADLINE

_NO_DEADLINES: dict[bytes, int] = {}


class IndexEntries:
    """The entries that the last writes made. For the commit point, under its lock; the figures are for anybody."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._slots = slots
        self._mask = slots - 1
        self._known = array("Q")
        # What to put back should the batch fail: place and content; and how many entries it takes along.
        self._before: list[tuple[int, int]] = []
        self._taking = 0
        #: How many entries may have been left behind since the start.
        self.doubts = 0
        #: How often so many were, at once, that the whole index is to be gone through.
        self.floods = 0
        #: How many entries were written, and how many were deleted by the write that replaced them.
        self.written = self.taken = 0

    def replace(self, changes: Sequence[Change], before: Mapping[bytes, int] = _NO_DEADLINES) -> list[Mutation]:
        """The entries to delete with these changes. Call `keep` or `undo` next.

        `before` are deadlines that the keys have, of those where that is known for certain (0: none).
        """
        known, mask = self._known, self._mask
        mutations: list[Mutation] = []
        for key, value, deadline in changes:
            had = before.get(key, 0)
            if had and had != deadline:
                mutations.append((EXPIRY, index_key(had, key), None))
            if not deadline and value is not None and not had:
                continue
            if not known:
                if not deadline:
                    self.doubts += not had
                    continue
                known = self._known = array("Q", bytes(8 * self._slots))
            hashed = hash(key)
            place = hashed & mask
            remembered = known[place]
            tag = (hashed << 22) & _TAG
            if remembered and remembered & _TAG == tag:
                if remembered & _DEADLINE not in (deadline, had):
                    mutations.append((EXPIRY, index_key(remembered & _DEADLINE, key), None))
            else:
                self.doubts += not had
                if not deadline:
                    continue
            self.written += bool(deadline)
            known[place] = tag | deadline if deadline else 0
            self._before.append((place, remembered))
        self._taking += len(mutations)
        return mutations

    def keep(self) -> None:
        """The changes are in the engine."""
        self.taken += self._taking
        self._taking = 0
        self._before.clear()

    def undo(self) -> None:
        """The engine failed the batch, or may have: either entry may be left behind."""
        for place, before in reversed(self._before):
            self._known[place] = before
        self.doubts += len(self._before)
        self._taking = 0
        self._before.clear()

    def left_behind(self, keys: int) -> None:
        """So many keys were deleted without being told, and their entries were not."""
        self.doubts += keys
        if keys >= FLOOD:
            self.floods += 1

    def forget(self, keys: Sequence[bytes]) -> None:
        """These keys were deleted, with their entries."""
        known = self._known
        if known:
            for key in keys:
                hashed = hash(key)
                if known[hashed & self._mask] & _TAG == (hashed << 22) & _TAG:
                    known[hashed & self._mask] = 0
