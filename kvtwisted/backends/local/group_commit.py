"""Group commit: one batch for all writes of a turn of the reactor, and one fsync for each batch.

A group is written on the reactor thread if that needs no waiting and does not take long. Otherwise a pool thread does
it, and what arrives meanwhile gathers for the next group, so that one group at a time waits for an fsync or a stall.

Source: RocksDB's own group commit, https://github.com/facebook/rocksdb/wiki/WAL-Performance, which merges only writers
that are threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ...commands.command import Command, WriteCommand
from ...core.errors import NearlyFull, StorageError
from ...reactor.pool import caught
from ..backend import Settled
from .recovery import Recovery
from .store import Store
from .write import Write

#: A larger group is not written on the reactor thread: this is some milliseconds' work.
INLINE_KEYS, INLINE_BYTES = 1024, 1_048_576

#: Runs a function in a pool thread, when it is its owner's turn.
Defer = Callable[[object, Callable[[], object]], "Deferred[object]"]


class GroupCommit:
    """Gathers writes, and has the writer settle them. Reactor thread. It holds no more than the door lets in."""

    def __init__(self, store: Store, recovery: Recovery, defer: Defer) -> None:
        self._prepare, self._writer = store.prepare, store.writer
        self._recovery = recovery
        self._defer = defer
        self._commands: list[Command] = []
        self._writes: list[Write] = []
        # What they hold.
        self._keys = self._bytes = 0
        self._busy = False
        #: Told of each group once it is settled.
        self.settled: Settled

    @property
    def waiting(self) -> int:
        """Writes that nobody has taken up yet."""
        return len(self._writes)

    def add(self, command: WriteCommand) -> None:
        """Write it with the next group; by itself when a file has to be written or replaced, which takes long."""
        write = self._prepare(command)
        if self._writer.needs_files(write):
            self._settle_in_pool(command.admission, [command], [write])
        else:
            self._commands.append(command)
            self._writes.append(write)
            self._keys += len(write.changes)
            self._bytes += write.size

    def commit(self) -> None:
        """Write what has gathered, unless a group is under way, after which that comes next."""
        if self._busy or not self._writes:
            return
        commands, writes = self._commands, self._writes
        quick = self._keys <= INLINE_KEYS and self._bytes <= INLINE_BYTES
        self._commands, self._writes, self._keys, self._bytes = [], [], 0, 0
        try:
            settled = quick and self._writer.try_now(writes)
        except Exception:
            self._fail(caught(), commands)
            return
        if settled:
            self._tell(commands, writes)
        else:
            self._busy = True
            # The group has turns of its own: it is everybody's.
            self._settle_in_pool(self, commands, writes).addBoth(self._go_on)

    def _settle_in_pool(self, owner: object, commands: Sequence[Command], writes: Sequence[Write]) -> Deferred[None]:
        waiting = self._defer(owner, lambda: self._writer.write_all(writes))
        return waiting.addCallbacks(lambda _: self._tell(commands, writes), self._fail, errbackArgs=(commands,))

    def _go_on(self, _: object) -> None:
        self._busy = False
        self.commit()

    def _tell(self, commands: Sequence[Command], writes: Sequence[Write]) -> None:
        for command, write in zip(commands, writes):
            error = write.error
            if error is not None:
                command.error = error
                if isinstance(error, StorageError) and not isinstance(error, NearlyFull):
                    self._recovery.write_failed(error)
        self.settled(commands)

    def _fail(self, failure: Failure, commands: Sequence[Command]) -> None:
        """The writing itself broke: nobody knows what was done."""
        for command in commands:
            command.error = failure.value
        self.settled(commands)
