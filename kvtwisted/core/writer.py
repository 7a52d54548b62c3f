"""The one way a write goes in: ordered against the deletions of expiry and eviction, and patient with write stalls.

Note [Delete only what was not rewritten]: expiry and eviction choose keys first and delete them later. A Set in between
must win. So they register the keys they are about to judge (`watching`) before they read them; every write strikes its
keys off every watch, under the lock; and `delete_watched` deletes, under the same lock, only what is still watched. The
lock is never held over a read or an fsync.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Callable

from .engine import DATA, Engine, Mutation
from .errors import Overloaded, WriteStalled

_STALL_PAUSE, _LONGEST_STALL_PAUSE = 0.001, 0.05


class Writer:
    """Applies batches to the engine. Blocks; safe from any thread."""

    def __init__(self, engine: Engine, *, durable: bool = False, sleep: Callable[[float], None] = time.sleep) -> None:
        """`durable` makes every write wait until it would survive a power loss; it may be changed at any time."""
        self._engine = engine
        self._sleep = sleep
        self._lock = threading.Lock()
        self._watches: list[set[bytes]] = []
        self.durable = durable

    def write(self, mutations: Sequence[Mutation], keys: Collection[bytes], deadline: float) -> None:
        """Apply a user's mutations of `keys` atomically.

        While RocksDB stalls writes this waits, with growing pauses, until `deadline` (of `time.monotonic`), then raises
        Overloaded: nothing was written. A StorageError of the fsync leaves open whether the write will survive.
        """
        pause = _STALL_PAUSE
        while not self._accepted(mutations, keys):
            if time.monotonic() + pause > deadline:
                raise Overloaded("RocksDB has stalled writes until compaction catches up; try again")
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_STALL_PAUSE)
        if self.durable:
            self._engine.sync()

    def _accepted(self, mutations: Sequence[Mutation], keys: Collection[bytes]) -> bool:
        with self._lock:
            for watch in self._watches:
                watch.difference_update(keys)
            try:
                self._engine.write(mutations)
            except WriteStalled:
                return False
            return True

    @contextmanager
    def watching(self, keys: Iterable[bytes]) -> Iterator[set[bytes]]:
        """Within the block, know which of `keys` have not been rewritten; register before reading what is judged."""
        watch = set(keys)
        with self._lock:
            self._watches.append(watch)
        try:
            yield watch
        finally:
            with self._lock:
                self._watches = [other for other in self._watches if other is not watch]

    def delete_watched(
        self, watch: set[bytes], condemned: Mapping[bytes, Sequence[Mutation]], also: Sequence[Mutation] = ()
    ) -> list[bytes]:
        """Delete those condemned keys that are still on `watch`, each with its own mutations, and `also`, in one batch.

        Returns the keys deleted. Raises WriteStalled rather than wait.
        """
        with self._lock:
            deleted = [key for key in condemned if key in watch]
            mutations: list[Mutation] = list(also)
            for key in deleted:
                mutations.append((DATA, key, None))
                mutations.extend(condemned[key])
            if mutations:
                self._engine.write(mutations)
        return deleted
