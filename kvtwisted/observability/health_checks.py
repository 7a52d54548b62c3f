"""The health check as both interfaces ask for it: on a thread of its own, one at a time, shared by all who ask.

Note [Health checks are shared]: a client wants to know the state at the time of its question. A check that is already
running may have read the storage before that. So every answer comes from a check that began after the question: clients
that ask while a check runs share the next one. However many ask, one thread reads the storage, once at a time, and
nobody waits for longer than the rest of one check and the next. The thread does nothing else, so that checks do not
wait for requests, nor requests for checks: a busy server stays healthy. When a check does not end, no other begins, and
each client is told so when its own time is up.
"""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Callable, Optional

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ..reactor.pool import defer_to_pool
from . import incidents

#: Threads of the pool.
THREADS = 1
#: Seconds that the storage gets to answer; less for those who have less time themselves.
HEALTH_TIMEOUT = 5.0
#: Seconds between two looks at whose time is up.
LOOK_SECONDS = 0.25
#: Seconds past its deadline for which a thread still waits for the reactor's word.
_LAST_RESORT = 1.0


class Fault(str):
    """Why the server cannot serve if the check itself failed by a defect: it names the incident."""

    __slots__ = ()


#: Told why the server cannot serve, or None, on the reactor thread. Must not raise.
Told = Callable[[Optional[str]], None]

_STOPPING = "the server is stopping"

_log = Logger(namespace="kvtwisted")


class Question:
    """One who waits. Many may, so it is small."""

    __slots__ = ("deadline", "seconds", "told")

    def __init__(self, told: Told, seconds: float, deadline: float) -> None:
        self.told = told
        self.seconds = seconds
        #: In the reactor's time.
        self.deadline = deadline


class HealthChecks:
    """Note [Health checks are shared]. Reactor thread unless said. Construction starts nothing.

    Each waits for HEALTH_TIMEOUT at most. How many may wait is bounded where they come in: over HTTP one for each
    connection, over gRPC by what a question takes, out of the answers' budget.
    """

    def __init__(
        self,
        reactor: Any,
        pool: ThreadPool,
        check: Callable[[], str | None],
        warnings: Callable[[], list[str]] = list,
    ) -> None:
        """`check` blocks and runs in `pool`, which is used for nothing else; it returns why the server cannot serve.

        `warnings` gives what is wrong although the server can serve; it must not block.
        """
        self.warnings = warnings
        self._reactor = reactor
        self._pool = pool
        self._check = check
        # Those that wait for the running check, and for the next one; dicts keep the order and forget quickly.
        self._waiting: dict[Question, None] = {}
        self._asking: dict[Question, None] = {}
        self._running = False
        self._stopped = False
        self._looking: Any = None
        self._all_told: Callable[[], None] = lambda: None

    @property
    def waiting(self) -> int:
        """Questions without an answer."""
        return len(self._waiting) + len(self._asking)

    def on_told(self, all_told: Callable[[], None]) -> None:
        """Call `all_told`, which must not raise, whenever some of those that wait have been told."""
        self._all_told = all_told

    def ask(self, told: Told, seconds: float = HEALTH_TIMEOUT) -> Question:
        """Tell `told` of a check that begins from now on, or after `seconds` (at most HEALTH_TIMEOUT) that none ended.

        Never within this call; what is returned is for `forget`.
        """
        seconds = _bounded(seconds)
        question = Question(told, seconds, self._reactor.seconds() + seconds)
        self._asking[question] = None
        if self._stopped:
            self._reactor.callLater(0, self._give_up)
        elif not self._running:
            self._begin()
        self._look_after()
        return question

    def forget(self, question: Question) -> None:
        """Nobody waits for it any more; it is not told."""
        self._asking.pop(question, None)
        self._waiting.pop(question, None)
        self._look_after()

    def result(self) -> Deferred[str | None]:
        """The same as a Deferred, which may be cancelled; it never fails otherwise."""
        answered: Deferred[str | None] = Deferred(lambda _: self.forget(question))
        # Who is told before this one may be what cancels it.
        question = self.ask(lambda reason: None if answered.called else answered.callback(reason))
        return answered

    def wait(self, seconds: float | None = None) -> str | None:
        """The same for a thread that may block. Not on the reactor thread."""
        seconds = HEALTH_TIMEOUT if seconds is None else _bounded(seconds)
        answer: SimpleQueue[str | None] = SimpleQueue()
        self._reactor.callFromThread(self.ask, answer.put, seconds)
        give_up_at = time.monotonic() + seconds + _LAST_RESORT
        while (left := give_up_at - time.monotonic()) > 0:
            # Pythons before 3.11 wait by the wall clock, which may be set forward.
            with suppress(Empty):
                return answer.get(timeout=left)
        return _silence(seconds)

    def stop(self) -> None:
        """Tell all who wait, and all who ask later, that the server stops. A check that runs is the pool's to await."""
        self._stopped = True
        self._give_up()

    def _begin(self) -> None:
        """Check for all who have asked."""
        self._waiting, self._asking = self._asking, {}
        self._running = True
        checked = defer_to_pool(self._reactor, self._pool, self._check)
        checked.addErrback(_broken).addCallback(self._ended)

    def _ended(self, reason: str | None) -> None:
        answered, self._waiting = self._waiting, {}
        self._running = False
        if self._asking:
            self._begin()
        self._look_after()
        self._tell([(question, reason) for question in answered])

    def _look_after(self) -> None:
        """Have a timer while anybody waits, and none otherwise."""
        if self._looking is None and self.waiting:
            self._looking = self._reactor.callLater(LOOK_SECONDS, self._look)
        elif self._looking is not None and not self.waiting:
            self._looking.cancel()
            self._looking = None

    def _look(self) -> None:
        """Tell those whose time is up."""
        self._looking = None
        now = self._reactor.seconds()
        late = [question for questions in (self._waiting, self._asking) for question in questions]
        late = [question for question in late if question.deadline <= now]
        for question in late:
            self.forget(question)
        self._look_after()
        self._tell([(question, _silence(question.seconds)) for question in late])

    def _give_up(self) -> None:
        left = [*self._waiting, *self._asking]
        self._waiting, self._asking = {}, {}
        self._look_after()
        self._tell([(question, _STOPPING) for question in left])

    def _tell(self, answers: list[tuple[Question, str | None]]) -> None:
        for question, reason in answers:
            try:
                question.told(reason)
            except Exception:
                # The others must get their answers, and the next check must begin, all the same.
                _log.failure("the answer of a health check could not be given")
        if answers:
            self._all_told()


def _bounded(seconds: float) -> float:
    return max(0.0, min(seconds, HEALTH_TIMEOUT))


def _silence(seconds: float) -> str:
    return f"the storage does not answer: nothing for {seconds:g} s"


def _broken(failure: Failure) -> Fault:
    """Logged once, however many asked."""
    return Fault(f"the health check failed; incident {incidents.report(failure, 'health')}")
