"""The one commit point: what must happen under one lock, so that nobody sees a write half done or out
of turn.

Everything that changes users' keys comes through here: commands, expiry and eviction. Each gets its revision here.

Note [The version shows writes]: `version` grows when a write begins and when it ends, so that it is odd in between.
Whoever reads it even, and finds it unchanged later, knows that no write happened between.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Callable, NamedTuple

from ...commands.ranges import KeyRange
from ...commands.watch import EventType
from ...core.errors import KvError, LostFolder, Unsupported, WriteStalled, without_frames
from .cache import HotCache
from .engines.engine import (
    DATA,
    EXPIRY,
    FILES,
    CanDeleteRange,
    CanReopen,
    Engine,
    Mutation,
    ScanUnfinished,
)
from .file_index import FileIndex
from .guards import Guards
from .history import History
from .index_entries import IndexEntries
from .large_values import ValueFiles
from .records import Pointer
from .revisions import Revisions
from .write import Write
from .write_sequence import WriteSequence

#: Keys of a range that are listed in one go; and bytes of values that are read for that, where it can go otherwise.
_AT_ONCE, _READ_BYTES = 256, 1_048_576


class RangeGone(NamedTuple):
    """A range was deleted: its revision (0: there was nothing), whether keys had files, and whether it went at once,
    without its keys being told to the engine."""

    revision: int
    had_files: bool
    at_once: bool


class CommitPoint:
    """Orders writes, expiry, eviction, fsyncs and reopenings. Blocks on storage; safe from any thread."""

    def __init__(self, engine: Engine, cache: HotCache | None = None, files: ValueFiles | None = None) -> None:
        """Without a cache nothing is cached, without files nothing can be stored in one."""
        self._engine = engine
        #: For reading by anybody; changed here alone.
        self.cache = cache if cache is not None else HotCache(0)
        #: Held while anything is brought in. The reactor thread never waits for it.
        self.lock = threading.Lock()
        #: See Note [The version shows writes].
        self.version = 0
        self.revisions = Revisions(engine)
        #: What the last commits did, for who watches.
        self.history = History(self.revisions.last)
        self.guards = Guards(self.lock)
        #: Which files the records name.
        self.file_index = FileIndex(engine, files, self.lock)
        #: Takes entries of the expiry index along with what replaces their keys.
        self.index_entries = IndexEntries()
        #: Why every write is refused, as long as the folder of the data is not what it was. May be set at any time.
        self.refusal: str | None = None
        #: Told of the writes that went in, unless None. May be set at any time.
        self.write_sequence: WriteSequence | None = None
        #: Whether the engine failed the last batch.
        self.failing = False
        self._sync_lock = threading.Lock()
        self._synced = 0

    def commit(self, batch: Sequence[Write]) -> None:
        """Bring writes into the engine as one batch, and settle them unless RocksDB stalls. With the lock.

        Each has revisions of its own, in their order.
        """
        mutations: list[Mutation] = []
        pending: dict[bytes, Pointer | None] = {}
        dated = False
        for write in batch:
            if not write.plain or write.size != write.stores or write.before:  # it has a ttl, deletes, or ends one
                dated = True
                if write.is_gathered:
                    for change in write.changes:
                        mutations += self.index_entries.replace((change,), write.before)
                        mutations += write.mutations((change,))
                    continue
                mutations += self.index_entries.replace(write.changes, write.before)
            if write.keeps:
                write.kept = self.file_index.kept(write.keeps, pending)
            if write.plain and not write.large:
                mutations += [(DATA, key, value) for key, value, _ in write.changes]
            else:
                mutations += write.mutations(write.changes)
            if write.large or pending or self.file_index.pointers:
                mutations += self.file_index.prepare(write, pending)
        if self.guards.registered:
            for write in batch:
                self.guards.strike([key for key, _, _ in write.changes])
        cache = self.cache
        blanked = cache.blank_all(batch) if cache.entries else {}
        revision = self.revisions.last
        try:
            self._write(mutations, sum([write.commits for write in batch]), partial(self.history.add_writes, batch))
        except KvError as failure:
            self._failed(batch, without_frames(failure), blanked, dated=dated)
            return
        self.failing = False
        if self.write_sequence is not None:
            self.write_sequence.written(mutations)
        if dated:
            self.index_entries.keep()
        if blanked:
            cache.fill_all(blanked)
        if pending:
            self.file_index.keep(batch, pending)
        for write in batch:
            revision += write.commits
            write.revision = revision
            write.settled = True

    def _write(
        self,
        mutations: Sequence[Mutation],
        commits: int = 0,
        tell: Callable[[int], None] | None = None,
        *,
        apply: Callable[[], None] | None = None,
    ) -> None:
        """The one way into the engine, with the lock. So many commits get a revision each, once all is in.

        `tell` is for the history: it is called with the last revision, if there is one, before anybody knows that.
        `apply` writes what is no series of mutations.

        It seldom has to reserve some; who may not wait looks before. See Note [A revision is never given twice].
        """
        revisions = self.revisions
        last = revisions.last + commits
        self.version += 1
        try:
            if last > revisions.reserved:
                revisions.reserve(commits)
            if apply is not None:
                apply()
            elif mutations:
                self._engine.write(mutations)
            if commits and tell is not None:
                tell(last)
            revisions.last = last
        finally:
            self.version += 1

    def _failed(self, batch: Sequence[Write], error: KvError, blanked: Mapping[bytes, object], *, dated: bool) -> None:
        if dated:
            self.index_entries.undo()
        for key in blanked:
            self.cache.drop(key)
        if not isinstance(error, WriteStalled):
            self.failing = True
            for write in batch:
                self.file_index.failed(write, error)
                write.fail(error)

    def write_own(self, mutations: Sequence[Mutation]) -> None:
        """Write entries of the server's own, in order with users' writes, so that `sync` is for them too.

        Raises WriteStalled rather than wait.
        """
        with self.lock:
            self._write(mutations)

    def delete_guarded(
        self,
        guard: set[bytes],
        condemned: Mapping[bytes, Sequence[Mutation]],
        also: Sequence[Mutation] = (),
        *,
        why: EventType = EventType.EXPIRE,
    ) -> list[bytes]:
        """Delete those condemned keys that are still on `guard`, each with its own mutations, and `also`, in one batch.

        Returns the keys deleted, which have one revision together; watchers are told `why`. Raises WriteStalled rather
        than wait.
        """
        with self.lock:
            if self.refusal is not None:
                raise LostFolder(self.refusal)
            deleted = [key for key in condemned if key in guard]
            mutations: list[Mutation] = list(also)
            for key in deleted:
                mutations.append((DATA, key, None))
                mutations.extend(condemned[key])
                if key in self.file_index.pointers:
                    mutations.append((FILES, key, None))
            if not mutations:
                return deleted
            self.guards.strike(deleted, guard)
            for key in deleted:
                self.cache.drop(key)
            self._write(mutations, 1 if deleted else 0, partial(self.history.add_removed, why, deleted))
            had_files = self.file_index.forget(deleted)
            self.index_entries.forget(deleted)
        if had_files:
            self.sync()
        return deleted

    def delete_range(self, range: KeyRange, single: int, expected: int) -> RangeGone:
        """Delete all keys of a range, as one commit: one by one if they are `single` or fewer, else at once.

        Some `expected` of them have not expired. Raises WriteStalled rather than wait, and Unsupported if the engine
        cannot do it at once; else StorageError, and then nobody knows what was done.
        """
        with self.lock:
            if self.refusal is not None:
                raise LostFolder(self.refusal)
            keys = self._listed(range, single)
            if keys is not None and not keys:
                return RangeGone(0, had_files=False, at_once=False)
            self.guards.strike_range(range)
            self.cache.drop_range(range)
            tell = partial(self.history.add_range, range)
            try:
                if keys is not None:
                    pointers = self.file_index.pointers
                    mutations: list[Mutation] = [(DATA, key, None) for key in keys]
                    mutations += [(FILES, key, None) for key in keys if key in pointers]
                    self._write(mutations, 1, tell)
                else:
                    self._write((), 1, tell, apply=partial(self._at_once().delete_range, *range))
            except WriteStalled:
                raise
            except KvError:
                self.failing = True
                raise
            # Nobody knows which of them left an entry behind.
            self.index_entries.left_behind(expected)
            had_files = self.file_index.forget_range(range)
            return RangeGone(self.revisions.last, had_files=had_files, at_once=keys is None)

    def _listed(self, range: KeyRange, most: int) -> list[bytes] | None:
        """The keys of a range; None if there are more than `most`, or they cannot be read at once."""
        keys: list[bytes] = []
        can_at_once = isinstance(self._engine, CanDeleteRange)
        try:
            pairs = self._engine.scan(*range, until=-math.inf if can_at_once else math.inf) if most else None
            size = 0
            while pairs is not None:
                taken = pairs.take(_AT_ONCE)
                if not taken:
                    return keys
                keys += [key for key, _ in taken]
                size += sum([len(value) for _, value in taken])
                if len(keys) > most or (can_at_once and size > _READ_BYTES):
                    break
        except ScanUnfinished:
            """There are many deleted keys, too."""
        return None

    def _at_once(self) -> CanDeleteRange:
        if isinstance(self._engine, CanDeleteRange):
            return self._engine
        raise Unsupported(
            "keys were written to the range meanwhile, and it has more now than the storage engine deletes at once "
            "(limits.max_range_delete_keys): delete it in parts"
        )

    def unindex_guarded(self, guard: set[bytes], stale: Mapping[bytes, bytes]) -> int:
        """Remove entries of the expiry index whose key is still on `guard`: they are given with their keys.

        Returns how many went. Raises WriteStalled rather than wait.
        """
        with self.lock:
            mutations: list[Mutation] = [(EXPIRY, entry, None) for entry, key in stale.items() if key in guard]
            if mutations:
                self._engine.write(mutations)
        return len(mutations)

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
            covered, replaced = self.version, self.file_index.replaced()
            self._engine.sync()
            self._synced = covered
            # No durable record names these files any more.
            self.file_index.retire(replaced)

    def reopen(self) -> bool:
        """Close the engine's database and open it again: see `CanReopen.reopen`. Blocks. False if the engine cannot.

        A write that failed may be in it now. So what was remembered of it goes, while nothing can be read, and which
        files the records name is read anew.
        """

        if not isinstance(self._engine, CanReopen):
            return False

        def forget() -> None:
            with self.lock:
                self.version += 2
                size = self.cache.max_bytes
                self.cache.resize(0)
                self.cache.resize(size)
                self.file_index.set_aside()
                # What was read before may not be what is there afterwards.
                self.guards.strike_all()

        try:
            self._engine.reopen(forget)
        except BaseException:
            with self.lock:
                self.file_index.put_back()
            raise
        with self.lock:
            self.file_index.read_again()
            # Nobody knows whether what failed is there now. A revision of its own tells who looked before from who did
            # afterwards.
            with suppress(KvError):
                self._write([], 1, self.history.begin_anew)
                return True
            self.history.begin_anew(self.revisions.last)
        return True

    def resize_cache(self, max_bytes: int) -> None:
        """Change the hot cache's limit."""
        with self.lock:
            self.cache.resize(max_bytes)

    def offer(self, version: int, key: bytes, value: bytes, expires_at_ms: int) -> None:
        """Cache what was read from the engine, if nothing was written since `version` was read, before it.

        Does not wait: while another thread writes, the key has to be read once more.
        """
        if version & 1 or not self.lock.acquire(False):
            return
        try:
            if self.version == version:
                self.cache.put(key, value, expires_at_ms)
        finally:
            self.lock.release()
