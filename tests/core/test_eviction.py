"""Eviction: how much has to go, which keys go, and what is left alone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.core import eviction
from kvtwisted.core.ages import DatedEngine, WriteAges
from kvtwisted.core.disk import DiskUsage
from kvtwisted.core.engine import DATA
from kvtwisted.core.errors import StorageError, WriteStalled
from kvtwisted.core.eviction import (
    Batch,
    Disk,
    Eviction,
    EvictionRules,
    Evictor,
    Plan,
    bytes_over,
    worth_compacting,
)
from kvtwisted.core.large_values import Collected, ValueFiles
from kvtwisted.core.recency import Recency
from kvtwisted.core.victims import MOST_RANGES, Touched

from ..support.clocks import START_MS
from ..support.properties import repeatable
from ..support.storage import Storage

_DISK = 1_000_000
_PLENTY = 1 << 40
#: The compaction of nothing before anything is deleted, which flushes.
_FLUSH = (b"\xff", b"\xff\0")


def _needing(needed: int) -> DiskUsage:
    """A disk from which `needed` bytes must go to be under 80 %."""
    used = _DISK * 80 // 100 + needed - 1
    return DiskUsage(used, _DISK - used)


def _disk(*looks: DiskUsage, own_bytes: int = _PLENTY, wanted_free: int = 0, **holds: bool) -> Disk:
    """A disk that is seen as `looks` tell, one after the other and the last one from then on."""
    left = list(looks)
    return Disk(
        "rocksdb.path",
        measure=lambda: left.pop(0) if len(left) > 1 else left[0],
        own_bytes=lambda: own_bytes,
        wanted_free=lambda: wanted_free,
        **holds,
    )


class Scene:
    """Evictions on a full disk: an evictor over a store of records of 100 bytes each (key and value)."""

    def __init__(self, storage: Storage | None = None) -> None:
        self.storage = storage or Storage()
        self.recency = Recency()
        self.ages = WriteAges(1 << 16)
        self.orphans = [Collected(0, 0)]
        self.batches: list[Batch] = []
        self.evictor = self.evictor_reporting_to(self.batches.append)

    def evictor_reporting_to(self, report: Callable[[Batch], None]) -> Evictor:
        """A new evictor over the same store; it collects each of `orphans` in turn, the last one again and again."""
        return Evictor(
            self.storage.engine,
            self.storage.writer,
            self.storage.clock,
            self.recency.__contains__,
            self.ages,
            report,
            collect_orphans=lambda: self.orphans.pop(0) if len(self.orphans) > 1 else self.orphans[0],
        )

    def put(self, *keys: bytes, ttl: int = 0) -> None:
        """Store keys in records that, with the key, have 100 bytes."""
        envelope = 11 if ttl else 0
        self.storage.store.mset({key: b"v" * (100 - len(key) - envelope) for key in keys}, ttl)

    def run(self, needed: int, *, own_bytes: int = _PLENTY, size: int = 10, policy: str = "lru") -> Eviction:
        """One run on a disk from which `needed` bytes must go."""
        return self.evictor.run(_disk(_needing(needed), own_bytes=own_bytes), EvictionRules(80, size, policy))

    @property
    def left(self) -> list[bytes]:
        """The keys that are left."""
        return sorted(self.storage.data())


@pytest.fixture
def scene() -> Scene:
    """An empty store with an evictor."""
    return Scene()


# How much.


@repeatable
@given(st.integers(0, 2**44), st.integers(0, 2**44), st.integers(1, 100))
def test_bytes_over_is_exactly_enough(used: int, free: int, threshold: int) -> None:
    """Freeing that many bytes brings use under the threshold, one byte less does not; 0 means that it is under."""
    over = bytes_over(DiskUsage(used, free), threshold)
    assert 0 <= over <= used
    assert DiskUsage(used - over, free + over).percent < threshold
    if over:
        assert DiskUsage(used - over + 1, free + over - 1).percent >= threshold


@repeatable
@given(st.integers(1, 300), st.integers(0, 300), st.integers(1, 100))
def test_bytes_over_on_a_tiny_disk(used: int, free: int, threshold: int) -> None:
    """The same where every byte is a percent or so, so that rounding shows."""
    over = bytes_over(DiskUsage(used, free), threshold)
    total = used + free
    assert 100 * (used - over) < threshold * total
    assert over == 0 or 100 * (used - over + 1) >= threshold * total


@pytest.mark.parametrize(
    ("used", "free", "over"), [(0, 0, 0), (79, 21, 0), (80, 20, 1), (81, 19, 2), (100, 0, 21), (80, 21, 0)]
)
def test_bytes_over_by_example(used: int, free: int, over: int) -> None:
    """At the threshold one byte has to go."""
    assert bytes_over(DiskUsage(used, free), 80) == over


# Whether.


def test_under_the_threshold_nothing_happens(scene: Scene) -> None:
    """The engine is not touched, and the store's own size not asked for."""
    scene.put(b"a")
    before = len(scene.storage.engine.calls)
    assert scene.run(0, own_bytes=-1) == Eviction(0, 0, False)
    assert len(scene.storage.engine.calls) == before


