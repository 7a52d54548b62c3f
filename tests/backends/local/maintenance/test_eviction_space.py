"""Eviction and space: what is on its way back already, what RocksDB gives back, what writers wait for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.engines.engine import Statistics
from kvtwisted.backends.local.maintenance.eviction import Batch, Eviction, EvictionRules, worth_compacting
from kvtwisted.backends.local.maintenance.victims import MOST_RANGES, Touched
from kvtwisted.core.disk import DiskUsage
from kvtwisted.core.errors import StorageError, WriteStalled

from ....support.clocks import START_MS
from ....support.properties import repeatable
from .evictions import DISK, FLUSH, Scene, needing, seen_disk

#: A compaction of all that there is, when it is little.
EVERYTHING = [(b"", b"\xff", "expiry"), (b"", b"\xff", "files"), (b"", b"\xff")]


@pytest.fixture
def scene() -> Scene:
    """An empty store with an evictor."""
    return Scene()


# What is already on its way.


def test_returning_space_is_subtracted(scene: Scene) -> None:
    """What the last run deleted and the disk does not show yet is not deleted again."""
    scene.put(*(b"%02d" % n for n in range(20)))
    assert scene.run(500) == Eviction(500, 500, False)
    assert scene.run(400) == Eviction(0, 0, False)
    assert len(scene.left) == 15


def test_part_of_the_space_has_returned(scene: Scene) -> None:
    """What the disk shows as returned is not expected once more."""
    scene.put(*(b"%02d" % n for n in range(20)))
    assert scene.run(1000, size=1) == Eviction(1000, 1000, False)
    assert scene.run(600) == Eviction(0, 0, False)
    assert len(scene.left) == 10


def test_others_fill_the_disk_meanwhile(scene: Scene) -> None:
    """What others wrote since has to go in addition; what was deleted is still expected back."""
    scene.put(*(b"%02d" % n for n in range(20)))
    assert scene.run(300, size=1) == Eviction(300, 300, False)
    assert scene.run(700, size=1) == Eviction(400, 400, False)


def test_returning_space_is_expected_for_one_look(scene: Scene) -> None:
    """Space that has not returned by the next look will not, and is not waited for any longer."""
    scene.put(*(b"%02d" % n for n in range(20)))
    assert scene.run(500, size=5) == Eviction(500, 500, False)
    assert scene.run(500, size=5) == Eviction(0, 0, False)
    assert scene.run(500, size=5) == Eviction(500, 500, False)


def test_a_look_under_the_threshold_ends_the_waiting(scene: Scene) -> None:
    """Once the disk was under the threshold, an earlier run counts for nothing."""
    scene.put(*(b"%02d" % n for n in range(20)))
    scene.run(500, size=5)
    assert scene.run(0) == Eviction(0, 0, False)
    assert scene.run(400, size=1) == Eviction(400, 400, False)


def test_failed_run_is_remembered(scene: Scene) -> None:
    """What a run deleted before it failed stays deleted, was reported, and is subtracted at the next look."""
    scene.put(*(b"%02d" % n for n in range(10)))
    reported: list[Batch] = []

    def report(batch: Batch) -> None:
        reported.append(batch)
        if len(reported) == 1:
            scene.storage.engine.fail("write", WriteStalled("stalled"), times=1)

    evictor = scene.evictor_reporting_to(report)
    rules = EvictionRules(80, 3, "lru")
    with pytest.raises(WriteStalled):
        evictor.run(seen_disk(needing(600)), rules)
    assert reported == [Batch("lru", 3, 300)]
    assert len(scene.left) == 7
    # 100 of the 300 bytes are back.
    assert evictor.run(seen_disk(needing(500)), rules) == Eviction(300, 300, False)
    assert len(scene.left) == 4


# What else.


def test_touched_range_is_compacted(scene: Scene) -> None:
    """A few compactions at the end, of the keys that went and not of those that stayed between."""
    scene.put(b"a", b"d", b"m", b"z")
    for key in (b"a", b"z"):
        scene.recency.touch(key)
    scene.run(200, size=1)
    assert scene.left == [b"a", b"z"]
    assert scene.storage.engine.called("compact") == [FLUSH, (b"d", b"d\0"), (b"m", b"m\0")]
    assert scene.storage.engine.calls[-2].method == "compact"


def test_touched_range_of_keys_in_any_order(scene: Scene) -> None:
    """In their order, whatever the order in which they went."""
    for key, ttl in ((b"m", 10), (b"x", 20), (b"c", 30), (b"p", 40)):
        scene.put(key, ttl=ttl)
    scene.run(300, size=1, policy="ttl")
    assert scene.left == [b"p"]
    assert scene.storage.engine.called("compact") == [FLUSH, (b"c", b"c\0"), (b"m", b"m\0"), (b"x", b"x\0")]


@repeatable
@given(st.lists(st.sets(st.binary(min_size=1, max_size=3), max_size=40), max_size=20))
def test_touched_ranges(batches: list[set[bytes]]) -> None:
    """They hold every key, are in order and apart, begin and end with keys, and are not many."""
    touched = Touched()
    for batch in batches:
        touched.add(batch)
    ranges = touched.ranges()
    keys = sorted(set().union(*batches))
    assert len(ranges) <= MOST_RANGES
    bounds = [bound for pair in ranges for bound in pair]
    assert bounds == sorted(bounds)
    assert set(bounds) <= set(keys)
    assert all(any(low <= key <= high for low, high in ranges) for key in keys)
    assert len(ranges) == len({low for low, _ in ranges}) >= min(len(keys), MOST_RANGES // 2)


def test_many_touched_keys_are_kept_as_ranges() -> None:
    """What is remembered does not grow with what is deleted."""
    touched = Touched()
    for n in range(100_000):
        touched.add([b"%06d" % (7919 * n % 100_000)])
    assert len(touched._ranges) <= 64 * MOST_RANGES
    assert touched.ranges()[0][0] == b"000000"
    assert touched.ranges()[-1][1] == b"099999"


def test_nothing_deleted_nothing_compacted(scene: Scene) -> None:
    """A run that finds nothing compacts no range."""
    scene.put(b"a")
    assert scene.run(100, policy="none") == Eviction(100, 0, False)
    assert scene.storage.engine.called("compact") == [FLUSH]


def test_failed_compaction_is_raised(scene: Scene) -> None:
    """The keys are gone all the same."""
    scene.put(b"a")

    def report(batch: Batch) -> None:
        scene.storage.engine.fail("compact", StorageError("compaction broke"))

    with pytest.raises(StorageError, match="compaction broke"):
        scene.evictor_reporting_to(report).run(seen_disk(needing(100)), EvictionRules(80, 10, "lru"))
    assert scene.left == []


@pytest.mark.parametrize("policy", ["lru", "ttl"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_key_rewritten_after_it_was_chosen_survives(scene: Scene, policy: str, moment: str) -> None:
    """A Set just before or just after the evictor reads the record wins; its neighbour goes."""
    scene.put(b"a", b"b", ttl=100)
    rewrite = getattr(scene.storage.engine, moment)
    rewrite("get", lambda: scene.storage.store.set(b"a", b"new", 50))
    assert scene.run(100, policy=policy) == Eviction(100, 100, False)
    assert scene.batches == [Batch(policy, 1, 100)]
    assert scene.storage.value(b"a") == b"new"
    assert (START_MS + 50_000, b"a") in scene.storage.index()
    assert scene.left == [b"a"]


def test_key_deleted_meanwhile(scene: Scene) -> None:
    """A key that is gone when the evictor reads it does not count."""
    scene.put(b"a", b"b")
    scene.storage.engine.before("get", lambda: scene.storage.store.delete(b"a"))
    assert scene.run(100) == Eviction(100, 100, False)
    assert scene.batches == [Batch("lru", 1, 100)]


# What RocksDB has to give back by itself.


def test_dead_space_is_taken_back_first(scene: Scene) -> None:
    """A flush that is enough destroys nothing."""
    scene.put(b"a")
    disk = seen_disk(needing(100), needing(0))
    assert scene.evictor.run(disk, EvictionRules(80, 10, "lru")) == Eviction(0, 0, False)
    assert scene.left == [b"a"]
    assert scene.storage.engine.called("compact") == [FLUSH]


def test_dead_space_counts_for_a_part(scene: Scene) -> None:
    """What the flush did not give back is evicted, and no more."""
    scene.put(*(b"%02d" % n for n in range(10)))
    disk = seen_disk(needing(800), needing(300))
    assert scene.evictor.run(disk, EvictionRules(80, 10, "lru")) == Eviction(300, 300, False)


@pytest.mark.parametrize(
    ("tables", "live", "needed", "worth"),
    [
        (0, 0, 1, False),
        (1000, 1000, 1, False),
        (1000, 500, 500, True),
        (1000, 500, 501, True),
        (1000, 700, 100, True),
        (1000, 700, 301, False),
        (1000, 950, 10, False),
        (1000, 600, 400, True),
    ],
)
def test_everything_is_compacted_when_enough_is_dead(tables: int, live: int, needed: int, worth: bool) -> None:
    """The dead data must be half of the living; or what is needed, and a tenth of the living."""
    assert worth_compacting(Statistics(file_bytes=tables, live_bytes=live), needed) is worth


def test_a_database_of_dead_data_is_compacted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, before anything is deleted."""
    figures = Statistics(file_bytes=1000, live_bytes=10)
    monkeypatch.setattr(scene.storage.engine, "statistics", lambda: figures)
    scene.put(b"a")
    scene.evictor.run(seen_disk(needing(100), needing(0)), EvictionRules(80, 10, "lru"))
    assert scene.storage.engine.called("compact") == EVERYTHING


