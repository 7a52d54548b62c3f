"""A count that any thread may advance without a lock."""

from __future__ import annotations

import itertools


class Counter:
    """Counts up from 0. `advance` adds one and returns the new count, in one call of C that no thread can divide."""

    __slots__ = ("_count", "advance")

    def __init__(self) -> None:
        self._count = itertools.count(1)
        self.advance = self._count.__next__

    @property
    def value(self) -> int:
        """The count. Reading it does not advance it: itertools.count shows its next number in its repr alone."""
        return int(repr(self._count)[len("count(") : -1]) - 1