def test_futile_eviction_destroys_nothing(scene: Scene) -> None:
    """When all the store's bytes would not be enough, none goes, not even what has expired."""
    scene.put(b"a")
    scene.put(b"b", ttl=1)
    scene.storage.time.advance(1000)
    before = len(scene.storage.engine.calls)
    assert scene.run(150, own_bytes=149) == Eviction(150, 0, True)
    assert len(scene.storage.engine.calls) == before
    assert scene.run(150, own_bytes=150) == Eviction(150, 200, False)


# Which.


def test_expired_keys_go_first(scene: Scene) -> None:
    """When expired keys are enough, no other goes."""
    scene.put(*(b"e%d" % n for n in range(5)), ttl=1)
    scene.put(b"a", b"z")
    scene.storage.time.advance(1000)
    assert scene.run(500) == Eviction(500, 500, False)
    assert scene.batches == [Batch("expired", 5, 500)]
    assert scene.left == [b"a", b"z"]


def test_expired_keys_then_policy(scene: Scene) -> None:
    """When they are not, the policy gives the rest."""
    scene.put(b"e0", b"e1", ttl=1)
    scene.put(b"a", b"b", b"c")
    scene.storage.time.advance(1000)
    assert scene.run(300, size=1) == Eviction(300, 300, False)
    assert scene.batches == [Batch("expired", 1, 100), Batch("expired", 1, 100), Batch("lru", 1, 100)]
    assert scene.left == [b"b", b"c"]


def test_stale_index_entries_do_not_end_the_search(scene: Scene) -> None:
    """A slice of the index that deletes nothing is followed by the next one."""
    for n in range(3):
        scene.put(b"s%d" % n, ttl=1)
        scene.put(b"s%d" % n)
    scene.put(b"zz", ttl=2)
    scene.storage.time.advance(2000)
    scene.run(100, size=1)
    assert scene.batches == [Batch("expired", 1, 100)]
    assert scene.left == [b"s0", b"s1", b"s2"]


def test_lru_spares_what_was_used_lately(scene: Scene) -> None:
    """Keys that were not used lately go, whatever their order."""
    scene.put(b"a", b"b", b"c", b"d", b"e")
    for key in (b"a", b"c", b"d"):
        scene.recency.touch(key)
    assert scene.run(200, size=2).freed == 200
    assert scene.left == [b"a", b"c", b"d"]
    assert {batch.reason for batch in scene.batches} == {"lru"}


def test_lru_takes_what_was_used_lately_when_need_be(scene: Scene) -> None:
    """When nothing else is left, the keys used lately go too."""
    scene.put(b"a", b"b", b"c", b"d")
    for key in (b"a", b"c", b"d"):
        scene.recency.touch(key)
    assert scene.run(300, size=1) == Eviction(300, 300, False)
    assert len(scene.left) == 1
    assert b"b" not in scene.left


def test_lru_hand_goes_on_where_it_stopped(scene: Scene) -> None:
    """The next run does not begin at the first key again, and goes round at the end."""
    scene.put(b"b", b"c", b"d", b"e")
    scene.run(200, size=1)
    assert scene.left == [b"d", b"e"]
    scene.put(b"a")
    scene.run(0)
    scene.run(200, size=1)
    assert scene.left == [b"a"]
    scene.run(0)
    scene.run(100, size=1)
    assert scene.left == []


