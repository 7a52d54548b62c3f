"""Where the reactor's storage work goes: into the bounded pool of threads, or into the next group of writes.

Whoever calls this has counted the request in (`Admission.enter`) before: Twisted's own backlog has no bound.

Note [Large results wait in their threads]: threads make large results quicker than the reactor encodes and sends them.
So there may be only so many that the reactor has not taken yet: the thread that has made one more waits until it has.
Then hundreds of scans take no more memory than those, and what else the reactor has to do comes in between.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import Any, Callable, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

from ..core.admission import Admission
from ..core.operations import Operations, Pending
from .group_commit import Done, GroupCommit
from .pool import defer_to_pool
from .slots import Slots

T = TypeVar("T")


#: Large results that may wait for the reactor.
UNTAKEN_RESULTS = 4
#: The part of the threads that scans of one principal, or of all where nobody shows who they are, have at once.
SCANNING_PART = 4


class Work:
    """The pool and the group commit, one of each for all transports. Reactor thread."""

    def __init__(self, reactor: Any, pool: ThreadPool, operations: Operations) -> None:
        self._defer: Callable[..., Deferred[Any]] = partial(defer_to_pool, reactor, pool)
        self._operations = operations
        # One mark for each job that no thread has taken up yet: appended here, popped there, both atomic.
        self._queued: deque[None] = deque()
        self._reactor = reactor
        self._untaken = threading.Semaphore(UNTAKEN_RESULTS)
        self._stopped = False
        self._slots = Slots(max(1, getattr(pool, "max", 1) // SCANNING_PART))
        self._group = GroupCommit(reactor, operations, self._defer)

    @property
    def queue_depth(self) -> int:
        """Jobs that wait for a thread, and writes that wait for their group."""
        return len(self._queued) + self._group.waiting + self._slots.waiting

    def run(self, job: Callable[[], T]) -> Deferred[T]:
        """Run `job` in the pool. It counts its requests out by itself (`Admission.leave`)."""
        self._queued.append(None)
        return self._defer(self._taken_up, job)

    def run_large(self, job: Callable[[], T]) -> Deferred[T]:
        """The same for a job whose result may be large; see Note [Large results wait in their threads]."""
        return self.run(self.large(job))

    def large(self, job: Callable[[], T]) -> Callable[[], T]:
        """`job` as one whose result may be large."""
        return partial(self._make, job)

    def scan(self, job: Callable[[], T], admission: Admission) -> Deferred[T]:
        """`run` a scan when whose `admission` it has entered has a slot: see `slots`.

        Where nobody shows who they are, all have one: what they do beside scans finds threads all the same.
        """
        return self._slots.run(admission, partial(self.run, job))

    def stop(self) -> None:
        """No thread waits for the reactor any more, which may be about to wait for the threads."""
        self._stopped = True
        # For one of them, which does the same for the next: releasing for many at once takes time for each.
        self._untaken.release()

    def submit(self, pending: Pending, done: Done, admission: Admission) -> None:
        """Let a write go in, with its turn's, or by itself when a file has to be written; then call `done`.

        `done` is called on the reactor thread and must not raise. The write, which has entered `admission` with
        its `size`, leaves it when it is settled.
        """
        if self._operations.needs_files(pending):
            waiting = self.run(partial(self._settle_alone, pending, admission))
            waiting.addCallbacks(lambda _: done(pending.error), lambda failure: done(failure.value))
            waiting.addCallback(lambda _: self._group.settled())
        else:
            self._group.add(pending, done, admission)

    def on_settled(self, told: Callable[[], None]) -> None:
        """Call `told` whenever writes have been settled and those who waited were told."""
        self._group.settled = told

    def _make(self, job: Callable[[], T]) -> T:
        """In a pool thread."""
        result = job()
        self._untaken.acquire()
        if self._stopped:
            self._untaken.release()
            return result
        # Just before the result, and also if nobody waits for that any more.
        self._reactor.callFromThread(self._untaken.release)
        return result

    def _taken_up(self, job: Callable[[], T]) -> T:
        self._queued.pop()
        return job()

    def _settle_alone(self, pending: Pending, admission: Admission) -> None:
        try:
            self._operations.settle([pending])
        finally:
            admission.leave(1, pending.size)
