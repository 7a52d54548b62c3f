"""The one way a write goes in: ordered against expiry and eviction, coherent with the hot cache, patient with stalls.

Note [Delete only what was not rewritten]: expiry and eviction choose keys first and delete them later. A Set in between
must win. So they register the keys they are about to judge (`watching`) before they read them; every write strikes its
keys off every watch, under the lock; and `delete_watched` deletes, under the same lock, only what is still watched. The
lock is never held over a read or an fsync.

Note [Who waits goes along]: a write that finds the lock taken queues up, and whoever gets the lock next takes all that
is queued into the engine as one batch. So writes that come together cost one batch; a write that comes alone waits for
nobody. Writes that share a batch share its fate.

Note [The version tells of writes]: `version` grows when a write begins and when it ends, so that it is odd in between.
Whoever reads it even, and finds it unchanged later, knows that no write happened between.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Callable

from .cache import Entry, HotCache
from .engine import DATA, FILES, Engine, Mutation
from .errors import KvError, Overloaded, StorageError, WriteStalled
from .file_index import FileIndex
from .large_values import Collected, ValueFiles
from .records import Pointer
from .write import Change, Write

_STALL_PAUSE, _LONGEST_STALL_PAUSE = 0.001, 0.05


class Writer:
    """Applies writes to the engine, the cache and the files of large values. Safe from any thread."""

    def __init__(
        self,
        engine: Engine,
        cache: HotCache | None = None,
        files: ValueFiles | None = None,
        *,
        durable: bool = False,
        spill_threshold: float = math.inf,
        admit: Callable[[int], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`durable` makes every write wait until it would survive a power loss.

        Values of `spill_threshold` bytes and more go to `files`. Both may be changed at any time. `admit` is told the
        bytes of each write that stores something, and raises what refuses it.
        """
        self._engine = engine
        #: For reading by anybody; changed here alone. Without one nothing is cached.
        self.cache = cache if cache is not None else HotCache(0)
        self._entries = self.cache.entries
        self.files = files if files is not None else ValueFiles("")
        self._admit = admit
        self._sleep = sleep
        self._lock = threading.Lock()
        self._queue: deque[Write] = deque()
        self._watches: list[set[bytes]] = []
        #: See Note [The version tells of writes].
        self.version = 0
        self._index = FileIndex(engine, files, self._lock)
        self._sync_lock = threading.Lock()
        self._synced = 0
        self.durable = durable
        self.spill_threshold = spill_threshold

    # Writes that may wait.

    def write(self, changes: Sequence[Change], deadline: float = math.inf) -> None:
        """Apply changes atomically. Blocks.

        While RocksDB stalls writes this waits, with growing pauses, until `deadline`, then raises Overloaded: nothing
        was written. A StorageError of the fsync leaves open whether the write will survive.
        """
        write = Write(changes, deadline)
        self.write_all([write])
        if write.error is not None:
            raise write.error

    def put(self, key: bytes, value: bytes, deadline: float = math.inf) -> None:
        """Store one value that never expires and needs no envelope: what `write` does, by a shorter way."""
        if len(value) < self.spill_threshold and self._lock.acquire(blocking=False):
            try:
                went_in = key not in self._index.pointers
                if went_in:
                    if self._admit is not None:
                        self._admit(len(key) + len(value))
                    if self._watches:
                        self._strike((key,))
                    # What `HotCache.blank` does, without the call.
                    entry = self._entries.get(key)
                    if entry is not None:
                        entry.answer = entry.expiring = None
                    self.version += 1
                    try:
                        self._engine.put(key, value)
                    except WriteStalled:
                        went_in = False
                        self.cache.drop(key)
                    except BaseException:
                        self.cache.drop(key)
                        raise
                    finally:
                        self.version += 1
                    if entry is not None and went_in:
                        self.cache.fill(entry, key, value, 0)
            finally:
                self._lock.release()
            if went_in:
                if self.durable:
                    self.sync()
                return
        self.write([(key, value, 0)], deadline)

    def write_all(self, writes: Sequence[Write]) -> None:
        """Apply writes, each atomic, as one batch where possible. Blocks; returns when each is settled."""
        waiting = [write for write in writes if self._prepared(write)]
        pause = _STALL_PAUSE
        while waiting and not self._went_in(waiting):
            waiting = self._still_in_time(waiting, pause)
            if waiting:
                self._sleep(pause)
            pause = min(2 * pause, _LONGEST_STALL_PAUSE)
        done = [write for write in waiting if write.error is None]
        lasting = done if self.durable else [write for write in done if write.large or write.replaced]
        if lasting:
            try:
                self.sync()
            except StorageError as error:
                for write in lasting:
                    write.settle(error)

    def _prepared(self, write: Write) -> bool:
        """Ask whether it may go in, and store its large values; settles it when that fails."""
        if write.settled:
            return False
        try:
            if self._admit is not None and (size := write.size):
                self._admit(size)
            for key, value, _ in write.changes:
                if value is not None and len(value) >= self.spill_threshold:
                    if write.large and time.monotonic() > write.deadline:
                        raise Overloaded("the request's time ran out while its large values were being written")
                    write.large[key] = self.files.store(value)
        except KvError as error:
            self.files.retire(write.large.values())
            write.settle(error)
        return not write.settled

    def _still_in_time(self, writes: Sequence[Write], pause: float) -> list[Write]:
        """Those that can wait so long; the others are settled."""
        patient = []
        now = time.monotonic()
        for write in writes:
            if now + pause > write.deadline:
                self.files.retire(write.large.values())
                write.settle(Overloaded("RocksDB has stalled writes until compaction catches up; try again"))
            else:
                patient.append(write)
        return patient

    def _went_in(self, writes: Sequence[Write]) -> bool:
        """Apply writes, and with them those that wait for the lock; False when RocksDB stalls."""
        if self._lock.acquire(blocking=False):
            batch = writes
        else:
            self._queue.extend(writes)
            self._lock.acquire()
            # Whoever had the lock may have taken ours along.
            batch = [self._queue.popleft() for _ in range(len(self._queue))]
        try:
            if batch:
                self._apply(batch)
        finally:
            self._lock.release()
        return writes[0].settled

    # Writes that may not.

    def try_now(self, writes: Sequence[Write]) -> bool:
        """Apply and settle writes if that needs no waiting, for a file, an fsync, a stall or a thread. Any thread.

        False when it does: nothing was done, and `write_all` is what to call. For `Write`s just made.
        """
        if self.durable or self._engine.writes_wait or any(map(self.needs_files, writes)):
            return False
        if not self._lock.acquire(blocking=False):
            return False
        try:
            admitted = [write for write in writes if self._prepared(write)]
            if admitted:
                self._apply(admitted)
                return admitted[0].settled
        finally:
            self._lock.release()
        return True

    def needs_files(self, write: Write) -> bool:
        """Whether it stores or replaces a large value."""
        return any(
            key in self._index.pointers or (value is not None and len(value) >= self.spill_threshold)
            for key, value, _ in write.changes
        )

    # Under the lock.

    def _apply(self, batch: Sequence[Write]) -> None:
        """Bring writes into the engine as one batch, and settle them unless RocksDB stalls."""
        mutations: list[Mutation] = []
        pending: dict[bytes, Pointer | None] = {}
        for write in batch:
            mutations += write.mutations()
            mutations += self._index.prepare(write, pending)
        if self._watches:
            for write in batch:
                self._strike([key for key, _, _ in write.changes])
        entries: list[tuple[Entry, Change]] = []
        if self._entries:
            blank = self.cache.blank
            entries = [
                (entry, change)
                for write in batch
                for change in write.changes
                if (entry := blank(change[0])) is not None
            ]
        error: KvError | None = None
        self.version += 1
        try:
            self._engine.write(mutations)
        except KvError as failure:
            error = failure
        finally:
            self.version += 1
        if error is not None:
            for _, (key, _, _) in entries:
                self.cache.drop(key)
            if not isinstance(error, WriteStalled):
                for write in batch:
                    write.settle(error)
            return
        for entry, (key, value, expires_at_ms) in entries:
            if value is None:
                self.cache.drop(key)
            else:
                self.cache.fill(entry, key, value, expires_at_ms)
        self._index.keep(batch, pending)
        for write in batch:
            write.settle()

    def _strike(self, keys: Sequence[bytes]) -> None:
        for watch in self._watches:
            watch.difference_update(keys)

    # Everything else that needs the order of writes.

    def sync(self) -> None:
        """Return once every write that has returned from RocksDB by now would survive a power loss. Blocks.

        Note [One fsync for many]: RocksDB groups only writes that wait for their fsync at the same time, which Python's
        lock rarely lets happen. So a write goes in without one and then waits until some fsync that began after it has
        ended: while one thread is in the fsync, others write, and the next fsync is for all of them.
        """
        wanted = self.version
        with self._sync_lock:
            if self._synced >= wanted:
                return
            covered, replaced = self.version, self._index.replaced()
            self._engine.sync()
            self._synced = covered
            # No durable record names these files any more.
            self._index.retire(replaced)

    def reopen(self) -> None:
        """Close the engine's database and open it again: see `Engine.reopen`. Blocks.

        A write that failed may be in it now. So what was remembered of it goes, while nothing can be read, and which
        files the records name is read anew.
        """

        def forget() -> None:
            with self._lock:
                self.version += 2
                size = self.cache.max_bytes
                self.cache.resize(0)
                self.cache.resize(size)
                self._index.set_aside()

        try:
            self._engine.reopen(forget)
        except BaseException:
            with self._lock:
                self._index.put_back()
            raise
        with self._lock:
            self._index.read_again()

    def collect_orphans(self) -> Collected:
        """Remove the files of large values that no record names. Blocks; requests may run meanwhile.

        Raises StorageError when the folder cannot be read.
        """
        return self._index.collect_orphans()

    @property
    def large_files(self) -> int:
        """How many files records point to."""
        return len(self._index.pointers)

    def resize_cache(self, max_bytes: int) -> None:
        """Change the hot cache's limit."""
        with self._lock:
            self.cache.resize(max_bytes)

    def offer(self, version: int, key: bytes, value: bytes, expires_at_ms: int) -> None:
        """Cache what was read from the engine, if nothing was written since `version` was read, before it.

        Does not wait: while another thread writes, the key has to be read once more.
        """
        if version & 1 or not self._lock.acquire(blocking=False):
            return
        try:
            if self.version == version:
                self.cache.put(key, value, expires_at_ms)
        finally:
            self._lock.release()

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
                if key in self._index.pointers:
                    mutations.append((FILES, key, None))
            if not mutations:
                return deleted
            for key in deleted:
                self.cache.drop(key)
            self.version += 1
            try:
                self._engine.write(mutations)
            finally:
                self.version += 1
            had_files = self._index.forget(deleted)
        if had_files:
            self.sync()
        return deleted