def test_lru_goes_round_once(scene: Scene) -> None:
    """With nothing left to take, a run ends and says how much it found."""
    scene.put(b"a", b"b", b"c")
    scene.run(100, size=1)
    scene.run(0)
    assert scene.run(1000, size=2) == Eviction(1000, 200, False)
    assert scene.left == []


def test_evicted_key_takes_its_index_entry_along(scene: Scene) -> None:
    """A key with a deadline leaves no index entry."""
    scene.put(b"a", ttl=1000)
    scene.run(100)
    assert scene.left == []
    assert scene.storage.index() == []


def test_ttl_takes_the_soonest_to_expire(scene: Scene) -> None:
    """By deadline, and none without one."""
    scene.put(b"a")
    for key, ttl in ((b"b", 30), (b"c", 10), (b"d", 20), (b"e", 40)):
        scene.put(key, ttl=ttl)
    assert scene.run(200, size=1, policy="ttl") == Eviction(200, 200, False)
    assert scene.left == [b"a", b"b", b"e"]
    assert scene.batches == [Batch("ttl", 1, 100)] * 2
    assert [key for _, key in scene.storage.index()] == [b"b", b"e"]


def test_ttl_never_takes_keys_without_one(scene: Scene) -> None:
    """When they run out, the run ends short of what is needed."""
    scene.put(b"a", b"b")
    scene.put(b"c", ttl=10)
    assert scene.run(300, policy="ttl") == Eviction(300, 100, False)
    assert scene.left == [b"a", b"b"]


def test_ttl_goes_by_the_record(scene: Scene) -> None:
    """Index entries of earlier Sets count for nothing."""
    scene.put(b"forever", ttl=10)
    scene.put(b"forever")
    scene.put(b"later", ttl=10)
    scene.put(b"later", ttl=100)
    scene.put(b"soon", ttl=20)
    assert scene.run(100, size=1, policy="ttl").freed == 100
    assert scene.left == [b"forever", b"later"]


def test_none_takes_expired_keys_only(scene: Scene) -> None:
    """Policy none leaves everything that has not expired."""
    scene.put(b"e", ttl=1)
    scene.put(b"t", ttl=100)
    scene.put(b"a")
    scene.storage.time.advance(1000)
    assert scene.run(300, policy="none") == Eviction(300, 100, False)
    assert scene.left == [b"a", b"t"]


def test_unreadable_record_may_be_evicted(scene: Scene) -> None:
    """A record that nobody can read goes like any other."""
    scene.storage.engine.write([(DATA, b"bad", b"\xff" + b"?" * 96)])
    assert scene.run(100) == Eviction(100, 100, False)
    assert scene.left == []
    assert scene.storage.engine.called("write")[-1] == ([(DATA, b"bad", None)],)


# How many.


@pytest.mark.parametrize("policy", ["lru", "ttl"])
def test_batch_size_is_respected(scene: Scene, policy: str) -> None:
    """No batch has more keys, and each is one write, reported when it is done."""
    scene.put(*(b"%02d" % n for n in range(10)), ttl=100)
    seen: list[tuple[int, int]] = []
    evictor = scene.evictor_reporting_to(lambda batch: seen.append((batch.keys, len(scene.left))))
    evictor.run(_disk(_needing(950)), EvictionRules(80, 4, policy))
    assert seen == [(4, 6), (4, 2), (2, 0)]


@repeatable
@given(st.integers(1, 2100), st.integers(1, 25), st.sampled_from(["lru", "ttl"]), st.sets(st.integers(0, 19)))
def test_run_stops_at_the_projected_use(needed: int, size: int, policy: str, used: set[int]) -> None:
    """It stops with the first key that is enough, also inside a batch."""
    scene = Scene()
    scene.put(*(b"%02d" % n for n in range(20)), ttl=100)
    for n in used:
        scene.recency.touch(b"%02d" % n)
    done = scene.run(needed, size=size, policy=policy)
    assert done.freed == sum(batch.freed for batch in scene.batches) == 2000 - 100 * len(scene.left)
    assert min(needed, 2000) <= done.freed < needed + 100
    assert all(batch.keys <= size for batch in scene.batches)


