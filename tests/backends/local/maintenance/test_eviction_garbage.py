"""Garbage goes before keys, and keys do not go for what they do not give back. See Note [Garbage before keys]."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvtwisted.backends.local.engines.engine import EXPIRY, Statistics
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.backends.local.maintenance.eviction import Batch, Disk, Eviction, EvictionRules, Evictor
from kvtwisted.backends.local.maintenance.holdings import Holdings
from kvtwisted.backends.local.maintenance.scrub import Scrub
from kvtwisted.backends.local.records import index_key
from kvtwisted.core.disk import DiskUsage

from ....support.clocks import START_MS
from ....support.storage import Storage
from .evictions import DISK, PLENTY, Scene, needing, seen_disk

RULES = EvictionRules(80, 10, "lru")


@pytest.fixture
def scene() -> Scene:
    """An empty store with an evictor."""
    return Scene()


def _stale(scene: Scene, number: int) -> None:
    """Entries of the index that belong to no record."""
    scene.storage.engine.write(
        [(EXPIRY, index_key(START_MS + 1 + n, b"gone/%06d" % n), b"") for n in range(number)],
    )


def test_useless_entries_of_the_index_go_before_any_key(scene: Scene) -> None:
    """A disk that is full of them is not, once they are gone."""
    scene.put(*(b"%02d" % n for n in range(10)))
    _stale(scene, 3000)

    def measure() -> DiskUsage:
        used = DISK * 80 // 100 - 1 + len(scene.storage.index())
        return DiskUsage(used, DISK - used)

    disk = Disk("rocksdb.path", measure, lambda: Holdings(PLENTY))
    assert scene.evictor.run(disk, RULES) == Eviction(0, 0, False)
    assert scene.storage.index() == []
    assert len(scene.left) == 10


def test_while_many_are_found_no_key_goes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run goes on with them."""
    scene.put(b"a")
    monkeypatch.setattr(Scrub, "before_eviction", lambda self: True)
    assert scene.run(100) == Eviction(100, 0, False, scrubbing=True)
    assert scene.left == [b"a"]
    monkeypatch.undo()
    assert scene.run(100) == Eviction(100, 100, False)


@pytest.mark.parametrize(
    ("needed", "passing", "backups"),
    [(1, 500, 0), (500, 500, 0), (1, 0, 500), (500, 0, 500), (300, 300, 200), (301, 300, 200)],
)
def test_nothing_goes_for_what_passes(scene: Scene, needed: int, passing: int, backups: int) -> None:
    """Backups and what the server needs for a while may be all that is too much: nothing is even compacted for them.

    Only what does not go by itself makes it futile.
    """
    scene.put(*(b"%02d" % n for n in range(10)))
    before = len(scene.storage.engine.calls)
    disk = seen_disk(needing(needed), held=Holdings(PLENTY, passing=passing, backups=backups))
    eviction = scene.evictor.run(disk, RULES)
    assert eviction == Eviction(needed, 0, needed > passing, 500)
    assert eviction.is_passing == (needed <= passing)
    assert len(scene.storage.engine.calls) == before
    assert scene.evictor.plan([disk], RULES).victims == {}
    assert len(scene.left) == 10


def test_what_passes_is_taken_off(scene: Scene) -> None:
    """What is too much beside it goes."""
    scene.put(*(b"%02d" % n for n in range(10)))
    disk = seen_disk(needing(700), held=Holdings(PLENTY, passing=500))
    assert scene.evictor.plan([disk], RULES).victims == {"lru": (2, 200)}
    assert scene.evictor.run(disk, RULES) == Eviction(200, 200, False)
    assert scene.batches == [Batch("lru", 2, 200)]


def test_the_log_is_no_reason_either(scene: Scene) -> None:
    """What of it is left after the flush goes by itself."""
    scene.put(b"a")
    disk = seen_disk(needing(100), held=Holdings(PLENTY, log=100))
    assert scene.evictor.run(disk, RULES) == Eviction(100, 0, False, 100)
    assert scene.left == [b"a"]


