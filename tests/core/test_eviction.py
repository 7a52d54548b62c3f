"""Eviction: how much has to go, which keys go, and what is left alone."""

from __future__ import annotations

from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.core.disk import DiskUsage
from kvtwisted.core.engine import DATA
from kvtwisted.core.errors import StorageError, WriteStalled
from kvtwisted.core.eviction import Batch, Eviction, EvictionRules, Evictor, bytes_over
from kvtwisted.core.recency import Recency

from ..support.clocks import START_MS
from ..support.properties import repeatable
from ..support.storage import Storage

_DISK = 1_000_000
_PLENTY = 1 << 40


def _needing(needed: int) -> DiskUsage:
    """A disk from which `needed` bytes must go to be under 80 %."""
    used = _DISK * 80 // 100 + needed - 1
    return DiskUsage(used, _DISK - used)


class Scene:
    """Evictions on a full disk: an evictor over a store of records of 100 bytes each (key and value)."""

    def __init__(self, storage: Storage | None = None) -> None:
        self.storage = storage or Storage()
        self.recency = Recency()
        self.batches: list[Batch] = []
        self.evictor = self.evictor_reporting_to(self.batches.append)

    def evictor_reporting_to(self, report: Callable[[Batch], None]) -> Evictor:
        """A new evictor over the same store."""
        return Evictor(self.storage.engine, self.storage.writer, self.storage.sweeper, self.recency, report)

    def put(self, *keys: bytes, ttl: int = 0) -> None:
        """Store keys in records that, with the key, have 100 bytes."""
        envelope = 11 if ttl else 0
        self.storage.store.mset({key: b"v" * (100 - len(key) - envelope) for key in keys}, ttl)

    def run(self, needed: int, *, own_bytes: int = _PLENTY, size: int = 10, policy: str = "lru") -> Eviction:
        """One run on a disk from which `needed` bytes must go."""
        return self.evictor.run(_needing(needed), lambda: own_bytes, EvictionRules(80, size, policy))

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
    evictor.run(_needing(950), lambda: _PLENTY, EvictionRules(80, 4, policy))
    assert seen == [(4, 6), (4, 2), (2, 0)]


@repeatable
@given(st.integers(1, 2100), st.integers(1, 25), st.sampled_from(["lru", "ttl"]), st.sets(st.integers(0, 19)))
def test_run_stops_at_the_projected_use(needed: int, size: int, policy: str, used: set[int]) -> None:
    """It stops with the first batch that is enough, so that less than one batch goes beyond need."""
    scene = Scene()
    scene.put(*(b"%02d" % n for n in range(20)), ttl=100)
    for n in used:
        scene.recency.touch(b"%02d" % n)
    eviction = scene.run(needed, size=size, policy=policy)
    assert eviction.freed == sum(batch.freed for batch in scene.batches) == 2000 - 100 * len(scene.left)
    assert eviction.freed >= min(needed, 2000)
    assert eviction.freed - scene.batches[-1].freed < needed
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
    assert scene.run(500) == Eviction(500, 1000, False)
    assert scene.run(700) == Eviction(0, 0, False)
    assert len(scene.left) == 10


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
        evictor.run(_needing(600), lambda: _PLENTY, rules)
    assert reported == [Batch("lru", 3, 300)]
    assert len(scene.left) == 7
    # 100 of the 300 bytes are back.
    assert evictor.run(_needing(500), lambda: _PLENTY, rules) == Eviction(300, 300, False)
    assert len(scene.left) == 4


# What else.


def test_touched_range_is_compacted(scene: Scene) -> None:
    """One compaction at the end, from the first to the last key that went."""
    scene.put(b"a", b"d", b"m", b"z")
    for key in (b"a", b"z"):
        scene.recency.touch(key)
    scene.run(200, size=1)
    assert scene.left == [b"a", b"z"]
    assert scene.storage.engine.called("compact") == [(b"d", b"m\0")]
    assert scene.storage.engine.calls[-2].method == "compact"


def test_touched_range_of_keys_in_any_order(scene: Scene) -> None:
    """The range spans all batches, also when later ones hold smaller keys."""
    for key, ttl in ((b"m", 10), (b"x", 20), (b"c", 30), (b"p", 40)):
        scene.put(key, ttl=ttl)
    scene.run(300, size=1, policy="ttl")
    assert scene.left == [b"p"]
    assert scene.storage.engine.called("compact") == [(b"c", b"x\0")]


def test_nothing_deleted_nothing_compacted(scene: Scene) -> None:
    """A run that finds nothing leaves RocksDB alone."""
    scene.put(b"a")
    assert scene.run(100, policy="none") == Eviction(100, 0, False)
    assert scene.storage.engine.called("compact") == []


def test_failed_compaction_is_raised(scene: Scene) -> None:
    """The keys are gone all the same."""
    scene.put(b"a")
    scene.storage.engine.fail("compact", StorageError("compaction broke"))
    with pytest.raises(StorageError, match="compaction broke"):
        scene.run(100)
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
