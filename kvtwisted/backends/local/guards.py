"""Guards: who reads first and acts later learns here which keys were written in between.

Note [Delete only what was not rewritten]: expiry and eviction choose keys first and delete them later. A Set in between
must win. So they register the keys they are about to judge before they read them; every write strikes its keys off
every guard, under the lock of the commit point; and `CommitPoint.delete_guarded` deletes, under the same lock, only
what is still guarded. The lock is never held over a read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ...commands.ranges import KeyRange
from .views import WrittenRange


class Guards:
    """The sets and ranges of keys that are guarded now. Safe from any thread."""

    def __init__(self, lock: threading.Lock) -> None:
        """`lock` is the commit point's."""
        self._lock = lock
        #: Those of now.
        self.registered: list[set[bytes] | WrittenRange] = []

    @contextmanager
    def keys(self, keys: Iterable[bytes]) -> Iterator[set[bytes]]:
        """Within the block, know which of `keys` have not been rewritten; register before reading what is judged."""
        with self._until_left(guard := set(keys)):
            yield guard

    @contextmanager
    def range(self, start: bytes, end: bytes | None) -> Iterator[WrittenRange]:
        """Within the block, know of writes to a range; see Note [One view over deleted keys]."""
        with self._until_left(guard := WrittenRange(start, end)):
            yield guard

    @contextmanager
    def _until_left(self, guard: set[bytes] | WrittenRange) -> Iterator[None]:
        with self._lock:
            self.registered.append(guard)
        try:
            yield
        finally:
            with self._lock:
                self.registered = [other for other in self.registered if other is not guard]

    def strike(self, keys: Sequence[bytes], but: set[bytes] | None = None) -> None:
        """These keys are about to be written, by who has the guard `but`. For the commit point, under its lock."""
        for guard in self.registered:
            if guard is not but:
                guard.difference_update(keys)

    def strike_range(self, range: KeyRange) -> None:
        """All keys of a range are about to be deleted. For the commit point, under its lock."""
        for guard in self.registered:
            if isinstance(guard, WrittenRange):
                guard.range_update(*range)
            else:
                guard.difference_update([key for key in guard if range.has(key)])

    def strike_all(self) -> None:
        """Nobody knows what is written. For the commit point, under its lock."""
        for guard in self.registered:
            guard.clear()