@pytest.mark.parametrize("policy", ["lru", "ttl"])
def test_everything_may_go(each_storage: Storage, policy: str) -> None:
    """A run that needs all it can get empties the store, on a disk too, and goes on with an empty one."""
    scene = Scene(each_storage)
    scene.put(*(b"%02d" % n for n in range(10)), ttl=100)
    scene.recency.touch(b"07")
    assert scene.run(1500, size=4, policy=policy) == Eviction(1500, 1000, False)
    assert (scene.left, each_storage.index()) == ([], [])
    scene.run(0)
    assert scene.run(1500, size=4, policy=policy) == Eviction(1500, 0, False)


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
        evictor.run(_disk(_needing(600)), rules)
    assert reported == [Batch("lru", 3, 300)]
    assert len(scene.left) == 7
    # 100 of the 300 bytes are back.
    assert evictor.run(_disk(_needing(500)), rules) == Eviction(300, 300, False)
    assert len(scene.left) == 4


# What else.


def test_touched_range_is_compacted(scene: Scene) -> None:
    """A few compactions at the end, of the keys that went and not of those that stayed between."""
    scene.put(b"a", b"d", b"m", b"z")
    for key in (b"a", b"z"):
        scene.recency.touch(key)
    scene.run(200, size=1)
    assert scene.left == [b"a", b"z"]
    assert scene.storage.engine.called("compact") == [_FLUSH, (b"d", b"d\0"), (b"m", b"m\0")]
    assert scene.storage.engine.calls[-2].method == "compact"


def test_touched_range_of_keys_in_any_order(scene: Scene) -> None:
    """In their order, whatever the order in which they went."""
    for key, ttl in ((b"m", 10), (b"x", 20), (b"c", 30), (b"p", 40)):
        scene.put(key, ttl=ttl)
    scene.run(300, size=1, policy="ttl")
    assert scene.left == [b"p"]
    assert scene.storage.engine.called("compact") == [_FLUSH, (b"c", b"c\0"), (b"m", b"m\0"), (b"x", b"x\0")]


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
    assert scene.storage.engine.called("compact") == [_FLUSH]


def test_failed_compaction_is_raised(scene: Scene) -> None:
    """The keys are gone all the same."""
    scene.put(b"a")

    def report(batch: Batch) -> None:
        scene.storage.engine.fail("compact", StorageError("compaction broke"))

    with pytest.raises(StorageError, match="compaction broke"):
        scene.evictor_reporting_to(report).run(_disk(_needing(100)), EvictionRules(80, 10, "lru"))
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
    disk = _disk(_needing(100), _needing(0))
    assert scene.evictor.run(disk, EvictionRules(80, 10, "lru")) == Eviction(0, 0, False)
    assert scene.left == [b"a"]
    assert scene.storage.engine.called("compact") == [_FLUSH]


def test_dead_space_counts_for_a_part(scene: Scene) -> None:
    """What the flush did not give back is evicted, and no more."""
    scene.put(*(b"%02d" % n for n in range(10)))
    disk = _disk(_needing(800), _needing(300))
    assert scene.evictor.run(disk, EvictionRules(80, 10, "lru")) == Eviction(300, 300, False)


@pytest.mark.parametrize(
    ("tables", "live", "needed", "worth"),
    [
        (0, 0, 1, False),
        (1000, 1000, 1, False),
        (1000, 500, 500, True),
        (1000, 500, 501, False),
        (1000, 700, 100, False),
        (1000, 600, 400, True),
    ],
)
def test_everything_is_compacted_when_enough_is_dead(tables: int, live: int, needed: int, worth: bool) -> None:
    """The dead data must be what is needed, and half of the living."""
    assert worth_compacting({"live-sst-files-size": tables, "estimate-live-data-size": live}, needed) is worth


