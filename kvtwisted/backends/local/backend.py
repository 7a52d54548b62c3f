"""The local backend: what cannot block runs on the reactor thread, writes in groups, the rest in a pool of threads.

Note [Inline or pool]: a hop to a thread and back takes longer than twenty Gets from memory. So the reactor thread reads
what memory has, and writes what need not wait. Scans, MGets and Gets that need the disk go to the pool, where turns go
round by principal; Gets that one sends in the same turn of the reactor share a job.

Note [Backpressure for large results]: threads make large results faster than the reactor sends them. So only a few
results may wait for the reactor: a thread that has made one more waits until there is room. Hundreds of scans then take
no more memory than those few, and the reactor gets to its other work in between.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Any, Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ...commands.command import Command, WriteCommand
from ...commands.get import Get
from ...commands.scan import Scan
from ...core.errors import DeadlineExceeded, KvError
from ...reactor.fair_pool import FairPool
from ...reactor.pool import caught
from ..backend import Hot, Settled, Sizes
from .group_commit import GroupCommit
from .recovery import Recovery
from .store import Store

#: Gets that share a job of the pool.
GETS_IN_A_JOB = 16
#: Large results that may wait for the reactor.
UNTAKEN_RESULTS = 4


class LocalBackend:
    """A `Backend` over a store in this process. Reactor thread, but `health`."""

    capabilities: frozenset[str] = frozenset()

    def __init__(self, reactor: Any, pool: FairPool, store: Store, recovery: Recovery) -> None:
        """What blocks runs in `pool`. `recovery` is told of writes that the storage failed."""
        self._reactor = reactor
        self._pool = pool
        self._store = store
        self.hot: Callable[[bytes], Hot | None] = store.hot
        self.get_now = store.get_now
        self.size_now = store.size_now
        self.measure = store.measure
        self._settled: Settled = _nobody
        self._group = GroupCommit(store, recovery, self._pool.run)
        self._untaken = threading.Semaphore(UNTAKEN_RESULTS)
        self._stopped = False

    def start(self, settled: Settled) -> None:
        """See `Backend.start`."""
        self._settled = self._group.settled = settled

    def stop(self) -> None:
        """See `Backend.stop`. The reactor may be about to wait for the threads."""
        self._stopped = True
        # For one of them, which does the same for the next: releasing for many at once takes time for each.
        self._untaken.release()

    @property
    def waiting(self) -> int:
        """Jobs that wait for a thread, and writes that wait for their group."""
        return self._pool.waiting + self._group.waiting

    def submit(self, commands: Sequence[Command]) -> None:
        """See `Backend.submit`."""
        gets: dict[object, list[Command]] = {}
        for command in commands:
            if isinstance(command, WriteCommand):
                self._group.add(command)
            elif type(command) is Get:
                gets.setdefault(command.admission, []).append(command)
            else:
                self._run([command], large=True)
        self._group.commit()
        for of_one in gets.values():
            for first in range(0, len(of_one), GETS_IN_A_JOB):
                self._run(of_one[first : first + GETS_IN_A_JOB])

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
        done.addErrback(_broke, commands).addCallback(lambda _: self._settled(commands))

    # In a pool thread.

    def _make(self, job: Callable[[], object]) -> None:
        job()
        self._untaken.acquire()
        if self._stopped:
            self._untaken.release()
            return
        # Just before the result, and also if nobody waits for that any more.
        self._reactor.callFromThread(self._untaken.release)

    def _carry_out(self, commands: Sequence[Command]) -> None:
        for command in commands:
            if command.awaited is not None and not command.awaited():
                continue
            try:
                if monotonic() > command.deadline:
                    raise DeadlineExceeded("the request's time ran out before it was started")
                command.complete(self._store.read(command))
            except Exception:
                command.error = caught().value


def _broke(failure: Failure, commands: Sequence[Command]) -> None:
    """The job itself broke: nobody knows what was done."""
    for command in commands:
        command.error = failure.value


def _nobody(commands: Sequence[Command]) -> None:
    raise AssertionError("a backend was given commands before it was started")
