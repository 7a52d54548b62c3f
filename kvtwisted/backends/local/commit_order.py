"""The order of writes: what must happen under one lock, so that no reader sees half a write, or writes out of order.

Note [Delete only what was not rewritten]: expiry and eviction choose keys first and delete them later. A Set in between
must win. So they register the keys they are about to judge (`guarding`) before they read them; every write strikes its
keys off every guard, under the lock; and `delete_guarded` deletes, under the same lock, only what is still guarded. The
lock is never held over a read or an fsync.

Note [The version shows writes]: `version` grows when a write begins and when it ends, so that it is odd in between.
Whoever reads it even, and finds it unchanged later, knows that no write happened between.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ...core.errors import KvError, LostFolder, WriteStalled, without_frames
from .cache import HotCache
from .engines.engine import DATA, EXPIRY, FILES, CanReopen, Engine, Mutation
from .file_index import FileIndex
from .index_entries import IndexEntries
from .large_values import Collected, ValueFiles
from .records import Pointer
from .views import WrittenRange
from .write import Write
from .write_sequence import WriteSequence


class CommitOrder:
    """Orders writes, expiry, eviction, fsyncs and reopenings. Blocks on storage; safe from any thread."""

    def __init__(self, engine: Engine, cache: HotCache | None = None, files: ValueFiles | None = None) -> None:
        """Without a cache nothing is cached, without files nothing can be stored in one."""
        self._engine = engine
        #: For reading by anybody; changed here alone.
        self.cache = cache if cache is not None else HotCache(0)
        self._entries = self.cache.entries
        self.files = files if files is not None else ValueFiles("")
        self._lock = threading.Lock()
        self._guards: list[set[bytes] | WrittenRange] = []
        #: See Note [The version shows writes].
        self.version = 0
        self._index = FileIndex(engine, files, self._lock)
        #: Why every write is refused, as long as the folder of the data is not what it was. May be set at any time.
        self.refusal: str | None = None
        #: Told of the writes that went in, unless None. May be set at any time.
        self.write_sequence: WriteSequence | None = None
        #: Takes entries of the expiry index along with what replaces their keys.
        self.index_entries = IndexEntries()
        #: Whether the engine failed the last batch.
        self._failing = False
        self._sync_lock = threading.Lock()
        self._synced = 0

    def _apply(self, batch: Sequence[Write]) -> None:
        """Bring writes into the engine as one batch, and settle them unless RocksDB stalls."""
        mutations: list[Mutation] = []
        pending: dict[bytes, Pointer | None] = {}
        dated = False
        for write in batch:
            if not write.plain or write.size != write.stores:  # it has a ttl, or deletes
                dated = True
                mutations += self.index_entries.replace(write.changes)
            mutations += write.mutations()
            if write.large or pending or self._index.pointers:
                mutations += self._index.prepare(write, pending)
        if self._guards:
            for write in batch:
                self._strike([key for key, _, _ in write.changes])
        blanked = self.cache.blank_all([write.changes for write in batch]) if self._entries else {}
        error: KvError | None = None
        self.version += 1
        try:
            if mutations:
                self._engine.write(mutations)
        except KvError as failure:
            error = without_frames(failure)
        finally:
            self.version += 1
        if error is not None:
            if dated:
                self.index_entries.undo()
            for key in blanked:
                self.cache.drop(key)
            if not isinstance(error, WriteStalled):
                self._failing = True
                for write in batch:
                    self._index.failed(write, error)
                    write.settle(error)
            return
        self._failing = False
        if self.write_sequence is not None:
            self.write_sequence.written(mutations)
        if dated:
            self.index_entries.keep()
        self.cache.fill_all(blanked)
        self._index.keep(batch, pending)
        for write in batch:
            write.settle()

    def write_own(self, mutations: Sequence[Mutation]) -> None:
        """Write entries of the server's own, in order with users' writes, so that `sync` is for them too.

        Raises WriteStalled rather than wait.
        """
        with self._lock:
            self.version += 1
            try:
                self._engine.write(mutations)
            finally:
                self.version += 1

    def _strike(self, keys: Sequence[bytes]) -> None:
        for guard in self._guards:
            guard.difference_update(keys)

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

    def reopen(self) -> bool:
        """Close the engine's database and open it again: see `CanReopen.reopen`. Blocks. False if the engine cannot.

        A write that failed may be in it now. So what was remembered of it goes, while nothing can be read, and which
        files the records name is read anew.
        """

        if not isinstance(self._engine, CanReopen):
            return False

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
        return True

    def collect_orphans(self) -> Collected:
        """Remove the files of large values that no record names. Blocks; requests may run meanwhile.

        Raises StorageError when the folder cannot be read.
        """
        return self._index.collect_orphans()

    @property
    def large_files(self) -> int:
        """How many files records point to."""
        return len(self._index.pointers)

    def named_files(self) -> set[bytes]:
        """The names of those files."""
        with self._lock:
            return {pointer.name for pointer in self._index.pointers.values()}

    def resize_cache(self, max_bytes: int) -> None:
        """Change the hot cache's limit."""
        with self._lock:
            self.cache.resize(max_bytes)

    def offer(self, version: int, key: bytes, value: bytes, expires_at_ms: int) -> None:
        """Cache what was read from the engine, if nothing was written since `version` was read, before it.

        Does not wait: while another thread writes, the key has to be read once more.
        """
        if version & 1 or not self._lock.acquire(False):
            return
        try:
            if self.version == version:
                self.cache.put(key, value, expires_at_ms)
        finally:
            self._lock.release()

    @contextmanager
    def guarding(self, keys: Iterable[bytes]) -> Iterator[set[bytes]]:
        """Within the block, know which of `keys` have not been rewritten; register before reading what is judged."""
        with self._registered(guard := set(keys)):
            yield guard

    @contextmanager
    def watching_range(self, start: bytes, end: bytes | None) -> Iterator[WrittenRange]:
        """Within the block, know of writes to a range; see Note [A page from several views]."""
        with self._registered(guard := WrittenRange(start, end)):
            yield guard

    @contextmanager
    def _registered(self, guard: set[bytes] | WrittenRange) -> Iterator[None]:
        with self._lock:
            self._guards.append(guard)
        try:
            yield
        finally:
            with self._lock:
                self._guards = [other for other in self._guards if other is not guard]

    def delete_guarded(
        self, guard: set[bytes], condemned: Mapping[bytes, Sequence[Mutation]], also: Sequence[Mutation] = ()
    ) -> list[bytes]:
        """Delete those condemned keys that are still on `guard`, each with its own mutations, and `also`, in one batch.

        Returns the keys deleted. Raises WriteStalled rather than wait.
        """
        with self._lock:
            if self.refusal is not None:
                raise LostFolder(self.refusal)
            deleted = [key for key in condemned if key in guard]
            mutations: list[Mutation] = list(also)
            for key in deleted:
                mutations.append((DATA, key, None))
                mutations.extend(condemned[key])
                if key in self._index.pointers:
                    mutations.append((FILES, key, None))
            if not mutations:
                return deleted
            for other in self._guards:
                if other is not guard:
                    other.difference_update(deleted)
            for key in deleted:
                self.cache.drop(key)
            self.version += 1
            try:
                self._engine.write(mutations)
            finally:
                self.version += 1
            had_files = self._index.forget(deleted)
            self.index_entries.forget(deleted)
        if had_files:
            self.sync()
        return deleted

    def unindex_guarded(self, guard: set[bytes], stale: Mapping[bytes, bytes]) -> int:
        """Remove entries of the expiry index whose key is still on `guard`: they are given with their keys.

        Returns how many went. Raises WriteStalled rather than wait.
        """
        with self._lock:
            mutations: list[Mutation] = [(EXPIRY, entry, None) for entry, key in stale.items() if key in guard]
            if mutations:
                self._engine.write(mutations)
        return len(mutations)
