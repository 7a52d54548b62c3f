"""The dry run of eviction: what a run would do, and nothing is done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.maintenance import eviction
from kvtwisted.backends.local.maintenance.eviction import EvictionRules
from kvtwisted.commands.administration import Plan
from kvtwisted.core.disk import DiskUsage

from ....support.properties import repeatable
from .evictions import Scene, dated, needing, seen_disk


@pytest.fixture
def scene() -> Scene:
    """An empty store with an evictor."""
    return Scene()


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
    scene = dated(Scene())
    scene.put(*(b"%02d" % n for n in range(expired)), ttl=1)
    scene.put(*(b"%02d" % n for n in range(expired, 7)), ttl=100)
    scene.put(*(b"%02d" % n for n in range(7, 10)))
    for n in used:
        scene.recency.touch(b"%02d" % n)
    scene.storage.time.advance(1000)
    before = (scene.storage.data(), len(scene.storage.engine.called("write")))
    rules, disk = EvictionRules(80, size, policy), seen_disk(needing(needed))
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
    plan = scene.evictor.plan([seen_disk(needing(701))], EvictionRules(80, 7, "lru"))
    assert plan.victims == {"expired": (4, 400), "lru": (4, 400)}


def test_plan_that_is_futile(scene: Scene) -> None:
    """It says so, and names no victim."""
    scene.put(b"a")
    usage = DiskUsage(900_000, 100_000)
    plan = scene.evictor.plan([seen_disk(usage, own_bytes=100)], EvictionRules(80, 10, "lru"))
    assert plan == Plan(90.0, 80, "lru", 100_001, 100, True, {})


def test_plan_is_of_the_disk_that_needs_it_most(scene: Scene) -> None:
    """And when none does, of the fuller one."""
    scene.put(b"a")
    fine = seen_disk(DiskUsage(500_000, 500_000), own_bytes=1)
    rules = EvictionRules(80, 10, "lru")
    assert scene.evictor.plan([fine, seen_disk(needing(50), own_bytes=50)], rules).victims == {"lru": (1, 100)}
    emptier = seen_disk(DiskUsage(400_000, 600_000), own_bytes=2)
    assert scene.evictor.plan([emptier, fine], rules) == Plan(50.0, 80, "lru", 0, 1, False, {})


def test_plan_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting ends after so many keys."""
    monkeypatch.setattr(eviction, "PLAN_KEYS", 7)
    scene.put(*(b"%02d" % n for n in range(20)))
    plan = scene.evictor.plan([seen_disk(needing(10_000))], EvictionRules(80, 5, "lru"))
    assert plan.victims == {"lru": (10, 1000)}
