"""Decisions that take long: values are read and digested before the lock is taken, and that again if they changed.

See Note [Decisions and their writes are one step] in `kvtwisted.backends.local.deciding_write`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from ...core.errors import DeadlineExceeded, KvError, Overloaded, TooLarge, without_frames
from .deciding_write import DecidingWrite, NotMarked
from .lookups import NOTHING, Lookups, Stored
from .records import Pointer
from .writer import LONGEST_STALL_PAUSE, STALL_PAUSE, STALLED, Writer

#: Times that a decision is made without the lock, before it is its turn.
TIMES = 3
#: Bytes of all values that one command can be told of, since they are in memory until it is done.
READ_BYTES = 32 * 1_048_576


class Apart:
    """Settles a write whose `is_apart`. Blocks; one thread.

    Its keys are guarded and read, the command decides, and large values get their files. Then the write goes in, if
    nothing that it was told of was written since, nor expired; else it is decided again. After TIMES failures it is its
    turn: nobody writes until what was written since has been read, and the command has decided.
    """

    def __init__(self, writer: Writer, write: DecidingWrite) -> None:
        """It is settled by `settle`."""
        self._writer = writer
        self._commits = writer.commits
        self._write = write
        self._clock = write.lookups.clock

    def settle(self) -> None:
        """Once it is, its `error` says what became of it."""
        write = self._write
        in_use: Iterable[Pointer] = ()
        try:
            with self._commits.guards.keys(write.command.keys) as guard:
                self._memory = Memory(write.lookups, guard)
                self._decide()
            # What becomes of those that the engine was asked to name, the commit point has seen to.
            in_use = write.large.values()
        except KvError as error:
            write.fail(error)
        finally:
            self._writer.files.retire([pointer for _, pointer in write.files.values() if pointer not in in_use])
        self._writer.make_last([write])

    def _decide(self) -> None:
        write, failures, pause = self._write, 0, STALL_PAUSE
        while not write.settled:
            self._writer.admit(0)
            if time.monotonic() > write.deadline:
                raise DeadlineExceeded("the request's time ran out before it was decided; nothing was done")
            try:
                holds = self._in_turn() if failures >= TIMES else self._without_lock()
            except NotMarked as expired:
                self._clock.tell(expired.deadline_ms)
                write.told_until = expired.deadline_ms
                continue
            if not holds:
                failures += 1
            elif not write.settled:
                if time.monotonic() + pause > write.deadline:
                    raise Overloaded(STALLED)
                self._writer.sleep(pause)
                pause = min(2 * pause, LONGEST_STALL_PAUSE)

    def _without_lock(self) -> bool:
        """Whether the decision holds; then it is settled, unless writes are stalled."""
        write = self._write
        refused = self._decided()
        if write.changes:
            self._writer.admit(write.stores)
            self._store_files()
        with self._commits.lock:
            holds = self._memory.holds(write.looked) and self._clock.now_ms() < write.until
            self._memory.renew()
            if holds:
                self._carry_out(refused)
        return holds

    def _in_turn(self) -> bool:
        """True, once the decision was made with nobody else writing; then it is settled, unless writes are stalled."""
        write = self._write
        with self._commits.lock:
            self._memory.renew()
            refused = self._decided()
            if write.changes:
                self._writer.admit(write.stores)
                # A value that has no file yet is stored in its record: a file takes long.
                write.large = self._files()
            self._carry_out(refused)
        return True

    def _decided(self) -> KvError | None:
        """Have the command decide; gives why it cannot be done, if so."""
        try:
            self._write.decide(self._memory.read, self._clock.now_ms())
        except KvError as error:
            return without_frames(error)
        return None

    def _carry_out(self, refused: KvError | None) -> None:
        write = self._write
        if refused is not None or not write.changes:
            write.settle(refused)
            return
        self._commits.commit([write])
        self._memory.guard()  # which the commit point did not spare

    def _store_files(self) -> None:
        write, threshold = self._write, self._writer.spill_threshold
        for key, value, _ in write.changes:
            if value is None or len(value) < threshold or key in write.keeps:
                continue
            stored = write.files.get(key)
            if stored is None or stored[0] is not value:
                if time.monotonic() > write.deadline:
                    raise Overloaded("the request's time ran out while its large values were being written")
                self._writer.before_files()
                if stored is not None:
                    self._writer.files.retire([stored[1]])
                write.files[key] = value, self._writer.store_file(value)
        write.large = self._files()

    def _files(self) -> dict[bytes, Pointer]:
        """The files that there are for what is changed."""
        files = self._write.files
        return {key: files[key][1] for key, value, _ in self._write.changes if key in files and files[key][0] is value}


class Memory:
    """What was read of guarded keys, as long as it holds. One thread."""

    def __init__(self, lookups: Lookups, guard: set[bytes]) -> None:
        self._lookups = lookups
        self._guard = guard
        self._keys = frozenset(guard)
        self._stored: dict[bytes, Stored] = {}
        self._size = 0

    def read(self, key: bytes) -> Stored:
        """What is stored at a key. Blocks; raises StorageError, and TooLarge."""
        found = self._stored.get(key)
        if found is None:
            found = self._stored[key] = self._lookups.read(key)
            self._size += len(found[0] or b"")
            if self._size > READ_BYTES:
                raise TooLarge(f"the values at the request's keys have more than {READ_BYTES} bytes in all")
        return found

    def holds(self, keys: Iterable[bytes]) -> bool:
        """Whether none of these was written since it was read."""
        return self._guard.issuperset(keys)

    def renew(self) -> None:
        """Forget what was written since, and guard it anew. Under the commit point's lock."""
        for key in self._keys - self._guard:
            value, _ = self._stored.pop(key, NOTHING)
            self._size -= len(value or b"")
        self.guard()

    def guard(self) -> None:
        """Guard all keys anew: what was read of them holds. Under the commit point's lock."""
        self._guard |= self._keys