def test_a_database_of_dead_data_is_compacted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, before anything is deleted."""
    figures = {"live-sst-files-size": 1000.0, "estimate-live-data-size": 10.0}
    monkeypatch.setattr(scene.storage.engine, "statistics", lambda: figures)
    scene.put(b"a")
    scene.evictor.run(_disk(_needing(100), _needing(0)), EvictionRules(80, 10, "lru"))
    assert scene.storage.engine.called("compact") == [(b"", b"\xff")]


def test_space_that_returned_during_the_run_is_not_expected_again(scene: Scene) -> None:
    """The disk is measured after the compaction: what others write from then on has to go in full."""
    scene.put(*(b"%02d" % n for n in range(20)))
    rules = EvictionRules(80, 10, "lru")
    assert scene.evictor.run(_disk(_needing(500), _needing(500), _needing(0)), rules) == Eviction(500, 500, False)
    assert scene.evictor.run(_disk(_needing(500)), rules) == Eviction(500, 500, False)


# What writers wait for.


def test_room_for_writers(scene: Scene) -> None:
    """Below the threshold too, as much goes as must be free for writes to be accepted again."""
    scene.put(*(b"%02d" % n for n in range(10)))
    half = DiskUsage(_DISK // 2, _DISK // 2)
    rules = EvictionRules(80, 10, "lru")
    assert scene.evictor.run(_disk(half, wanted_free=_DISK // 2 + 250), rules) == Eviction(250, 300, False)
    assert scene.evictor.run(_disk(half, wanted_free=_DISK // 2), rules) == Eviction(0, 0, False)


def test_reclaim_compacts_everything(scene: Scene) -> None:
    """And deletes nothing."""
    scene.put(b"a")
    scene.evictor.reclaim()
    assert scene.storage.engine.called("compact") == [(b"", b"\xff")]
    assert scene.left == [b"a"]


def test_reclaim_goes_piece_by_piece(scene: Scene) -> None:
    """Pieces of a MiB or more, one beside the other, over all keys."""
    for n in range(40):
        scene.storage.store.set(b"%02d" % n, b"v" * 100_000)
    scene.evictor.reclaim()
    pieces = scene.storage.engine.called("compact")
    assert len(pieces) == 4
    assert [pieces[0][0], pieces[-1][1]] == [b"", b"\xff"]
    assert all(before[1] == after[0] for before, after in zip(pieces, pieces[1:]))


# Orphans.


def test_orphans_go_before_keys(scene: Scene) -> None:
    """When their files are enough, no key goes, not even an expired one."""
    scene.put(b"a")
    scene.put(b"e", ttl=1)
    scene.storage.time.advance(1000)
    scene.orphans.insert(0, Collected(3, 500))
    assert scene.run(500) == Eviction(500, 500, False)
    assert scene.batches == [Batch("orphan", 3, 500)]
    assert scene.left == [b"a", b"e"]


def test_orphans_are_looked_for_once_a_minute(scene: Scene) -> None:
    """The folder is not walked at every look."""
    scene.orphans[:] = [Collected(1, 10), Collected(2, 20), Collected(0, 0)]
    scene.run(1000)
    scene.run(0)
    scene.storage.time.advance(59_999)
    scene.run(1000)
    scene.run(0)
    scene.storage.time.advance(1)
    scene.run(1000)
    assert scene.batches == [Batch("orphan", 1, 10), Batch("orphan", 2, 20)]


# Two disks. See Note [Two disks].


@pytest.fixture
def large(tmp_path: Path) -> Scene:
    """A scene in which values of 1000 bytes and more are in files."""
    return Scene(Storage(files=ValueFiles(str(tmp_path / "values")), spill_threshold=1000))


def test_files_are_what_frees_the_disk_of_the_files(large: Scene) -> None:
    """There only keys with files go, and only the files' blocks count."""
    store = large.storage.store
    large.put(b"a", b"z")
    for key in (b"b", b"m", b"n"):
        store.set(key, b"v" * 5000)
    disk = _disk(_needing(10_000), records=False)
    assert large.evictor.run(disk, EvictionRules(80, 1, "lru")) == Eviction(10_000, 16_384, False)
    assert large.batches == [Batch("lru", 1, 8192)] * 2
    assert large.left == [b"a", b"n", b"z"]
    assert large.storage.engine.called("compact") == []


def test_files_free_nothing_on_the_disk_of_the_records(large: Scene) -> None:
    """There a key with a file counts its record alone."""
    large.storage.store.set(b"a", b"v" * 5000)
    large.put(b"b", b"c")
    disk = _disk(_needing(200), files=False)
    assert large.evictor.run(disk, EvictionRules(80, 1, "lru")) == Eviction(200, 240, False)
    assert large.batches == [Batch("lru", 1, 40), Batch("lru", 1, 100), Batch("lru", 1, 100)]


@pytest.mark.parametrize("policy", ["ttl", "oldest"])
def test_other_policies_on_the_disk_of_the_files(large: Scene, policy: str) -> None:
    """Keys without files are passed over by every policy."""
    large.put(b"a", b"b", ttl=10)
    large.storage.store.set(b"c", b"v" * 5000, 20)
    disk = _disk(_needing(1), records=False)
    assert large.evictor.run(disk, EvictionRules(80, 10, policy)).freed == 8192
    assert large.left == [b"a", b"b"]


