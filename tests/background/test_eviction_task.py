"""Eviction as a task: what is measured, counted and logged."""

from __future__ import annotations

import pytest
from twisted.logger import LogEvent, capturedLogs

from kvtwisted.background.eviction import EvictionTask, report_batch
from kvtwisted.core.disk import DiskUsage
from kvtwisted.core.errors import StorageError
from kvtwisted.core.eviction import EvictionRules, Evictor

from ..support.storage import Storage
from .tasks import Counted, at_once, lines


class Scene:
    """The task over a store of 10 records of 100 bytes each, on a disk of 10,000 bytes."""

    def __init__(self) -> None:
        self.storage = Storage()
        self.storage.store.mset({b"%02d" % n: b"v" * 98 for n in range(10)})
        self.storage.restart()
        self.counted = Counted()
        self.rules: EvictionRules | None = EvictionRules(80, 3, "lru")
        self.used = 7_999
        self.own = 1_000
        self.measured: list[str] = []
        evictor = Evictor(
            self.storage.engine,
            self.storage.writer,
            self.storage.sweeper,
            self.storage.recency,
            lambda batch: report_batch(self.counted.metrics, batch),
        )
        self.task = EvictionTask(
            evictor,
            self.counted.metrics,
            rules=lambda: self.rules,
            measure_disk=self._measure_disk,
            measure_own=self._measure_own,
            defer=at_once,
        )

    def _measure_disk(self) -> DiskUsage:
        self.measured.append("disk")
        return DiskUsage(self.used, 10_000 - self.used)

    def _measure_own(self) -> int:
        self.measured.append("own")
        return self.own

    def run(self) -> list[LogEvent]:
        """One turn, and what it logged; its failure is raised."""
        failures: list[object] = []
        with capturedLogs() as events:
            self.task.run().addErrback(failures.append)
        if failures:
            failures[0].raiseException()  # type: ignore[attr-defined]
        return list(events)


@pytest.fixture
def scene() -> Scene:
    """One with the disk just under the threshold."""
    return Scene()


def test_off(scene: Scene) -> None:
    """When eviction is off nothing is even measured."""
    scene.rules = None
    scene.used = 10_000
    assert scene.run() == []
    assert scene.measured == []
    assert len(scene.storage.data()) == 10


def test_under_the_threshold(scene: Scene) -> None:
    """The disk is measured, the store's folders are not, and nothing is logged."""
    assert scene.run() == []
    assert scene.measured == ["disk"]
    assert len(scene.storage.data()) == 10


def test_evicts_counts_and_logs(scene: Scene) -> None:
    """At the threshold keys go; each batch is logged and counted with keys and bytes, then the run as a whole."""
    scene.used = 8_000 + 399
    events = scene.run()
    assert scene.measured == ["disk", "own"]
    assert len(scene.storage.data()) == 4
    assert lines(events) == [
        "info: evicted 3 keys, 300 bytes (lru)",
        "info: evicted 3 keys, 300 bytes (lru)",
        "info: the disk was 84.0 % full (threshold 80 %); 600 bytes were evicted, 400 needed",
    ]
    assert scene.counted.value("kv_evictions_total", reason="lru") == 6
    assert scene.counted.value("kv_evicted_bytes_total", reason="lru") == 600
    assert scene.counted.value("kv_evictions_futile_total") == 0


def test_expired_keys_count_under_their_reason(scene: Scene) -> None:
    """Expired keys that an eviction deletes are counted apart."""
    scene.storage.store.set(b"old", b"", 1)
    scene.storage.time.advance(1000)
    scene.used = 8_000
    assert lines(scene.run())[0] == "info: evicted 1 keys, 14 bytes (expired)"
    assert scene.counted.value("kv_evictions_total", reason="expired") == 1
    assert scene.counted.value("kv_evictions_total", reason="lru") is None


def test_futile(scene: Scene) -> None:
    """When evicting cannot help, a warning and a metric say so, and nothing goes."""
    scene.used, scene.own = 9_500, 1_000
    assert lines(scene.run()) == [
        "warn: the disk is 95.0 % full (threshold 80 %), but not of what this server stores: "
        "1501 bytes would have to go; nothing is evicted"
    ]
    assert len(scene.storage.data()) == 10
    assert scene.counted.value("kv_evictions_futile_total") == 1


def test_policy_that_finds_too_little(scene: Scene) -> None:
    """A warning names the policy and what was missing."""
    scene.rules = EvictionRules(80, 3, "none")
    scene.used = 8_000
    assert lines(scene.run()) == [
        "warn: the disk is 80.0 % full (threshold 80 %); policy none found 0 of the 1 bytes that had to go"
    ]


def test_space_on_its_way_back(scene: Scene) -> None:
    """When what was deleted last time is enough, nothing goes and nothing is logged."""
    scene.used = 8_200
    scene.run()
    left = len(scene.storage.data())
    assert scene.run() == []
    assert len(scene.storage.data()) == left


def test_look_under_the_threshold_forgets_what_was_on_its_way(scene: Scene) -> None:
    """Every look counts, also one that finds the disk fine."""
    scene.used = 8_200
    scene.run()
    scene.used = 7_000
    scene.run()
    scene.used = 8_200
    left = len(scene.storage.data())
    scene.run()
    assert len(scene.storage.data()) == left - 3


def test_new_rules_hold_for_the_next_turn(scene: Scene) -> None:
    """Threshold, batch size and policy are asked for each time."""
    scene.run()
    scene.rules = EvictionRules(70, 2, "lru")
    assert lines(scene.run())[0] == "info: evicted 2 keys, 200 bytes (lru)"


def test_failure_is_raised_for_the_ticker(scene: Scene) -> None:
    """A failing engine goes to whoever runs the task."""
    scene.used = 8_200
    scene.storage.engine.fail("write", StorageError("disk broke"))
    with pytest.raises(StorageError, match="disk broke"):
        scene.run()
