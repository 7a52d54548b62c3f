"""Eviction: how much has to go, which keys go, and what is left alone."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.engines.engine import DATA
from kvtwisted.backends.local.maintenance.eviction import Batch, Eviction, EvictionRules, bytes_over
from kvtwisted.core.disk import DiskUsage

from ....support.properties import repeatable
from ....support.storage import Storage
from .evictions import Scene, dated, needing, seen_disk


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
    evictor.run(seen_disk(needing(950)), EvictionRules(80, 4, policy))
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


# The oldest.


def test_oldest_goes_by_the_last_write(scene: Scene) -> None:
    """The keys written last stay, whatever was read and whatever their order; a rewritten key is young again.

    Within the last round, of about a sixteenth, and where two keys share a place, the order is any.
    """
    dated(scene)
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
    dated(scene)
    scene.put(b"a", b"z")
    assert scene.run(200, size=10, policy="oldest").freed == 200
    assert scene.left == [b"a", b"z"]


def test_oldest_may_take_everything(scene: Scene) -> None:
    """It ends with an empty store, and comes again when there are new keys."""
    dated(scene)
    scene.put(*(b"%02d" % n for n in range(20)))
    assert scene.run(5000, size=3, policy="oldest") == Eviction(5000, 2000, False)
    scene.run(0)
    scene.put(b"new")
    assert scene.run(5000, size=3, policy="oldest") == Eviction(5000, 100, False)
    assert scene.left == []


# Rewritten meanwhile.


@pytest.mark.parametrize("policy", ["lru", "oldest"])
def test_key_rewritten_before_it_is_guarded_stays(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its nomination and the guard for writes; another one goes in its place."""
    scene = dated(Scene())
    scene.evictor = scene.evictor_reporting_to(scene.batches.append)  # with the dated store's own writer
    scene.put(*(b"%02d" % n for n in range(64)))
    guards, guarding = scene.storage.writer.commits.guards, scene.storage.writer.commits.guards.keys
    late: list[bytes] = []

    def guarding_late(nominated: dict[bytes, None]) -> AbstractContextManager[set[bytes]]:
        if not late:
            late.append(next(iter(nominated)))
            scene.recency.touch(late[0])
            scene.storage.store.set(late[0], b"anew")
        return guarding(nominated)

    monkeypatch.setattr(guards, "keys", guarding_late)
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