def test_expired_files_go_from_their_own_disk(large: Scene) -> None:
    """An expired key without a file is left to the sweeper there."""
    large.put(b"a", ttl=1)
    large.storage.store.set(b"b", b"v" * 5000, 2)
    large.storage.time.advance(2000)
    large.evictor.run(_disk(_needing(1), records=False), EvictionRules(80, 10, "none"))
    assert large.batches == [Batch("expired", 1, 8192)]
    assert large.left == [b"a"]


def test_disks_are_remembered_apart(scene: Scene) -> None:
    """What is on its way back on one disk is not expected on another."""
    scene.put(*(b"%02d" % n for n in range(20)))
    assert scene.run(500).freed == 500
    other = replace(_disk(_needing(500)), name="value.disk_path")
    assert scene.evictor.run(other, EvictionRules(80, 10, "lru")).freed == 500


# Rewritten meanwhile.


@pytest.mark.parametrize("policy", ["lru", "oldest"])
def test_key_rewritten_before_it_is_watched_stays(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its nomination and the watch for writes; another one goes in its place."""
    scene = _dated(Scene())
    scene.evictor = scene.evictor_reporting_to(scene.batches.append)  # with the dated store's own writer
    scene.put(*(b"%02d" % n for n in range(64)))
    writer, watching = scene.storage.writer, scene.storage.writer.watching
    late: list[bytes] = []

    def watching_late(nominated: dict[bytes, None]) -> AbstractContextManager[set[bytes]]:
        if not late:
            late.append(next(iter(nominated)))
            scene.recency.touch(late[0])
            scene.storage.store.set(late[0], b"anew")
        return watching(nominated)

    monkeypatch.setattr(writer, "watching", watching_late)
    assert scene.run(300, size=3, policy=policy).freed == 300
    assert scene.storage.value(late[0]) == b"anew"
    assert len(scene.left) == 61


def test_key_rewritten_beside_a_batch_stays(scene: Scene) -> None:
    """While those before it are deleted, in a batch that is cut short."""
    scene.put(*(b"%02d" % n for n in range(20)))

    def rewrite() -> None:
        scene.recency.touch(b"03")
        scene.storage.store.set(b"03", b"anew")
        scene.storage.store.set(b"00", b"anew")  # one that is judged already, so that the batch finds too little
        scene.recency.touch(b"00")

    scene.storage.engine.before("get", lambda: scene.storage.engine.after("get", rewrite))
    assert scene.run(300).freed == 300
    assert {b"00", b"03"} < set(scene.left)
    assert len(scene.left) == 17


# The oldest.


def _dated(scene: Scene) -> Scene:
    """The same, with a store whose writes are recorded."""
    dated = DatedEngine(scene.storage.engine, scene.ages)
    dated.record(True)
    scene.storage.engine = dated  # type: ignore[assignment]
    scene.storage.restart()
    scene.storage.engine = dated._engine  # type: ignore[assignment]
    return scene


def test_oldest_goes_by_the_last_write(scene: Scene) -> None:
    """The keys written last stay, whatever was read and whatever their order; a rewritten key is young again.

    Within the last round, of about a sixteenth, and where two keys share a place, the order is any.
    """
    _dated(scene)
    keys = [b"%02d" % (7 * n % 32) for n in range(32)]
    for key in keys:
        scene.put(key)
    scene.put(keys[0], keys[5])
    for key in keys:
        scene.recency.touch(key)
    order = [key for key in keys if key not in (keys[0], keys[5])] + [keys[0], keys[5]]
    assert scene.run(1600, size=3, policy="oldest").freed == 1600
    assert len(scene.left) == 16
    assert set(order[20:]) < set(scene.left) < set(order[12:])
    scene.run(0)
    assert scene.run(1100, size=3, policy="oldest").freed == 1100
    assert {keys[0], keys[5]} < set(scene.left)
    assert {batch.reason for batch in scene.batches} == {"oldest"}


def test_oldest_takes_what_it_does_not_know_first(scene: Scene) -> None:
    """Keys from before the recording are older than all others."""
    scene.put(b"m", b"n")
    _dated(scene)
    scene.put(b"a", b"z")
    assert scene.run(200, size=10, policy="oldest").freed == 200
    assert scene.left == [b"a", b"z"]


def test_oldest_may_take_everything(scene: Scene) -> None:
    """It ends with an empty store, and comes again when there are new keys."""
    _dated(scene)
    scene.put(*(b"%02d" % n for n in range(20)))
    assert scene.run(5000, size=3, policy="oldest") == Eviction(5000, 2000, False)
    scene.run(0)
    scene.put(b"new")
    assert scene.run(5000, size=3, policy="oldest") == Eviction(5000, 100, False)
    assert scene.left == []


# The dry run.


@repeatable
@given(
    st.sampled_from(["lru", "ttl", "oldest", "none"]),
    st.integers(0, 1500),
    st.integers(1, 7),
    st.sets(st.integers(0, 9)),
    st.integers(0, 4),
)
def test_plan_is_what_a_run_does(policy: str, needed: int, size: int, used: set[int], expired: int) -> None:
    """The same keys and bytes by reason; the plan itself changes nothing, however often it is made."""
    scene = _dated(Scene())
    scene.put(*(b"%02d" % n for n in range(expired)), ttl=1)
    scene.put(*(b"%02d" % n for n in range(expired, 7)), ttl=100)
    scene.put(*(b"%02d" % n for n in range(7, 10)))
    for n in used:
        scene.recency.touch(b"%02d" % n)
    scene.storage.time.advance(1000)
    before = (scene.storage.data(), len(scene.storage.engine.called("write")))
    rules, disk = EvictionRules(80, size, policy), _disk(_needing(needed))
    plan = scene.evictor.plan([disk], rules)
    assert scene.evictor.plan([disk], rules) == plan
    assert (scene.storage.data(), len(scene.storage.engine.called("write"))) == before
    assert scene.storage.engine.called("compact") == scene.batches == []
    scene.evictor.run(disk, rules)
    done: dict[str, tuple[int, int]] = {}
    for batch in scene.batches:
        keys, freed = done.get(batch.reason, (0, 0))
        done[batch.reason] = (keys + batch.keys, freed + batch.freed)
    assert {reason: victims for reason, victims in plan.victims.items() if victims[0]} == done
    assert (plan.threshold, plan.policy, plan.needed, plan.futile) == (80, policy, needed, False)


def test_plan_passes_over_the_expired() -> None:
    """They are named first, and do not count a second time when the policy comes past them."""
    scene = Scene()
    scene.put(*(b"%02d" % n for n in range(4)), ttl=1)
    scene.put(*(b"%02d" % n for n in range(4, 10)))
    scene.storage.time.advance(1000)
    plan = scene.evictor.plan([_disk(_needing(701))], EvictionRules(80, 7, "lru"))
    assert plan.victims == {"expired": (4, 400), "lru": (4, 400)}


def test_plan_that_is_futile(scene: Scene) -> None:
    """It says so, and names no victim."""
    scene.put(b"a")
    usage = DiskUsage(900_000, 100_000)
    plan = scene.evictor.plan([_disk(usage, own_bytes=100)], EvictionRules(80, 10, "lru"))
    assert plan == Plan(90.0, 80, "lru", 100_001, 100, True, {})


def test_plan_is_of_the_disk_that_needs_it_most(scene: Scene) -> None:
    """And when none does, of the fuller one."""
    scene.put(b"a")
    fine = _disk(DiskUsage(500_000, 500_000), own_bytes=1)
    rules = EvictionRules(80, 10, "lru")
    assert scene.evictor.plan([fine, _disk(_needing(50), own_bytes=50)], rules).victims == {"lru": (1, 100)}
    emptier = _disk(DiskUsage(400_000, 600_000), own_bytes=2)
    assert scene.evictor.plan([emptier, fine], rules) == Plan(50.0, 80, "lru", 0, 1, False, {})


def test_plan_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting ends after so many keys."""
    monkeypatch.setattr(eviction, "PLAN_KEYS", 7)
    scene.put(*(b"%02d" % n for n in range(20)))
    plan = scene.evictor.plan([_disk(_needing(10_000))], EvictionRules(80, 5, "lru"))
    assert plan.victims == {"lru": (10, 1000)}
