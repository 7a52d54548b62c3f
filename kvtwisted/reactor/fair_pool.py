"""Turns of a pool of threads: work goes round by whose it is.

A pool takes its work in the order in which it came, so that one client with a thousand calls makes all others wait
for a thousand. Here each owner has a queue, and a thread that is free takes one job of the next owner: a job waits for
one of each other owner at most, however many these have.

Note [A thread takes its job late]: the pool's own queue holds no jobs, only as many calls of "take the next one" as
there are jobs. So no thread idles until the reactor hands it something, and whose turn it is, is decided at the last
moment.

Note [Long jobs]: a scan keeps a thread for as long as it reads, and Python's lock for most of that. So of one owner
only a part of the threads may be at long jobs; more of them wait beside the queue, and keep nobody waiting.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Callable, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.threadpool import ThreadPool

from .pool import caught

T = TypeVar("T")

#: The part of the threads that long jobs of one owner have at once.
LONG_PART = 4


class _Owner:
    """An owner with jobs that wait or run."""

    __slots__ = ("held", "jobs", "long")

    def __init__(self) -> None:
        self.jobs: deque[_Job] = deque()
        #: Long jobs among those and at work, and the ones that wait until there are fewer.
        self.long = 0
        self.held: deque[_Job] = deque()


class _Job(NamedTuple):
    owner: object
    call: Callable[[], Any]
    is_long: bool
    done: Deferred[Any]


class FairPool:
    """Reactor thread, unless said."""

    def __init__(self, reactor: IReactorFromThreads, pool: ThreadPool) -> None:
        self._reactor = reactor
        self._pool = pool
        self._most_long = max(1, getattr(pool, "max", 1) // LONG_PART)
        self._lock = threading.Lock()
        self._owners: dict[object, _Owner] = {}
        # Owners who have jobs, each once, the one whose turn is next first.
        self._round: deque[_Owner] = deque()
        #: Jobs that no thread has taken up yet.
        self.waiting = 0

    def run(self, owner: object, call: Callable[[], T], *, is_long: bool = False) -> Deferred[T]:
        """Run `call` in a thread when it is `owner`'s turn. Failures are as those of `defer_to_pool`.

        Cancelling the Deferred ends the wait for the result, not the job. See Note [Long jobs].
        """
        job = _Job(owner, call, is_long, Deferred())
        with self._lock:
            self.waiting += 1
            own = self._owners.get(owner)
            if own is None:
                own = self._owners[owner] = _Owner()
            if is_long and own.long >= self._most_long:
                own.held.append(job)
                return job.done
            self._queue(own, job)
        self._ask_for_a_thread()
        return job.done

    def _queue(self, own: _Owner, job: _Job) -> None:
        """Under the lock. A thread is to be asked for after it."""
        own.long += job.is_long
        own.jobs.append(job)
        if len(own.jobs) == 1:
            self._round.append(own)

    def _ask_for_a_thread(self) -> None:
        self._pool.callInThreadWithCallback(None, self._take_turn)

    def _take_turn(self) -> None:
        """In a thread of the pool: run the job whose turn it is. Never raises what the job does."""
        with self._lock:
            own = self._round.popleft()
            job = own.jobs.popleft()
            if own.jobs:
                self._round.append(own)
            elif not own.long:
                del self._owners[job.owner]
            self.waiting -= 1
        try:
            outcome = job.call()
        except BaseException:
            outcome = caught()
        self._reactor.callFromThread(self._ended, job, outcome)

    def _ended(self, job: _Job, outcome: Any) -> None:
        if job.is_long:
            self._let_in(job.owner)
        # A Deferred that is given a failure as its result has failed.
        job.done.callback(outcome)

    def _let_in(self, owner: object) -> None:
        """One of its long jobs has ended: the next one may begin."""
        with self._lock:
            own = self._owners[owner]
            own.long -= 1
            if not own.held:
                if not (own.long or own.jobs):
                    del self._owners[owner]
                return
            self._queue(own, own.held.popleft())
        self._ask_for_a_thread()
