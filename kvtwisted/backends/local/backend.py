"""The local backend: what cannot block runs on the reactor thread, writes in groups, the rest in a pool of threads.

Note [Inline or pool]: a hop to a thread and back takes longer than twenty Gets from memory. So the reactor thread reads
what memory has, MGets and small scans too (`inline_reads`), and writes what need not wait. Large scans and what needs
the disk go to the pool, where turns go round by principal; Gets that one sends in the same turn of the reactor share a
job.

Note [Backpressure for large results]: threads make large results faster than the reactor sends them. So only a few
results may wait for the reactor: a thread that has made one more waits until there is room. Hundreds of scans then take
no more memory than those few, and the reactor gets to its other work in between.

Group commit: one batch for all writes of a turn of the reactor, and one fsync for each batch.

A group is written on the reactor thread if that needs no waiting and does not take long. Otherwise a pool thread does
it, and what arrives meanwhile gathers for the next group, so that one group at a time waits for an fsync or a stall.

Source: RocksDB's own group commit, https://github.com/facebook/rocksdb/wiki/WAL-Performance, which merges only writers
that are threads.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ...commands.command import Command, WriteCommand
from ...commands.deciding import DecidingCommand
from ...commands.decisions import Decisions
from ...commands.delete_range import DeleteRange
from ...commands.get import Get
from ...commands.scan import RANGES, Scan
from ...commands.scan_stream import ScanStream
from ...commands.sets import Sets
from ...commands.watch import Watch
from ...core.errors import DeadlineExceeded, KvError, NearlyFull, StorageError
from ...reactor.fair_pool import FairPool
from ...reactor.pool import caught
from ..backend import Hot, Settled, Sizes
from .apart import Apart
from .deciding_write import DecidingWrite, GatheredWrite
from .inline_reads import InlineReads
from .recovery import Recovery
from .scan_streams import ScanStreams
from .store import Store
from .watches import Watches
from .write import Write

#: A larger group is not written on the reactor thread: this is some milliseconds' work.
INLINE_KEYS, INLINE_BYTES = 1024, 1_048_576

#: Runs a function in a pool thread, when it is its owner's turn.
Defer = Callable[[object, Callable[[], object]], "Deferred[object]"]
#: Commands that are one write.
Part = tuple[Sequence[WriteCommand], Write]
#: Gets that share a job of the pool.
GETS_IN_A_JOB = 16
#: Large results that may wait for the reactor.
UNTAKEN_RESULTS = 4
#: Seconds that the view of a ScanStream lives, unless told otherwise.
SNAPSHOT_SECONDS = 3600.0


class LocalBackend:
    """A `Backend` over a store in this process. Reactor thread, but `health`."""

    capabilities = frozenset(
        {DecidingCommand.capability, DeleteRange.capability, RANGES, ScanStream.capability, Watch.capability}
    )

    def __init__(
        self,
        reactor: Any,
        pool: FairPool,
        store: Store,
        recovery: Recovery,
        *,
        snapshot_seconds: Callable[[], float] = lambda: SNAPSHOT_SECONDS,
    ) -> None:
        """What blocks runs in `pool`. `recovery` is told of writes that the storage failed.

        The view of a ScanStream lives for `snapshot_seconds` at most.
        """
        self._reactor = reactor
        self._pool = pool
        self._store = store
        self._recovery = recovery
        self.hot: Callable[[bytes], Hot | None] = store.hot
        self.get_now = store.get_now
        self.size_now = store.size_now
        self.measure = store.measure
        self._settled: Settled = _nobody
        self._group = GroupCommit(store, recovery, self._pool.run)
        self._inline = InlineReads(reactor, store, lambda command: self._run([command], large=True))
        self._streams = ScanStreams(reactor, pool, store.view, snapshot_seconds)
        self._watches = Watches(reactor, store.writer.commits.history)
        self._untaken = threading.Semaphore(UNTAKEN_RESULTS)
        self._stopped = False

    def start(self, settled: Settled) -> None:
        """See `Backend.start`."""
        self._settled = self._group.settled = self._inline.settled = self._streams.settled = settled
        self._watches.settled = settled

    def stop(self) -> None:
        """See `Backend.stop`. The reactor may be about to wait for the threads."""
        self._stopped = True
        self._inline.stop()
        self._streams.stop()
        self._watches.stop()
        # For one of them, which does the same for the next: releasing for many at once takes time for each.
        self._untaken.release()

    @property
    def events_told(self) -> int:
        """Events that watchers were told of."""
        return self._watches.told

    @property
    def waiting(self) -> int:
        """Jobs that wait for a thread, writes that wait for their group, and reads that wait for a turn."""
        return self._pool.waiting + self._group.waiting + self._inline.waiting

    def submit(self, commands: Sequence[Command]) -> None:
        """See `Backend.submit`."""
        gets: dict[object, list[Command]] = {}
        for command in commands:
            if isinstance(command, WriteCommand):
                self._group.add(command)
            elif type(command) is Get:
                gets.setdefault(command.admission, []).append(command)
            elif type(command) is DeleteRange:
                self._delete_range(command)
            elif type(command) is ScanStream:
                self._streams.begin(command)
            elif type(command) is Watch:
                self._watches.begin(command)
            elif keys := self._store.keys_now(command):
                self._inline.add(command, keys)
            else:
                self._run([command], large=True)
        self._group.commit()
        for of_one in gets.values():
            for first in range(0, len(of_one), GETS_IN_A_JOB):
                self._run(of_one[first : first + GETS_IN_A_JOB])
        if self._inline.waiting:
            self._inline.serve()

    def sizes(self, keys: Sequence[bytes], owner: object, told: Sizes) -> None:
        """See `CanMeasure.sizes`."""
        looking: Deferred[Any] = self._pool.run(owner, partial(self._store.sizes, keys))
        looking.addCallbacks(told, lambda failure: told(failure.value))

    def health(self) -> str | None:
        """See `Backend.health`: a real read of the storage."""
        try:
            self._store.metadata.check()
        except KvError as error:
            return str(error)
        return None

    def _run(self, commands: Sequence[Command], *, large: bool = False) -> None:
        """Read for commands of one principal; `large`: what may take long, and have a large result."""
        job = partial(self._carry_out, commands)
        # Where nobody shows who they are, all have one admission: what they do beside scans finds threads.
        done = self._pool.run(
            commands[0].admission, partial(self._make, job) if large else job, is_long=type(commands[0]) is Scan
        )
        done.addErrback(_broke, commands).addCallback(self._settled)

    def _delete_range(self, command: DeleteRange) -> None:
        """What came before it goes in first, if it can."""
        self._group.commit()
        done = self._pool.run(command.admission, partial(self._remove, command), is_long=True)
        done.addErrback(_broke, [command]).addCallback(self._settled)

    # In a pool thread.

    def _remove(self, command: DeleteRange) -> Sequence[Command]:
        try:
            if monotonic() > command.deadline:
                raise DeadlineExceeded("the request's time ran out before it was started")
            command.complete(self._store.delete_range(command, self._recovery.write_failed))
        except Exception:
            command.error = caught().value
        return [command]

    def _make(self, job: Callable[[], Sequence[Command]]) -> Sequence[Command]:
        commands = job()
        self._untaken.acquire()
        if self._stopped:
            self._untaken.release()
        else:
            # Just before the result, and also if nobody waits for that any more.
            self._reactor.callFromThread(self._untaken.release)
        return commands

    def _carry_out(self, commands: Sequence[Command]) -> Sequence[Command]:
        for command in commands:
            if command.awaited is not None and not command.awaited():
                continue
            try:
                if monotonic() > command.deadline:
                    raise DeadlineExceeded("the request's time ran out before it was started")
                command.complete(self._store.read(command))
            except Exception:
                command.error = caught().value
        return commands


class GroupCommit:
    """Gathers writes, and has the writer settle them. Reactor thread. It holds no more than the door lets in.

    Note [Plain commands become one write]: most commands only store values that never expire. Those of a group that
    come in a row are made ready as if they were one command, and settled as one, which halves what they cost; so are
    those that decide and came together (`commands.decisions`). When that cannot be settled here and now, or was refused
    and might not have been with less in it, each command becomes a write of its own.
    """

    def __init__(self, store: Store, recovery: Recovery, defer: Defer) -> None:
        self._prepare, self._prepare_together, self._writer = store.prepare, store.prepare_together, store.writer
        self._prepare_decisions = store.prepare_decisions
        self._recovery = recovery
        self._defer = defer
        self._commands: list[WriteCommand] = []
        # The writes of those of them that are not plain.
        self._writes: dict[WriteCommand, Write] = {}
        # What they hold.
        self._keys = self._bytes = 0
        self._busy = False
        #: Told of each group once it is settled.
        self.settled: Settled

    @property
    def waiting(self) -> int:
        """Writes that nobody has taken up yet."""
        return sum([command.commits for command in self._commands])

    def add(self, command: WriteCommand) -> None:
        """Write it with the next group; by itself when a file has to be written or replaced, which takes long."""
        writer = self._writer
        may_need_files = command.size >= writer.spill_threshold or writer.commits.file_index.pointers
        if may_need_files and writer.needs_files(command.changes(0)):
            if isinstance(command, DecidingCommand):
                self._decide_apart(command, self._prepare(command))
            elif isinstance(command, (Sets, Decisions)):
                for single in command.singles():
                    self.add(single)
            else:
                self._settle_in_pool(command.admission, [command], [self._prepare(command)])
            return
        if not command.is_plain:
            if isinstance(command, Decisions):
                self._writes[command] = self._prepare_decisions(command)
            else:
                self._writes[command] = self._prepare(command)
        self._commands.append(command)
        self._keys += command.count
        self._bytes += command.size

    def commit(self) -> None:
        """Write what has gathered, unless a group is under way, after which that comes next."""
        if self._busy or not self._commands:
            return
        commands, made = self._commands, self._writes
        quick = self._keys <= INLINE_KEYS and self._bytes <= INLINE_BYTES and not self._writer.durable
        self._commands, self._writes, self._keys, self._bytes = [], {}, 0, 0
        try:
            if quick and not made:
                together = self._prepare_together(commands)
                quick = self._writer.try_now([together])
                if quick and not isinstance(together.error, NearlyFull):
                    self.settled(self._failed(commands, together))
                    return
            elif quick:
                parts = self._parts(commands, made)
                quick = self._writer.try_now([write for _, write in parts])
                commands = self._tell_parts(parts)
                if not commands:
                    return
            commands = [single for command in commands for single in command.singles()]
            writes = [made.get(command) or self._prepare(command) for command in commands]
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

    def _parts(self, commands: Sequence[WriteCommand], made: Mapping[WriteCommand, Write]) -> list[Part]:
        """The group as writes, in order. See Note [Plain commands become one write]."""
        parts: list[Part] = []
        plain: list[WriteCommand] = []
        for command in commands:
            write = made.get(command)
            if write is None:
                plain.append(command)
                continue
            if plain:
                parts.append((plain, self._prepare_together(plain)))
                plain = []
            parts.append(([command], write))
        if plain:
            parts.append((plain, self._prepare_together(plain)))
        return parts

    def _tell_parts(self, parts: Sequence[Part]) -> list[WriteCommand]:
        """Tell of those that are settled; returns the others, and those that are to be tried one by one."""
        told: list[Command] = []
        left: list[WriteCommand] = []
        for commands, write in parts:
            if not (write.settled or write.is_apart):
                left += commands
            elif isinstance(write, GatheredWrite):
                if write.is_split:
                    left += commands
                    continue
                if write.error is None:
                    for single in write.complete():
                        self._decide_apart(single, self._prepare(single))
                told += self._failed(commands, write)
            elif write.decides or len(commands) == 1:
                told += self._completed(commands, [write])
            elif isinstance(write.error, NearlyFull):
                left += commands  # not all of them may be refused
            else:
                told += self._failed(commands, write)
        if told:
            self.settled(told)
        return left

    def _failed(self, commands: Sequence[WriteCommand], write: Write) -> Sequence[Command]:
        """Give commands that were one write its error, if it has one."""
        error = write.error
        if error is not None:
            for command in commands:
                command.error = error
            if isinstance(error, StorageError):
                self._recovery.write_failed(error)
        return commands

    def _settle_in_pool(self, owner: object, commands: Sequence[Command], writes: Sequence[Write]) -> Deferred[None]:
        waiting = self._defer(owner, partial(self._settle, writes))
        return waiting.addCallbacks(lambda _: self._tell(commands, writes), self._fail, errbackArgs=(commands,))

    def _go_on(self, _: object) -> None:
        self._busy = False
        self.commit()

    def _settle(self, writes: Sequence[Write]) -> None:
        """In a pool thread."""
        self._writer.write_all(writes)

    def _settle_apart(self, write: Write) -> None:
        """In a pool thread."""
        assert isinstance(write, DecidingWrite)  # noqa: S101 - the others go in as they are
        Apart(self._writer, write).settle()

    def _tell(self, commands: Sequence[Command], writes: Sequence[Write]) -> None:
        if told := self._completed(commands, writes):
            self.settled(told)

    def _completed(self, commands: Sequence[Command], writes: Sequence[Write]) -> list[Command]:
        """Give each command what became of its write; those that have to be decided apart are not among them."""
        completed: list[Command] = []
        for command, write in zip(commands, writes):
            error = write.error
            if error is not None:
                command.error = error
                if isinstance(error, StorageError) and not isinstance(error, NearlyFull) and not write.was_unread:
                    self._recovery.write_failed(error)
            elif isinstance(write, DecidingWrite):
                if not write.settled:
                    self._decide_apart(command, write)
                    continue
                try:
                    write.complete()
                except Exception:
                    command.error = caught().value
            completed.append(command)
        return completed

    def _decide_apart(self, command: Command, write: Write) -> None:
        """What has to read or digest first has turns of its own, beside those of the group."""
        waiting = self._defer(command.admission, partial(self._settle_apart, write))
        waiting.addCallbacks(lambda _: self._tell([command], [write]), self._fail, errbackArgs=([command],))

    def _fail(self, failure: Failure, commands: Sequence[Command]) -> None:
        """The writing itself broke: nobody knows what was done."""
        self.settled(_broke(failure, commands))


def _broke(failure: Failure, commands: Sequence[Command]) -> Sequence[Command]:
    """The job itself broke: nobody knows what was done."""
    for command in commands:
        command.error = failure.value
    return commands


def _nobody(commands: Sequence[Command]) -> None:
    raise AssertionError("a backend was given commands before it was started")
