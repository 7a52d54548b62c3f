"""The looks at the high-water mark, and the eviction that runs at once while writes are refused."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from kvtwisted.backends.local.maintenance.space import GuardedDisk, SpaceGuard
from kvtwisted.background.space import LONGEST_PAUSE, SpaceTask
from kvtwisted.core.disk import DiskUsage
from kvtwisted.core.errors import StorageFull

from .tasks import at_once, lines


class Scene:
    """The task over a disk of 1000 bytes, at a mark of 95 %; evictions end when a test says so."""

    def __init__(self) -> None:
        self.free = 500
        self.clock = Clock()
        disk = GuardedDisk("rocksdb.path", lambda: DiskUsage(1000 - self.free, self.free), 0)
        self.guard = SpaceGuard([disk], lambda: 95, lambda reason: None, self.clock.seconds)
        self.evictions: list[Deferred[bool]] = []
        self.task = SpaceTask(self.guard, self.clock, self._evict, at_once)

    def _evict(self) -> Deferred[bool]:
        self.evictions.append(Deferred())
        return self.evictions[-1]

    def turn(self) -> int:
        """A second later: one turn. How many evictions there have been."""
        self.clock.advance(1)
        done: list[object] = []
        self.task.run().addCallback(done.append)
        assert done == [None], "the turn waited for the eviction"
        return len(self.evictions)


@pytest.fixture
def scene() -> Scene:
    """One with room."""
    return Scene()


def test_room(scene: Scene) -> None:
    """With room nothing is evicted."""
    assert scene.turn() == 0
    scene.task.relieve()
    assert scene.evictions == []


def test_no_room(scene: Scene) -> None:
    """The look finds it, and evicts, once at a time; turns go on meanwhile and see when there is room."""
    scene.free = 10
    assert scene.turn() == 1
    assert scene.turn() == 1
    scene.free = 500
    scene.turn()
    assert scene.guard.reason is None
    scene.evictions[0].callback(False)
    assert scene.turn() == 1


def test_at_once(scene: Scene) -> None:
    """Whoever finds that there is no room need not wait for a turn."""
    scene.free = 10
    scene.guard.look()
    scene.task.relieve()
    scene.task.relieve()
    assert len(scene.evictions) == 1


def test_the_end_of_an_eviction_is_a_look(scene: Scene) -> None:
    """Writers go on as soon as there is room; while there is none, the next eviction follows at once."""
    scene.free = 10
    scene.turn()
    scene.evictions[0].callback(False)
    assert len(scene.evictions) == 2
    scene.free = 500
    scene.evictions[1].callback(False)
    assert scene.guard.reason is None
    assert len(scene.evictions) == 2


def test_evictions_in_vain_become_rare(scene: Scene) -> None:
    """The pause doubles up to a minute; room makes an end of it."""
    scene.free = 10
    times: list[float] = []
    for _ in range(300):
        if scene.turn() > len(times):
            times.append(scene.clock.seconds())
            scene.evictions[-1].callback(True)
    pauses = [after - before for before, after in zip(times, times[1:])]
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    scene.free = 500
    scene.turn()
    scene.free = 10
    assert scene.turn() == len(times) + 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("no disk"), "critical: making room failed; it is tried again"),
        (StorageFull("no space"), "warn: making room failed; it is tried again: no space"),
    ],
)
def test_failed_eviction(scene: Scene, error: Exception, line: str) -> None:
    """It is logged, in one line what a full disk does; and another one follows after a pause."""
    scene.free = 10
    scene.turn()
    with capturedLogs() as events:
        scene.evictions[0].errback(error)
    assert lines(events)[0].startswith(line)
    assert len(scene.evictions) == 1
    assert scene.turn() == 2
