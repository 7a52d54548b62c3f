"""The order in which keys were last written, in bounded memory: for the eviction policy `oldest`.

RocksDB keeps no such order that its bindings show, and an index of it would cost a second write for every write. So
each write leaves its number in a table of fixed size, at the place that the key's hash gives. Keys that share a place
share the number of the last write to any of them: a key may look younger than it is, never older. Keys that were
written before the recording began have number 0, unless they share a place. Nothing of this survives a restart.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence

from .engines.engine import DATA, Mutation

#: Slots of the table, a power of two; 8 bytes each.
PLACES = 1 << 20
#: Numbers looked at, at most, to find the oldest share of all.
_SAMPLE = 16_384
#: One key in so many is among the oldest.
SHARE = 16


class WriteSequence:
    """Numbers of the last writes. Safe from any thread without a lock: of two writes at once either may be the last."""

    def __init__(self, places: int = PLACES) -> None:
        self._mask = places - 1
        self._numbers = array("Q")
        self._next = itertools.count(1).__next__

    @property
    def recording(self) -> bool:
        """Whether writes are being recorded."""
        return bool(self._numbers)

    def record(self, on: bool) -> None:
        """Begin to record writes, with none known; or stop, and forget all."""
        if on != self.recording:
            self._numbers = array("Q", bytes(8 * (self._mask + 1) if on else 0))

    def written(self, mutations: Sequence[Mutation]) -> None:
        """These mutations were applied: number the keys that got a value."""
        numbers = self._numbers
        if numbers:
            for family, key, value in mutations:
                if value is not None and family == DATA:
                    numbers[hash(key) & self._mask] = self._next()

    def number(self, key: bytes) -> int:
        """The number of the last write to `key`, or to one that shares its place; 0 when none was recorded."""
        numbers = self._numbers
        return numbers[hash(key) & self._mask] if numbers else 0

    def oldest_share(self, after: int) -> int:
        """A number above `after` up to which about one in SHARE of the later ones lies; 0 when there are no later ones.

        Some 50 ms, with Python's lock given up now and then.
        """
        later = [number for number in self._numbers if number > after]
        sample = sorted(later[:: len(later) // _SAMPLE + 1])
        return sample[len(sample) // SHARE] if sample else 0
