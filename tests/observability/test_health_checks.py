"""Health checks that are shared: on a pool that the test drives by hand, and on a real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.threadpool import ThreadPool

from kvtwisted.observability.health_checks import HEALTH_TIMEOUT, LOOK_SECONDS, THREADS, Fault, HealthChecks

from ..rpc.support import logged
from ..support.reactors import background_reactor, on
from ..support.transports import ManualReactor


class Scene:
    """Checks of a storage that is as well as the test says."""

    def __init__(self) -> None:
        self.reactor = ManualReactor()
        self.pool = self.reactor.pool
        self.reason: str | None = None
        self.read = 0
        pool: Any = self.pool
        self.checks = HealthChecks(self.reactor, pool, self._check)
        #: What was told, in order: who, and the reason.
        self.told: list[tuple[str, str | None]] = []

    def _check(self) -> str | None:
        self.read += 1
        if self.reason == "defect":
            raise ZeroDivisionError("secret")
        return self.reason

    def ask(self, who: str, **seconds: float) -> Any:
        """Ask, and have it written down."""
        return self.checks.ask(lambda reason: self.told.append((who, reason)), **seconds)

    def pass_time(self, seconds: float) -> None:
        """Let time pass by the look."""
        self.reactor.pump([LOOK_SECONDS] * int(seconds / LOOK_SECONDS))

    def idle(self) -> bool:
        """Whether nothing is left: no question, no job, no timer."""
        return not (self.checks.waiting or self.pool.waiting or self.reactor.getDelayedCalls())


@pytest.fixture
def scene() -> Iterator[Scene]:
    """One that must be idle in the end."""
    scene = Scene()
    yield scene
    scene.reactor.settle()
    assert scene.idle()


def outcome(deferred: Deferred[Any]) -> list[Any]:
    """What it has fired with, if it has."""
    fired: list[Any] = []
    deferred.addBoth(fired.append)
    return fired


def test_construction_starts_nothing(scene: Scene) -> None:
    """Neither a job nor a timer: twistd forks after it."""
    assert scene.idle()


def test_one_question(scene: Scene) -> None:
    """It is asked of the pool, and told in the reactor's turn; each later one is asked anew."""
    for reason in (None, "the disk is full", None):
        scene.reason = reason
        scene.ask("a")
        assert (scene.pool.waiting, scene.told) == (1, [])
        scene.reactor.settle()
        assert scene.told.pop() == ("a", reason)
        assert scene.idle()
    assert scene.read == 3


def test_who_asks_during_a_check_is_told_of_the_next(scene: Scene) -> None:
    """The one that runs may have read before what is asked about: all who come meanwhile share the one after it."""
    scene.ask("first")
    scene.pool.run_one()  # it has read; its answer is on its way to the reactor
    scene.reason = "the disk broke"
    scene.ask("second")
    scene.ask("third")
    assert scene.pool.waiting == 0
    scene.reactor.turn()
    assert scene.told == [("first", None)]
    scene.reactor.settle()
    assert scene.told[1:] == [("second", "the disk broke"), ("third", "the disk broke")]
    assert scene.read == 2


def test_a_flood_is_one_job_at_a_time(scene: Scene) -> None:
    """However many ask, of each check one thread at most is busy, and none is forgotten."""
    for number in range(1000):
        scene.ask(str(number))
        assert scene.pool.waiting <= 1
    scene.reactor.settle()
    assert scene.read == 2
    assert scene.told == [(str(number), None) for number in range(1000)]


def test_who_asks_when_told(scene: Scene) -> None:
    """A question within an answer is a new one."""
    again: list[str | None] = []
    scene.checks.ask(lambda reason: scene.checks.ask(again.append) and None)
    scene.reactor.settle()
    assert (again, scene.read) == ([None], 2)


def test_a_storage_that_does_not_answer(scene: Scene) -> None:
    """Each is told so when its own time is up, also those who came later; no second job gathers behind the first."""
    scene.ask("first")
    scene.ask("hasty", seconds=1.0)
    scene.ask("patient", seconds=60.0)
    scene.pass_time(1.0)
    assert scene.told == [("hasty", "the storage does not answer: nothing for 1 s")]
    scene.pass_time(HEALTH_TIMEOUT - 1.0 - LOOK_SECONDS)
    scene.ask("late")
    assert len(scene.told) == 1
    scene.pass_time(LOOK_SECONDS)
    silence = "the storage does not answer: nothing for 5 s"
    assert scene.told[1:] == [("first", silence), ("patient", silence)]
    scene.pass_time(HEALTH_TIMEOUT - LOOK_SECONDS)
    assert scene.told[3:] == [("late", silence)]
    assert (scene.checks.waiting, scene.pool.waiting, scene.reactor.getDelayedCalls()) == (0, 1, [])
    # It recovers: what nobody waits for any more is told to nobody, and the next question is answered.
    scene.ask("after")
    scene.reactor.settle()
    assert scene.told[4:] == [("after", None)]
    assert scene.read == 2


def test_no_time_at_all(scene: Scene) -> None:
    """Who has no time left is answered, and soon."""
    scene.ask("overdue", seconds=-3.0)
    scene.pass_time(LOOK_SECONDS)
    assert scene.told == [("overdue", "the storage does not answer: nothing for 0 s")]


def test_forgotten_questions(scene: Scene) -> None:
    """Who goes away is told nothing; a check for nobody is not begun."""
    running, next_one = scene.ask("running"), scene.ask("next")
    scene.checks.forget(running)
    scene.checks.forget(next_one)
    scene.checks.forget(next_one)
    scene.reactor.settle()
    assert (scene.told, scene.read) == ([], 1)
    scene.checks.forget(running)