def test_space_that_returned_during_the_run_is_not_expected_again(scene: Scene) -> None:
    """The disk is measured after the compaction: what others write from then on has to go in full."""
    scene.put(*(b"%02d" % n for n in range(20)))
    rules = EvictionRules(80, 10, "lru")
    assert scene.evictor.run(seen_disk(*3 * [needing(500)], needing(0)), rules) == Eviction(500, 500, False)
    assert scene.evictor.run(seen_disk(needing(500)), rules) == Eviction(500, 500, False)


# What writers wait for.


def test_room_for_writers(scene: Scene) -> None:
    """Below the threshold too, as much goes as must be free for writes to be accepted again."""
    scene.put(*(b"%02d" % n for n in range(10)))
    half = DiskUsage(DISK // 2, DISK // 2)
    rules = EvictionRules(80, 10, "lru")
    assert scene.evictor.run(seen_disk(half, wanted_free=DISK // 2 + 250), rules) == Eviction(250, 300, False)
    assert scene.evictor.run(seen_disk(half, wanted_free=DISK // 2), rules) == Eviction(0, 0, False)


def test_reclaim_compacts_everything(scene: Scene) -> None:
    """And deletes nothing."""
    scene.put(b"a")
    scene.evictor.reclaim()
    assert scene.storage.engine.called("compact") == EVERYTHING
    assert scene.left == [b"a"]


def test_reclaim_goes_piece_by_piece(scene: Scene) -> None:
    """Pieces of a MiB or more, one beside the other, over all keys."""
    for n in range(40):
        scene.storage.store.set(b"%02d" % n, b"v" * 100_000)
    scene.evictor.reclaim()
    pieces = scene.storage.engine.called("compact")[2:]
    assert len(pieces) == 4
    assert [pieces[0][0], pieces[-1][1]] == [b"", b"\xff"]
    assert all(before[1] == after[0] for before, after in zip(pieces, pieces[1:]))
