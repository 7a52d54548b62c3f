"""Eviction as a task: what is measured, counted and logged."""

from __future__ import annotations

import json

import pytest
from twisted.logger import LogEvent, capturedLogs

from kvtwisted.backends.local.maintenance.eviction import Batch, Disk, EvictionRules, Evictor
from kvtwisted.backends.local.maintenance.holdings import Holdings
from kvtwisted.backends.local.write_sequence import WriteSequence
from kvtwisted.background.eviction import EvictionTask, report_batch
from kvtwisted.commands.administration import Plan
from kvtwisted.core.disk import DiskUsage
from kvtwisted.core.errors import StorageError
from kvtwisted.sessions.audit import Audit

from ..support.storage import Storage
from .tasks import Counted, lines


class Scene:
    """The task over a store of 10 records of 100 bytes each, on a disk of 10,000 bytes."""

    def __init__(self) -> None:
        self.storage = Storage()
        self.storage.store.mset({b"%02d" % n: b"v" * 98 for n in range(10)})
        self.storage.restart()
        self.counted = Counted()
        self.audited: list[bytes] = []
        self.rules = EvictionRules(80, 3, "lru")
        self.enabled = True
        self.wanted_free = 0
        self.used = 7_999
        self.own = 1_000
        self.measured: list[str] = []
        self.done: list[bool] = []
        evictor = Evictor(
            self.storage.engine,
            self.storage.writer.commits,
            self.storage.clock,
            self.storage.recency.__contains__,
            WriteSequence(),
            lambda batch: report_batch(self.counted.metrics, Audit(self.audited.append), batch),
        )
        self.task = EvictionTask(
            evictor,
            self.counted.metrics,
            rules=lambda: self.rules,
            enabled=lambda: self.enabled,
            disks=[Disk("rocksdb.path", self._measure_disk, self._measure_own, lambda: self.wanted_free)],
        )

    def _measure_disk(self) -> DiskUsage:
        self.measured.append("disk")
        return DiskUsage(self.used, 10_000 - self.used)

    def _measure_own(self) -> Holdings:
        self.measured.append("own")
        return Holdings(self.own)

    def run(self) -> list[LogEvent]:
        """One turn, and what it logged; its failure is raised."""
        with capturedLogs() as events:
            self.done.append(self.task.run())
        return list(events)


@pytest.fixture
def scene() -> Scene:
    """One with the disk just under the threshold."""
    return Scene()


def test_off(scene: Scene) -> None:
    """When eviction is off nothing is even measured."""
    scene.enabled = False
    scene.used = 10_000
    assert scene.run() == []
    assert scene.measured == []
    assert len(scene.storage.data()) == 10


def test_under_the_threshold(scene: Scene) -> None:
    """The disk is measured, the store's folders are not, and nothing is logged."""
    assert scene.run() == []
    assert "own" not in scene.measured
    assert len(scene.storage.data()) == 10


def test_evicts_counts_and_logs(scene: Scene) -> None:
    """At the threshold keys go; each batch is logged and counted with keys and bytes, then the run as a whole."""
    scene.used = 8_000 + 399
    events = scene.run()
    assert scene.measured.count("own") == 2  # before garbage has gone, and after
    assert len(scene.storage.data()) == 6
    assert lines(events) == [
        "info: evicted 3 keys, 300 bytes (lru)",
        "info: evicted 1 keys, 100 bytes (lru)",
        "info: the disk of rocksdb.path was 84.0 % full (threshold 80 %); 400 bytes were evicted, 400 needed",
    ]
    assert scene.counted.value("kv_evictions_total", reason="lru") == 4
    assert scene.counted.value("kv_evicted_bytes_total", reason="lru") == 400
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
        "warn: the disk of rocksdb.path is 95.0 % full (threshold 80 %), but not of what this server stores: "
        "1501 bytes would have to go; nothing is evicted"
    ]
    assert len(scene.storage.data()) == 10
    assert scene.counted.value("kv_evictions_futile_total") == 1


def test_policy_that_finds_too_little(scene: Scene) -> None:
    """A warning names the policy and what was missing."""
    scene.rules = EvictionRules(80, 3, "none")
    scene.used = 8_000
    assert lines(scene.run()) == [
        "warn: the disk of rocksdb.path is 80.0 % full (threshold 80 %); "
        "policy none found 0 of the 1 bytes that had to go"
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


def test_off_and_no_room(scene: Scene) -> None:
    """While writes are refused and nothing may be evicted, what was deleted is made to come back."""
    scene.enabled = False
    scene.wanted_free = 5_000
    assert scene.run() == []
    assert scene.storage.engine.called("compact")[-1] == (b"", b"\xff")
    assert len(scene.storage.data()) == 10
    assert scene.done == [True]


def test_room_for_writers(scene: Scene) -> None:
    """Below the threshold keys go too, as many as it takes that writes are accepted again."""
    scene.wanted_free = 10_000 - 7_999 + 250
    assert lines(scene.run())[0] == "info: evicted 3 keys, 300 bytes (lru)"
    assert scene.done == [False]


def test_nothing_left_and_no_room(scene: Scene) -> None:
    """When the policy finds too little, all that is deleted is made to come back, and the turn was in vain."""
    scene.rules = EvictionRules(80, 3, "none")
    scene.wanted_free = 5_000
    scene.own = 10_000
    scene.run()
    assert scene.storage.engine.called("compact")[-1] == (b"", b"\xff")
    assert scene.done == [True]


def test_one_turn_at_a_time(scene: Scene) -> None:
    """A turn that comes while another is under way does nothing."""
    scene.used = 8_000 + 399
    inner: list[object] = []
    scene.storage.engine.before("write", lambda: inner.append(scene.task.run()))
    scene.run()
    assert inner == [False]
    assert len(scene.storage.data()) == 6


def test_orphans_are_logged_and_counted() -> None:
    """As files, under their own reason; the audit log has them too."""
    counted = Counted()
    audited: list[bytes] = []
    with capturedLogs() as events:
        report_batch(counted.metrics, Audit(audited.append), Batch("orphan", 2, 8192))
    assert lines(events) == ["info: removed 2 orphaned files, 8192 bytes"]
    (line,) = map(json.loads, audited)
    del line["time"]
    assert line == {"event": "eviction", "who": "server", "reason": "orphan", "keys": 2, "bytes": 8192}
    assert counted.value("kv_evictions_total", reason="orphan") == 2
    assert counted.value("kv_evicted_bytes_total", reason="orphan") == 8192


def test_plan(scene: Scene) -> None:
    """What a turn would do, also when eviction is off; nothing is deleted or logged."""
    scene.used = 8_000 + 399
    scene.enabled = False
    with capturedLogs() as events:
        plan = scene.task.plan()
    assert plan == Plan(83.99, 80, "lru", 400, 1_000, False, {"lru": (4, 400)})
    assert events == []
    assert len(scene.storage.data()) == 10