def test_deferred(scene: Scene) -> None:
    """The same as a Deferred."""
    answered, ill = outcome(scene.checks.result()), outcome(scene.checks.result())
    assert (answered, ill) == ([], [])
    scene.pool.run_one()
    scene.reason = "ill"
    scene.reactor.settle()
    assert (answered, ill) == ([None], ["ill"])


def test_cancelled_deferred(scene: Scene) -> None:
    """It fails by itself and does no harm to those who wait with it, even when cancelled by one that is told before."""
    cancelled, answered = scene.checks.result(), scene.checks.result()
    also_cancelled = scene.checks.result()
    answered.addCallback(lambda reason: also_cancelled.cancel())
    cancelled.cancel()
    failures = [outcome(one) for one in (cancelled, also_cancelled)]
    with logged() as events:
        scene.reactor.settle()
    assert [failure.type for (failure,) in failures] == [CancelledError, CancelledError]
    assert events == []
    assert scene.read == 2


def test_a_check_that_breaks(scene: Scene) -> None:
    """A defect is one incident, however many have asked, and known as such; the next check is made all the same."""
    scene.reason = "defect"
    with logged() as events:
        scene.ask("a")
        scene.reactor.settle()
    ((_, reason),) = scene.told
    assert isinstance(reason, Fault)
    assert reason.startswith("the health check failed; incident ")
    assert "secret" not in reason
    assert [event["log_failure"].type for event in events] == [ZeroDivisionError]
    scene.reason = None
    scene.ask("b")
    scene.reactor.settle()
    assert scene.told[1:] == [("b", None)]


def test_an_answer_that_cannot_be_given(scene: Scene) -> None:
    """It is logged; the others get theirs."""

    def broken(reason: str | None) -> None:
        raise ZeroDivisionError

    scene.checks.ask(broken)
    scene.checks.ask(broken)
    scene.ask("good")
    with logged() as events:
        scene.reactor.settle()
    assert scene.told == [("good", None)]
    assert [event["log_failure"].type for event in events] == [ZeroDivisionError] * 2


def test_all_told(scene: Scene) -> None:
    """Who sends answers hears once for all of them: of a check, of those whose time was up, and at the end."""
    heard: list[int] = []
    scene.checks.on_told(lambda: heard.append(len(scene.told)))
    scene.ask("a")
    scene.ask("b")
    scene.ask("c")
    scene.reactor.settle()
    assert heard == [1, 3]
    scene.ask("d")
    scene.pass_time(HEALTH_TIMEOUT)
    assert heard == [1, 3, 4]
    scene.ask("e")
    scene.checks.stop()
    assert heard == [1, 3, 4, 5]


def test_stop(scene: Scene) -> None:
    """All who wait are told, and all who ask later; the check that runs ends without harm, and no other begins."""
    scene.ask("running")
    scene.ask("next")
    scene.checks.stop()
    stopping = "the server is stopping"
    assert scene.told == [("running", stopping), ("next", stopping)]
    scene.reactor.settle()
    scene.ask("late")
    assert len(scene.told) == 2
    scene.reactor.settle()
    assert scene.told[2:] == [("late", stopping)]
    assert scene.read == 1


class Real:
    """The checks on a reactor and a pool that run."""

    def __init__(self) -> None:
        self.reactor = background_reactor()
        self.pool = ThreadPool(0, THREADS, "kvtwisted-health")
        self.pool.start()
        self.reached, self.opened = threading.Semaphore(0), threading.Event()
        self.read = 0
        self.threads: set[str] = set()
        self.checks = HealthChecks(self.reactor, self.pool, self._check)

    def _check(self) -> str | None:
        self.threads.add(threading.current_thread().name)
        self.reached.release()
        assert self.opened.wait(60)
        self.read += 1
        return f"check {self.read}"


@pytest.fixture
def real() -> Iterator[Real]:
    """One whose checks wait until `opened` is set."""
    real = Real()
    yield real
    real.opened.set()
    on(real.reactor, real.checks.stop)
    real.pool.stop()


def test_waiting_threads_share_too(real: Real) -> None:
    """Any number of threads that wait, and the reactor's own questions, are two checks on one thread."""
    answers: list[str | None] = []

    def wait() -> None:
        answers.append(real.checks.wait())

    first = on(real.reactor, lambda: [real.checks.result()])[0]
    assert real.reached.acquire(timeout=60)
    threads = [threading.Thread(target=wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while on(real.reactor, lambda: real.checks.waiting) < 21:
        assert time.monotonic() < deadline
    real.opened.set()
    for thread in threads:
        thread.join(60)
    assert on(real.reactor, lambda: first) == "check 1"
    assert answers == ["check 2"] * 20
    (name,) = real.threads
    assert name.startswith("PoolThread-kvtwisted-health")


def test_a_waiting_thread_is_told_in_its_time(real: Real) -> None:
    """A thread that has little time left does not wait for a stuck storage for longer."""
    assert real.checks.wait(0.0) == "the storage does not answer: nothing for 0 s"
    assert real.reached.acquire(timeout=60)


def test_a_waiting_thread_does_not_hang_on_the_reactor(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the reactor gets on with nothing, the thread gives up by itself."""
    monkeypatch.setattr("kvtwisted.observability.health_checks._LAST_RESORT", 0.0)
    scene = Scene()
    assert scene.checks.wait(0.0) == "the storage does not answer: nothing for 0 s"
    assert scene.pool.waiting == 0  # the question has not even come there
