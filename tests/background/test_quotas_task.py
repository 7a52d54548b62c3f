"""The recount as a task."""

from __future__ import annotations

from typing import Callable

import pytest

from kvtwisted.backends.local.store import MEASURED_BYTES, MEASURED_KEYS
from kvtwisted.background.expiry import Pace
from kvtwisted.background.quotas import EAGER_SECONDS, RESTING, ROUND_SECONDS, TURN_SECONDS, RecountTask
from kvtwisted.core.errors import QuotaExceeded, StorageError
from kvtwisted.sessions.quotas import Quota, Usage

from ..support.doors import Doorway


class Scene:
    """The task over a store in memory, and a time that moves when it works."""

    def __init__(self) -> None:
        self.doorway = Doorway()
        self.store = self.doorway.storage.store
        self.usages: list[Usage] = []
        self.now = 1000.0
        #: Seconds that a piece takes, and called after each.
        self.piece = 0.01
        self.between: Callable[[], object] = lambda: None
        self.turns = 0
        self.task = RecountTask(
            lambda: self.usages, self.doorway.backend, seconds=lambda: self.now, make_pace=self._pace
        )

    def _pace(self) -> Pace:
        self.turns += 1
        return Pace(self._worked, lambda seconds: self.between())

    def _worked(self) -> float:
        self.now += self.piece / 2
        return self.now

    def usage(self, *prefixes: bytes) -> Usage:
        """One more with a quota."""
        usage = Usage("app", Quota(1, 1), prefixes)
        self.usages.append(usage)
        return usage

    def put(self, prefix: bytes, count: int, value: bytes = b"v") -> None:
        """Store so many."""
        for number in range(count):
            self.store.set(b"%b%06d" % (prefix, number), value)

    def turn(self, seconds: float = 1.0) -> int:
        """So much later; gives whether there was anything to do."""
        self.now += seconds
        before = self.turns
        self.task.run()
        return self.turns - before


@pytest.fixture
def scene() -> Scene:
    """An empty one."""
    return Scene()


def test_nobody_has_a_quota(scene: Scene) -> None:
    """Nothing is read."""
    scene.put(b"a/", 3)
    assert not scene.turn(10_000)


def test_what_is_there_is_counted(scene: Scene) -> None:
    """As clients know it: without envelopes, and large values whole; under each prefix, once."""
    scene.put(b"a/", 2 * MEASURED_KEYS + 1)
    scene.put(b"b/", 3, b"\xc3\xbc")
    scene.store.set(b"b/ttl", b"1234", 60)
    scene.put(b"c/", 1)
    ab, b, everything, nothing = (scene.usage(*of) for of in ([b"a/", b"b/", b"a/0"], [b"b/"], [b""], []))
    assert scene.turn()
    assert (ab.keys, ab.size) == (1005, 1001 * 9 + 3 * 10 + 9)
    assert (b.keys, b.size) == (4, 39)
    assert (everything.keys, everything.size) == (1006, ab.size + 9)
    assert (nothing.keys, nothing.size, nothing.is_counted) == (0, 0, True)


def test_a_piece_is_bounded(scene: Scene) -> None:
    """In keys and in bytes."""
    scene.put(b"k", MEASURED_KEYS + 1)
    assert scene.store.measure(b"", b"") == (MEASURED_KEYS * 8, MEASURED_KEYS, b"k%06d\0" % (MEASURED_KEYS - 1))
    scene.put(b"k", 6, b"v" * 1_048_576)
    assert scene.store.measure(b"", b"").keys == 1 + MEASURED_BYTES // 1_048_577


def test_rounds_come_again(scene: Scene) -> None:
    """A minute after the last one; sooner when somebody was refused; later when it takes long."""
    usage = scene.usage(b"a/")
    assert scene.turn()
    scene.put(b"a/", 1)
    assert not scene.turn(ROUND_SECONDS - 1)
    assert scene.turn(1)
    assert usage.keys == 1
    scene.store.delete(b"a/000000")
    with pytest.raises(QuotaExceeded):
        usage.check(usage.growth([(b"a/1", b"", 0)], [0]))
    assert not scene.turn(EAGER_SECONDS - 1)
    assert scene.turn(1)
    assert usage.keys == 0
    assert not scene.turn(EAGER_SECONDS + 1)
    scene.piece = 8.0
    assert scene.turn(ROUND_SECONDS)
    assert scene.turn(0)
    assert not scene.turn(8.0 * RESTING - 1)
    assert scene.turn(10 * 8.0)


def test_who_is_new_is_counted_at_once(scene: Scene) -> None:
    """Others with them."""
    scene.put(b"a/", 2)
    first = scene.usage(b"a/")
    assert scene.turn()
    scene.store.delete(b"a/000000")
    second = scene.usage(b"a/")
    assert scene.turn()
    assert (first.keys, second.keys) == (1, 1)


def test_a_turn_ends(scene: Scene) -> None:
    """So that a stop does not wait; the next one goes on."""
    scene.put(b"a/", 10 * MEASURED_KEYS)
    usage = scene.usage(b"a/")
    scene.piece = TURN_SECONDS / 4
    turns = 0
    while not usage.is_counted:
        assert scene.turn()
        turns += 1
    assert (usage.keys, turns) == (10 * MEASURED_KEYS, 3)


def test_what_is_written_meanwhile(scene: Scene) -> None:
    """Before or behind the place that it has come to: it counts once, and what is deleted no more."""
    scene.put(b"a/", 3 * MEASURED_KEYS)
    usage = scene.usage(b"a/")
    changes: list[tuple[bytes, bytes | None]] = [
        (b"a/!", b"new"), (b"a/~", b"new"), (b"a/000000", None), (b"a/001499", None), (b"a/000001", b"longer"),
    ]  # fmt: skip

    def write() -> None:
        if not changes:
            return
        for key, value in changes:
            found = scene.store.get(key)
            grown = usage.growth([(key, value, 0)], [len(key) + len(found.value) if found else 0])
            usage.add(grown)
            if value is None:
                scene.store.delete(key)
            else:
                scene.store.set(key, value)
            usage.settle(grown, failed=False)
        changes.clear()

    scene.between = write
    assert scene.turn()
    counted = usage.keys, usage.size
    scene.between = lambda: None
    assert scene.turn(ROUND_SECONDS)
    assert counted == (usage.keys, usage.size)
    assert usage.keys == 3 * MEASURED_KEYS


def test_a_failure_ends_a_round(scene: Scene) -> None:
    """Which is begun anew at the next turn."""
    scene.put(b"a/", 2 * MEASURED_KEYS)
    usage = scene.usage(b"a/")
    scene.between = lambda: scene.doorway.storage.engine.fail("scan", StorageError("broken"))
    with pytest.raises(StorageError):
        scene.turn()
    scene.between = lambda: None
    scene.doorway.storage.engine.heal("scan")
    assert scene.turn()
    assert usage.keys == 2 * MEASURED_KEYS
