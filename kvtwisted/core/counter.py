"""A count that any thread may advance without a lock."""

from __future__ import annotations

import itertools
import threading


class Counter:
    """Counts up from 0. `advance` adds one, in one call of C that no thread can divide.

    It returns a number that is larger by one than what it, or a reading of `value`, drew before: of use for sampling.
    """

    __slots__ = ("_draw", "_lock", "_read", "advance")

    def __init__(self) -> None:
        self._draw = self.advance = itertools.count(1).__next__
        self._lock = threading.Lock()
        # Numbers that readings drew.
        self._read = 0

    @property
    def value(self) -> int:
        """The count. A reading draws a number too, since nothing else tells where the numbers are, and discounts it."""
        with self._lock:
            self._read += 1
            return self._draw() - self._read
