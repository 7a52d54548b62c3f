"""How a user's write comes to the commit point: admitted, its large values in files, patient with stalls.

Note [Waiting writes share a batch]: a write that finds the commit point's lock taken queues up, and whoever gets the
lock next commits all that is queued as one batch. So writes that come together cost one batch; a write that comes alone
waits for nobody. Writes that share a batch share its fate.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Callable

from ...commands.command import Change
from ...core.clock import pause
from ...core.errors import KvError, LostFolder, Overloaded, StorageError, WriteStalled
from .cache import HotCache
from .commit_point import CommitPoint
from .deciding_write import Batch
from .engines.engine import Engine
from .large_values import ValueFiles
from .records import Pointer
from .write import Write

STALL_PAUSE, LONGEST_STALL_PAUSE = 0.001, 0.05
STALLED = "RocksDB has stalled writes until compaction catches up; try again"


class Writer:
    """Takes users' writes in, on any thread: `try_now` what need not wait, `write_all` the rest."""

    def __init__(
        self,
        engine: Engine,
        cache: HotCache | None = None,
        files: ValueFiles | None = None,
        *,
        durable: bool = False,
        spill_threshold: float = math.inf,
        admit: Callable[[int], None] | None = None,
        admit_file: Callable[[], None] | None = None,
        sleep: Callable[[float], None] = pause,
    ) -> None:
        """`durable` makes every write wait until it would survive a power loss.

        Values of `spill_threshold` bytes and more go to `files`. Both may be changed at any time. `admit` is told the
        bytes of each write that stores something, and raises what refuses it; `admit_file` does so before each file.
        """
        self.commits = CommitPoint(engine, cache, files)
        self.files = files if files is not None else ValueFiles("")
        self._engine = engine
        self._lock, self._revisions = self.commits.lock, self.commits.revisions
        self._admit = admit
        self._admit_file = admit_file
        self.sleep = sleep
        self._queue: deque[Write] = deque()
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
        write.check()

    def write_all(self, writes: Sequence[Write]) -> None:
        """Apply writes, each atomic, as one batch where possible. Blocks.

        Returns when each is settled, or has to be decided apart (`is_apart`).
        """
        waiting = [write for write in writes if self._prepared(write)]
        pause = STALL_PAUSE
        while waiting and not self._went_in(waiting):
            waiting = self._still_in_time(waiting, pause)
            if waiting:
                self.sleep(pause)
            pause = min(2 * pause, LONGEST_STALL_PAUSE)
        self.make_last(waiting)

    def make_last(self, writes: Sequence[Write]) -> None:
        """Wait until those that went in would survive a power loss, if they have to. Blocks."""
        done = [write for write in writes if write.revision and write.error is None]
        lasting = done if self.durable else [write for write in done if write.large or write.replaced]
        if lasting:
            try:
                self.commits.sync()
            except StorageError as error:
                for write in lasting:
                    write.fail(error)

    def _prepared(self, write: Write) -> bool:
        """Ask whether it may go in, and store its large values; settles it when that fails."""
        if write.settled or write.is_apart:
            return False
        # What one that decides has stored so far says nothing of what it will, once it is its turn again.
        stores = 0 if write.decides else write.stores
        try:
            self.admit(stores)
            if stores >= self.spill_threshold and not write.large:
                self._spill(write)
        except KvError as error:
            self.files.retire(write.large.values())
            write.fail(error)
        return not write.settled

    def admit(self, stores: int) -> None:
        """Raise what refuses a write that stores so many bytes."""
        if self.commits.refusal is not None:
            raise LostFolder(self.commits.refusal)
        if stores and self._admit is not None:
            self._admit(stores)

    def _spill(self, write: Write) -> None:
        self.before_files()
        write.large = {}
        for key, value, _ in write.changes:
            if value is not None and len(value) >= self.spill_threshold:
                if write.large and time.monotonic() > write.deadline:
                    raise Overloaded("the request's time ran out while its large values were being written")
                write.large[key] = self.store_file(value)

    def before_files(self) -> None:
        """Raise what would keep the engine from writing the record of a large value. Blocks."""
        if self.commits.failing:
            # Of a write that fails the files may have to stay. So ask first, or each new try would leave some more.
            with suppress(WriteStalled):
                self._engine.write([])

    def store_file(self, value: bytes) -> Pointer:
        """Write a large value to its file. Blocks; raises StorageError, and what refuses it."""
        if self._admit_file is not None:
            self._admit_file()
        return self.files.store(value)

    def _still_in_time(self, writes: Sequence[Write], pause: float) -> list[Write]:
        """Those that can wait so long; the others are settled."""
        patient = []
        now = time.monotonic()
        for write in writes:
            if write.settled or write.is_apart:
                continue
            if now + pause > write.deadline:
                self.files.retire(write.large.values())
                write.fail(Overloaded(STALLED))
            else:
                patient.append(write)
        return patient

    def _went_in(self, writes: Sequence[Write]) -> bool:
        """Apply writes, and with them those that wait for the lock; False when RocksDB stalls."""
        if self._lock.acquire(False):
            batch = writes
        else:
            self._queue.extend(writes)
            self._lock.acquire()
            # Whoever had the lock may have taken ours along.
            batch = [self._queue.popleft() for _ in range(len(self._queue))]
        try:
            if batch:
                self._commit(batch)
        finally:
            self._lock.release()
        return not _stalled(writes)

    def _commit(self, writes: Sequence[Write]) -> bool:
        """Commit a batch, with the lock, once those that decide have decided. False when RocksDB stalls."""
        for write in writes:
            if write.decides:
                break
        else:
            self.commits.commit(writes)
            return writes[0].settled
        batch = Batch(writes, self.admit, self._may_go)
        if batch.going:
            self.commits.commit(batch.going)
        batch.settle()
        return not _stalled(writes)

    def _may_go(self, write: Write) -> bool:
        """Whether a decision can be carried out as it is: no file has to be written, and none goes."""
        if write.size < self.spill_threshold and not self.commits.file_index.pointers:
            return True
        keeps = write.keeps
        changes = [change for change in write.changes if change[0] not in keeps] if keeps else write.changes
        return not self.needs_files(changes)

    # Writes that may not.

    def try_now(self, writes: Sequence[Write]) -> bool:
        """Apply and settle writes if that needs no waiting, for a file, an fsync, a stall or a thread. Any thread.

        False when it does: nothing was done, and `write_all` is what to call. For `Write`s just made. Those that are to
        be decided apart (`is_apart`) are not settled.
        """
        if self.durable or self._engine.writes_wait:
            return False
        pointers, threshold = self.commits.file_index.pointers, self.spill_threshold
        for write in writes:
            if (pointers or write.size >= threshold) and self.needs_files(write.changes):
                return False
        if not self._lock.acquire(False):
            return False
        try:
            if self._revisions.reserved - self._revisions.last < sum([write.commits for write in writes]):
                return False
            admitted = list(filter(self._prepared, writes))
            if admitted:
                return self._commit(admitted)
        finally:
            self._lock.release()
        return True

    def needs_files(self, changes: Sequence[Change]) -> bool:
        """Whether these changes store or replace a large value. Small ones do not where there is no pointer."""
        pointers, threshold = self.commits.file_index.pointers, self.spill_threshold
        return any(key in pointers or (value is not None and len(value) >= threshold) for key, value, _ in changes)


def _stalled(writes: Sequence[Write]) -> bool:
    """Whether some of what was to go in did not."""
    return any(not (write.settled or write.is_apart) for write in writes)