def test_too_little_beside_what_passes(scene: Scene) -> None:
    """When all keys together would not be enough, none goes."""
    scene.put(b"a", b"b")
    disk = seen_disk(needing(700), held=Holdings(199, passing=500))
    assert scene.evictor.run(disk, RULES) == Eviction(700, 0, True, 500)
    assert len(scene.left) == 2


def test_a_long_walk_in_vain_is_not_repeated_soon() -> None:
    """With many files it would be most of what a disk has to do that others have filled; unless writes are refused."""
    scene, now, walks = Scene(), [0.0], [0]

    def walk() -> Holdings:
        walks[0] += 1
        now[0] += 0.5
        return Holdings(10)

    def run(needed: int, at: float, wanted_free: int = 0) -> int:
        now[0] = max(now[0], at)
        disk = Disk("rocksdb.path", lambda: needing(needed), walk, lambda: wanted_free)
        assert scene.evictor.run(disk, RULES).futile
        return walks[0]

    evictor = Evictor(
        scene.storage.engine, scene.storage.writer.commits, scene.storage.clock, lambda key: False,
        scene.write_sequence, scene.batches.append, seconds=lambda: now[0],
    )  # fmt: skip
    scene.evictor = evictor
    assert run(1000, 0) == 1
    assert run(1000, 1) == run(5000, 5) == 1
    assert run(900, 6) == 2, "others have given back some"
    assert run(900, 7) == 2
    assert run(900, 8, wanted_free=DISK) == 3
    assert run(900, 30) == 4


def test_a_backup_that_ends_meanwhile(scene: Scene) -> None:
    """Removed between the measuring of the disk and the look at what passes, it must not look like data."""
    scene.put(*(b"%02d" % n for n in range(10)))
    disk = seen_disk(needing(500), needing(500), needing(0), held=Holdings(PLENTY))
    assert scene.evictor.run(disk, RULES) == Eviction(0, 0, False)
    assert len(scene.left) == 10


def test_records_count_for_what_comes_back(scene: Scene) -> None:
    """Of tables that backups hold only a part comes back, or nothing."""
    scene.put(*(b"%02d" % n for n in range(20)))
    half = seen_disk(needing(500), held=Holdings(PLENTY, share=0.5))
    assert scene.evictor.run(half, RULES) == Eviction(500, 500, False)
    assert len(scene.left) == 10
    scene = Scene()
    scene.put(*(b"%02d" % n for n in range(20)))
    none = seen_disk(needing(500), held=Holdings(PLENTY, share=0.0))
    assert scene.evictor.run(none, RULES) == Eviction(500, 0, False)
    assert len(scene.left) == 20


def test_tables_that_backups_hold_are_not_compacted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written in their stead would come on top of them."""
    figures = Statistics(file_bytes=1000, live_bytes=10)
    monkeypatch.setattr(scene.storage.engine, "statistics", lambda: figures)
    scene.put(b"a")
    disk = seen_disk(needing(100), held=Holdings(PLENTY, share=0.9))
    scene.evictor.run(disk, RULES)
    scene.evictor.collect_garbage(disk)
    assert (b"", b"\xff") not in scene.storage.engine.called("compact")
    scene.evictor.collect_garbage(seen_disk(needing(100)))
    assert (b"", b"\xff") in scene.storage.engine.called("compact")


def test_values_that_backups_hold_stay(tmp_path: Path) -> None:
    """A key whose file has another name is no victim, though its record would give some bytes."""
    files = ValueFiles(str(tmp_path / "values"))
    scene = Scene(Storage(files=files, spill_threshold=1000))
    for number in range(4):
        scene.storage.store.set(b"%d" % number, b"v" * 5000)
    for number, path in enumerate(sorted((tmp_path / "values").glob("??/*"))[:2]):
        os.link(path, tmp_path / f"backup-{number}")
    disk = Disk("rocksdb.path", lambda: needing(PLENTY), lambda: Holdings(2 * PLENTY), held=files.held)
    freed = scene.evictor.run(disk, RULES).freed
    assert 2 * 8192 <= freed <= 2 * 8400
    assert len(scene.left) == 2
    assert all(len(scene.storage.value(key) or b"") == 5000 for key in scene.left)
