"""The loop of every periodic task, on a clock that a test moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from kvtwisted.background.ticker import Ticker
from kvtwisted.core.errors import Unavailable


class Scene:
    """A ticker whose work is counted, and goes as `work` says."""

    def __init__(self, **options: bool) -> None:
        self.clock = Clock()
        self.interval = 10.0
        self.runs: list[float] = []
        self.outcome: Any = None
        self.ticker = Ticker("test", self.clock, lambda: self.interval, self._work, **options)

    def _work(self) -> Any:
        self.runs.append(self.clock.seconds())
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def advance(self, seconds: float) -> None:
        """Time passes in steps of half a second."""
        self.clock.pump([0.5] * int(seconds * 2))


@pytest.fixture
def scene() -> Scene:
    """A started one with an interval of 10 s."""
    scene = Scene()
    scene.ticker.startService()
    return scene


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """What is logged meanwhile."""
    with capturedLogs() as events:
        yield events  # type: ignore[misc]


def test_an_interval_that_is_always_the_same() -> None:
    """It need not be asked for."""
    clock, runs = Clock(), []
    ticker = Ticker("test", clock, 3.0, lambda: runs.append(clock.seconds()))
    ticker.startService()
    clock.pump([1.0] * 7)
    ticker.retune()
    clock.pump([1.0] * 2)
    assert runs == [3.0, 6.0, 9.0]


def test_runs_every_interval(scene: Scene) -> None:
    """The first call comes one interval after the start."""
    assert scene.ticker.running
    scene.advance(9.5)
    assert scene.runs == []
    scene.advance(25.5)
    assert scene.runs == [10.0, 20.0, 30.0]


def test_at_once() -> None:
    """With `at_once` the first call comes at the start."""
    scene = Scene(at_once=True)
    scene.ticker.startService()
    assert scene.runs == [0.0]
    scene.advance(10)
    assert scene.runs == [0.0, 10.0]


def test_has_its_name(scene: Scene) -> None:
    """The service is called as it was named."""
    assert scene.ticker.name == "test"


def test_next_call_waits_for_the_one_under_way(scene: Scene) -> None:
    """A call that takes longer than the interval is not overtaken."""
    scene.outcome = work = Deferred()
    scene.advance(35)
    assert scene.runs == [10.0]
    scene.outcome = None
    work.callback(None)
    scene.advance(5)
    assert scene.runs == [10.0, 40.0]


@pytest.mark.parametrize("failing", [lambda: ZeroDivisionError("work broke"), lambda: fail(KeyError("work broke"))])
def test_failing_work_is_logged_and_goes_on(scene: Scene, events: list[LogEvent], failing: Any) -> None:
    """Whether it raises or its Deferred fails, one event says so and the next call comes in time."""
    scene.outcome = failing()
    scene.advance(10)
    scene.outcome = None
    scene.advance(10)
    assert scene.runs == [10.0, 20.0]
    (event,) = events
    assert event["log_level"] is LogLevel.critical
    assert event["task"] == "test"
    assert "work broke" in str(event["log_failure"].value)


def test_condition_is_a_line_without_traceback(scene: Scene, events: list[LogEvent]) -> None:
    """The storage being reopened, say, or a folder that is gone, is no bug. It is told of once, as long as it lasts."""
    gone = "[Errno 2] No such file or directory: 'data'"
    for error in (Unavailable("being reopened"), FileNotFoundError(2, "No such file or directory", "data"), None):
        for _ in range(2):
            scene.outcome = error and fail(error)
            scene.advance(10)
    scene.outcome = fail(Unavailable("being reopened"))
    scene.advance(10)
    assert {event["log_level"] for event in events} == {LogLevel.warn}
    conditions = [formatEvent(event).removeprefix("test goes on at its next turn: ") for event in events]
    assert conditions == ["being reopened", gone, "being reopened"]


def test_stop_while_waiting(scene: Scene) -> None:
    """Stopping fires at once, and no call comes any more."""
    stopped: list[object] = []
    scene.ticker.stopService().addCallback(stopped.append)
    assert len(stopped) == 1
    assert not scene.ticker.running
    scene.advance(100)
    assert scene.runs == []
    assert scene.clock.getDelayedCalls() == []


def test_stop_waits_for_a_call_under_way(scene: Scene) -> None:
    """Stopping fires when the call under way has finished, and no other comes."""
    scene.outcome = work = Deferred()
    scene.advance(10)
    stopped: list[object] = []
    scene.ticker.stopService().addCallback(stopped.append)
    scene.advance(20)
    assert stopped == []
    work.callback(None)
    assert len(stopped) == 1
    scene.advance(100)
    assert scene.runs == [10.0]


def test_stop_waits_for_a_call_that_fails(scene: Scene, events: list[LogEvent]) -> None:
    """A call under way that fails ends the waiting like any other, and is logged."""
    scene.outcome = work = Deferred()
    scene.advance(10)
    stopped: list[object] = []
    scene.ticker.stopService().addCallback(stopped.append)
    work.errback(OSError("work broke"))
    assert len(stopped) == 1
    assert [event["task"] for event in events] == ["test"]


def test_stop_before_start() -> None:
    """A ticker that was never started stops at once."""
    scene = Scene()
    stopped: list[object] = []
    scene.ticker.stopService().addCallback(stopped.append)
    assert len(stopped) == 1


def test_shorter_interval_while_waiting(scene: Scene) -> None:
    """A new interval counts from now."""
    scene.advance(4)
    scene.interval = 3
    scene.ticker.retune()
    scene.advance(6.5)
    assert scene.runs == [7.0, 10.0]


def test_new_interval_after_a_call(scene: Scene) -> None:
    """A loop that has called before and waits again takes it up at once, too."""
    scene.advance(14)
    scene.interval = 3
    scene.ticker.retune()
    scene.advance(3)
    assert scene.runs == [10.0, 17.0]


def test_longer_interval_while_waiting(scene: Scene) -> None:
    """Also when it is longer."""
    scene.advance(9)
    scene.interval = 20
    scene.ticker.retune()
    scene.advance(40)
    assert scene.runs == [29.0, 49.0]


def test_retune_does_not_call_at_once() -> None:
    """Even a ticker that began at once waits for the new interval."""
    scene = Scene(at_once=True)
    scene.ticker.startService()
    scene.interval = 3
    scene.ticker.retune()
    assert scene.runs == [0.0]


def test_same_interval_changes_nothing(scene: Scene) -> None:
    """A configuration change that leaves the interval alone does not put the next call off."""
    scene.advance(9)
    scene.ticker.retune()
    scene.advance(1)
    assert scene.runs == [10.0]


def test_retune_while_busy(scene: Scene) -> None:
    """The call under way is left alone; the one after it comes within the new interval."""
    scene.outcome = work = Deferred()
    scene.advance(12)
    scene.interval = 3
    scene.ticker.retune()
    scene.advance(1)
    scene.outcome = None
    work.callback(None)
    scene.advance(3)
    assert len(scene.runs) == 2
    assert scene.runs[1] - 13.0 <= 3
    scene.advance(6)
    assert len(scene.runs) == 4


def test_stop_after_retune_while_busy(scene: Scene) -> None:
    """The call under way is still waited for."""
    scene.outcome = work = Deferred()
    scene.advance(10)
    scene.interval = 3
    scene.ticker.retune()
    stopped: list[object] = []
    scene.ticker.stopService().addCallback(stopped.append)
    assert stopped == []
    work.callback(None)
    assert len(stopped) == 1


def test_stop_after_retune_while_waiting(scene: Scene) -> None:
    """The new loop is the one that is stopped."""
    scene.interval = 3
    scene.ticker.retune()
    stopped: list[object] = []
    scene.ticker.stopService().addCallback(stopped.append)
    assert len(stopped) == 1
    assert scene.clock.getDelayedCalls() == []


def test_retune_when_stopped(scene: Scene) -> None:
    """A change after the stop starts nothing."""
    scene.ticker.stopService()
    scene.interval = 3
    scene.ticker.retune()
    scene.advance(10)
    assert scene.runs == []
    assert scene.clock.getDelayedCalls() == []
