"""The one way a write goes in: ordered against expiry and eviction, coherent with the hot cache, patient with stalls.

Note [Delete only what was not rewritten]: expiry and eviction choose keys first and delete them later. A Set in between
must win. So they register the keys they are about to judge (`watching`) before they read them; every write strikes its
keys off every watch, under the lock; and `delete_watched` deletes, under the same lock, only what is still watched. The
lock is never held over a read or an fsync.

Note [One fsync for many]: RocksDB groups only writes that wait for their fsync at the same time, which Python's lock
rarely lets happen. So a write goes in without one and then waits until some fsync that began after it has ended: while
one thread is in the fsync, others write, and the next fsync is for all of them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Callable, Optional

from . import records
from .cache import HotCache
from .engine import DATA, EXPIRY, FILES, Engine, Mutation
from .errors import Overloaded, StorageError, WriteStalled
from .large_values import ValueFiles
from .records import Pointer

_STALL_PAUSE, _LONGEST_STALL_PAUSE = 0.001, 0.05

#: A user's change of one key: the value, or None to delete, and its deadline in ms since 1970 (0: never).
Change = tuple[bytes, Optional[bytes], int]


class Writer:
    """Applies batches to the engine, the cache and the files of large values. Blocks; safe from any thread."""

    def __init__(
        self,
        engine: Engine,
        cache: HotCache | None = None,
        files: ValueFiles | None = None,
        *,
        durable: bool = False,
        spill_threshold: float = math.inf,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`durable` makes every write wait until it would survive a power loss.

        Values of `spill_threshold` bytes and more go to `files`. Both may be changed at any time.
        """
        self._engine = engine
        #: For reading by anybody; changed here alone. Without one nothing is cached.
        self.cache = cache if cache is not None else HotCache(0)
        self.files = files if files is not None else ValueFiles("")
        self._sleep = sleep
        self._lock = threading.Lock()
        self._watches: list[set[bytes]] = []
        self._written = 0
        self._sync_lock = threading.Lock()
        self._synced = 0
        # As many as there are files: the one figure that memory must hold for each.
        self._large = {} if files is None else _pointers(engine)
        # Files that no record names any more, once what says so is durable.
        self._replaced: list[Pointer] = []
        self.durable = durable
        self.spill_threshold = spill_threshold

    def large_files(self) -> set[bytes]:
        """Names of the files that records point to."""
        with self._lock:
            return {pointer.name for pointer in self._large.values()}

    def write(self, changes: Sequence[Change], deadline: float) -> None:
        """Apply a user's changes atomically.

        While RocksDB stalls writes this waits, with growing pauses, until `deadline` (of `time.monotonic`), then raises
        Overloaded: nothing was written. A StorageError of the fsync leaves open whether the write will survive.
        """
        large = self._spill(changes)
        mutations = _mutations(changes, large)
        pause = _STALL_PAUSE
        while (replaced := self._accepted(mutations, changes, large)) is None:
            if time.monotonic() + pause > deadline:
                self.files.retire(large.values())
                raise Overloaded("RocksDB has stalled writes until compaction catches up; try again")
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_STALL_PAUSE)
        if self.durable or large or replaced:
            self.sync()

    def _spill(self, changes: Sequence[Change]) -> dict[bytes, Pointer]:
        large: dict[bytes, Pointer] = {}
        try:
            for key, value, _ in changes:
                if value is not None and len(value) >= self.spill_threshold:
                    large[key] = self.files.store(value)
        except StorageError:
            self.files.retire(large.values())
            raise
        return large

    def sync(self) -> None:
        """Return once every write that has returned from RocksDB by now would survive a power loss."""
        mine = self._written
        with self._sync_lock:
            if self._synced < mine:
                with self._lock:
                    covered, replaced = self._written, len(self._replaced)
                self._engine.sync()
                self._synced = covered
                # No durable record names these files any more.
                with self._lock:
                    gone, self._replaced = self._replaced[:replaced], self._replaced[replaced:]
                if gone:
                    self.files.retire(gone)

    def _accepted(
        self, mutations: Sequence[Mutation], changes: Sequence[Change], large: Mapping[bytes, Pointer]
    ) -> bool | None:
        """Write, unless RocksDB stalls (None); returns whether any file was replaced."""
        with self._lock:
            for watch in self._watches:
                watch.difference_update([key for key, _, _ in changes])
            # Out of the cache before the engine changes, so that nobody sees the old value there after a new one.
            cached = {key for key, _, _ in changes if key in self.cache.entries}
            for key in cached:
                self.cache.drop(key)
            inlined = [key for key, _, _ in changes if key in self._large and key not in large] if self._large else []
            try:
                self._engine.write([*mutations, *((FILES, key, None) for key in inlined)] if inlined else mutations)
            except WriteStalled:
                return None
            self._written += 1
            for key, value, expires_at_ms in changes:
                if key in cached and value is not None:
                    self.cache.put(key, value, expires_at_ms)
            replaced = self._forget_files([*inlined, *large])
            self._large.update(large)
            return bool(replaced)

    def _forget_files(self, keys: Iterable[bytes]) -> list[Pointer]:
        """The files of keys that are no longer large; they go after the next fsync."""
        replaced = [pointer for key in keys if (pointer := self._large.pop(key, None)) is not None]
        self._replaced += replaced
        return replaced

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

    def offer(self, watch: set[bytes], key: bytes, value: bytes, expires_at_ms: int) -> None:
        """Cache what was read from the engine while `watch` held `key`, unless the key was written since."""
        with self._lock:
            if key in watch:
                self.cache.put(key, value, expires_at_ms)

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
                self.cache.drop(key)
                mutations.append((DATA, key, None))
                mutations.extend(condemned[key])
                if key in self._large:
                    mutations.append((FILES, key, None))
            # What a reader that watches the key too has read must not come into the cache any more.
            for other in self._watches:
                if other is not watch:
                    other.difference_update(deleted)
            if mutations:
                self._engine.write(mutations)
                self._written += 1
            replaced = self._forget_files(deleted)
        if replaced:
            self.sync()
        return deleted


def _pointers(engine: Engine) -> dict[bytes, Pointer]:
    return {key: records.unpack_pointer(pointer) for key, pointer in engine.scan(b"", None, FILES)}


def _mutations(changes: Sequence[Change], large: Mapping[bytes, Pointer]) -> list[Mutation]:
    mutations: list[Mutation] = []
    for key, value, expires_at_ms in changes:
        if value is None:
            mutations.append((DATA, key, None))
            continue
        pointer = large.get(key)
        if pointer is None:
            mutations.append((DATA, key, records.encode(value, expires_at_ms)))
        else:
            mutations.append((DATA, key, records.encode_pointer(pointer, expires_at_ms)))
            mutations.append((FILES, key, pointer.pack()))
        if expires_at_ms:
            mutations.append((EXPIRY, records.index_key(expires_at_ms, key), b""))
    return mutations
