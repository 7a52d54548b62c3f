"""The expiry sweep as a task."""

from __future__ import annotations

import time

import pytest
from twisted.logger import capturedLogs

from kvtwisted.backends.local.engines.engine import META
from kvtwisted.backends.local.maintenance.scrub import Scrub
from kvtwisted.background.expiry import FAR_AHEAD_MS, SLICE, TURN_SECONDS, ExpiryTask, Pace
from kvtwisted.core.errors import StorageError

from ..support.clocks import START_MS
from ..support.storage import Storage
from .tasks import Counted, lines


class Scene:
    """The task over a store in memory."""

    def __init__(self) -> None:
        self.storage = Storage()
        self.counted = Counted()
        #: What a piece of work takes, and how long was rested; both are the task's time.
        self.piece = 0.01
        self.rests: list[float] = []
        self._worked = 0.0
        scrub = Scrub(self.storage.engine, self.storage.writer.commits, self.storage.clock)
        self.task = ExpiryTask(
            self.storage.sweeper, scrub, self.storage.store, self.counted.metrics,
            seconds=lambda: self._worked + sum(self.rests),
            make_pace=lambda: Pace(self._work, self.rests.append),
        )  # fmt: skip

    def _work(self) -> float:
        """Asked before and after each rest, which is no work."""
        self._worked += self.piece / 2
        return self._worked

    @property
    def clock_mark(self) -> bytes | None:
        """The mark that a later run goes by."""
        return self.storage.engine.get(b"clock", META)

    @property
    def expirations(self) -> float | None:
        """What was counted."""
        return self.counted.value("kv_expirations_total")


@pytest.fixture
def scene() -> Scene:
    """An empty one."""
    return Scene()


def test_deletes_counts_and_logs(scene: Scene) -> None:
    """Expired keys go, are counted, and named in one line of the running log at level debug."""
    scene.storage.store.mset({b"a": b"", b"b": b""}, 1)
    scene.storage.store.set(b"c", b"")
    scene.storage.time.advance(1000)
    with capturedLogs() as events:
        scene.task.run()
    assert set(scene.storage.data()) == {b"c"}
    assert scene.expirations == 2
    assert lines(events) == ["debug: 2 expired keys deleted"]


def test_nothing_to_do(scene: Scene) -> None:
    """Without deadlines nothing is written, counted or logged; the index is looked at twice."""
    scene.storage.store.set(b"c", b"")
    scene.task.run()  # the first turn looks once more, for what an earlier run left behind
    before = len(scene.storage.engine.calls)
    with capturedLogs() as events:
        scene.task.run()
    assert [call.method for call in scene.storage.engine.calls[before:]] == ["scan", "scan"]
    assert scene.expirations == 0
    assert events == []


def test_goes_on_until_nothing_expired_is_left(scene: Scene) -> None:
    """More than a slice is deleted in one turn."""
    keys = [b"%05d" % n for n in range(2 * SLICE + 1)]
    scene.storage.store.mset(dict.fromkeys(keys, b""), 1)
    scene.storage.time.advance(1000)
    scene.task.run()
    assert scene.storage.data() == {}
    assert scene.expirations == len(keys)


def test_a_turn_ends(scene: Scene) -> None:
    """After a while the turn is over; the next one goes on."""
    scene.piece = TURN_SECONDS / 10
    keys = [b"%05d" % n for n in range(20 * SLICE)]
    scene.storage.store.mset(dict.fromkeys(keys, b""), 1)
    scene.storage.time.advance(1000)
    scene.task.run()
    left = len(scene.storage.data())
    assert 0 < left < len(keys)
    while scene.storage.data():
        scene.task.run()
        assert len(scene.storage.data()) < left
        left = len(scene.storage.data())
    assert scene.expirations == len(keys)


def test_rests_as_long_as_it_has_worked(scene: Scene) -> None:
    """After each slice of the sweep, and of the scrub, so that requests have at least half of the processor."""
    scene.storage.store.mset({b"%05d" % n: b"" for n in range(3 * SLICE)}, 1)
    scene.storage.store.mset({b"stays/%05d" % n: b"" for n in range(3)}, 1000)
    scene.storage.time.advance(1000)
    scene.task.run()
    assert scene.rests == pytest.approx([scene.piece / 2] * 5)


def test_a_pace_of_a_thread() -> None:
    """What counts is the processor's time, and not what others have taken meanwhile."""
    rests: list[float] = []
    pace = Pace(sleep=rests.append)
    time.sleep(0.05)
    pace.rest()
    until = time.thread_time() + 0.05
    while time.thread_time() < until:
        """Works."""
    pace.rest()
    assert rests[0] < 0.04
    assert rests[1] >= 0.05


def test_clock_is_marked_while_deadlines_exist(scene: Scene) -> None:
    """As long as some key has a deadline, each turn writes the time down."""
    assert scene.clock_mark is None
    scene.storage.store.set(b"a", b"", 100)
    scene.task.run()
    assert scene.clock_mark == b"%d" % START_MS
    scene.storage.time.advance(5000)
    scene.task.run()
    assert scene.clock_mark == b"%d" % (START_MS + 5000)


def test_clock_is_marked_while_the_wall_clock_is_behind(scene: Scene) -> None:
    """A key may be set at any moment, whose deadline is counted from a time that a later run would not know."""
    scene.storage.time.step_wall(-FAR_AHEAD_MS)
    scene.task.run()
    assert scene.clock_mark is None
    scene.storage.time.step_wall(-1)
    scene.task.run()
    assert scene.clock_mark == b"%d" % START_MS
    scene.storage.time.step_wall(-3_600_000)
    scene.storage.restart()
    assert scene.storage.clock.now_ms() == START_MS


def test_clock_is_marked_after_the_last_deadline(scene: Scene) -> None:
    """The turn that deletes the last key with a deadline marks the clock, the next one does not."""
    scene.storage.store.set(b"a", b"", 1)
    scene.storage.time.advance(1000)
    scene.task.run()
    marked = scene.clock_mark
    assert marked == b"%d" % (START_MS + 1000)
    scene.storage.time.advance(5000)
    scene.task.run()
    assert scene.clock_mark == marked


def test_failed_sweep_is_logged_once(scene: Scene) -> None:
    """While the storage fails there is one warning, not one for each turn; then the sweep goes on."""
    scene.storage.store.set(b"a", b"", 1)
    scene.storage.time.advance(1000)
    scene.storage.engine.fail("write", StorageError("disk broke"), times=3)
    with capturedLogs() as events:
        for _ in range(3):
            scene.task.run()
    assert lines(events) == ["warn: expired keys cannot be deleted for now: disk broke"]
    assert scene.expirations == 0
    scene.task.run()
    assert scene.expirations == 1
    scene.storage.engine.fail("scan", StorageError("broke again"), times=1)
    with capturedLogs() as events:
        scene.task.run()
    assert lines(events) == ["warn: expired keys cannot be deleted for now: broke again"]
