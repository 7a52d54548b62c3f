"""Gives back the space of deleted ranges, and the time that reads take over them, by compactions in the background.

Each range is compacted once, one at a time, so that requests find the disk and RocksDB's threads free. What waits is
bounded: ranges that meet are one, and when there are too many, so are neighbours.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from ....commands.ranges import KeyRange
from ..engines.engine import FILES, CanCompact, Engine

#: Ranges that wait.
MOST = 32
#: After every key.
_AFTER_ALL = b"\xff" * 1040


class _Waiting(NamedTuple):
    """A range, and whether it had values in files."""

    start: bytes
    end: bytes
    files: bool

    def meets(self, other: _Waiting) -> bool:
        """Whether nothing lies between them."""
        return self.start <= other.end and other.start <= self.end

    def joined(self, other: _Waiting) -> _Waiting:
        """Both, and what lies between them."""
        return _Waiting(min(self.start, other.start), max(self.end, other.end), self.files or other.files)


class RangeCompactions:
    """The ranges that wait to be compacted. Safe from any thread; only `turn` blocks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        # In order.
        self._ranges: list[_Waiting] = []
        #: Ranges compacted since the start.
        self.done = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._ranges)

    def add(self, range: KeyRange, *, files: bool) -> None:
        """All keys of a range were deleted; `files`: some had their values in files."""
        if not isinstance(self._engine, CanCompact):
            return
        new = _Waiting(range.start, _AFTER_ALL if range.end is None else range.end, files)
        with self._lock:
            apart = []
            for other in self._ranges:
                if other.meets(new):
                    new = new.joined(other)
                else:
                    apart.append(other)
            self._ranges = sorted([*apart, new])
            if len(self._ranges) > MOST:
                first, second, *rest = self._ranges
                self._ranges = [first.joined(second), *rest]

    def turn(self) -> None:
        """Compact the ranges that wait. Blocks; one thread. Raises StorageError: then they wait for the next turn."""
        engine = self._engine
        while self._ranges and isinstance(engine, CanCompact):
            with self._lock:
                range = self._ranges.pop(0)
            try:
                engine.compact(range.start, range.end)
                if range.files:
                    engine.compact(range.start, range.end, FILES)
            except BaseException:
                self.add(KeyRange(range.start, range.end), files=range.files)
                raise
            self.done += 1
