"""Keys under protected prefixes go only once they have expired."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.maintenance.eviction import EvictionRules
from kvtwisted.backends.local.maintenance.holdings import Holdings
from kvtwisted.backends.local.maintenance.victims import outside

from ....support.properties import repeatable
from .evictions import PLENTY, Scene, dated, needing, seen_disk

LOCKS, CONFIG = b"l/", b"c/"


@pytest.fixture
def scene() -> Scene:
    """A store with 4 protected keys and 6 others, of 100 bytes each."""
    scene = dated(Scene())
    scene.put(*(b"l/%d" % n for n in range(2)), ttl=100)
    scene.put(*(b"c/%d" % n for n in range(2)))
    scene.put(*(b"a%d" % n for n in range(3)), *(b"z%d" % n for n in range(3)), ttl=100)
    return scene


def rules(policy: str, *protected: bytes, size: int = 4) -> EvictionRules:
    """So."""
    return EvictionRules(80, size, policy, protected)


@pytest.mark.parametrize("policy", ["lru", "oldest", "ttl"])
def test_no_policy_takes_them(scene: Scene, policy: str) -> None:
    """However much has to go: all others go, and the protected stay. The dry run names the same."""
    disk = seen_disk(needing(600))
    chosen = rules(policy, LOCKS, CONFIG)
    assert scene.evictor.plan([disk], chosen).victims == {policy: (6, 600)}
    done = scene.evictor.run(disk, chosen)
    assert (done.needed, done.freed) == (600, 600)
    assert scene.left == [b"c/0", b"c/1", b"l/0", b"l/1"]


@pytest.mark.parametrize("policy", ["lru", "oldest", "ttl"])
def test_others_are_not_destroyed_in_vain(scene: Scene, policy: str) -> None:
    """What is protected does not count as what could come back, so that there is too little: nothing goes."""
    disk = seen_disk(needing(601), held=Holdings(1000))
    assert scene.evictor.plan([disk], rules(policy, LOCKS, CONFIG)).futile
    assert scene.evictor.run(disk, rules(policy, LOCKS, CONFIG)).futile
    assert len(scene.left) == 10
    assert not scene.evictor.run(seen_disk(needing(602), own_bytes=PLENTY), rules(policy, LOCKS)).futile


def test_what_has_expired_goes(scene: Scene) -> None:
    """Protected or not."""
    scene.storage.time.advance(100_000)
    scene.evictor.run(seen_disk(needing(100)), rules("lru", LOCKS, CONFIG))
    assert len(scene.left) == 9
    assert {b"c/0", b"c/1"} < set(scene.left)


def test_it_holds_from_the_next_run_on(scene: Scene) -> None:
    """The rules are those of the run, whichever the last one had."""
    disk = seen_disk(needing(200))
    scene.evictor.run(disk, rules("lru", b"a"))
    assert scene.left[:3] == [b"a0", b"a1", b"a2"]
    scene.evictor._returning.clear()
    scene.evictor.run(seen_disk(needing(800)), rules("lru"))
    assert scene.left == []


@repeatable
@given(st.sets(st.binary(min_size=1, max_size=3), max_size=6), st.binary(max_size=4))
def test_outside(prefixes: set[bytes], key: bytes) -> None:
    """The ranges hold exactly the keys that begin with none of the prefixes, each once."""
    ranges = list(outside(prefixes))
    found = [start <= key and (end is None or key < end) for start, end in ranges]
    assert found.count(True) == (not key.startswith(tuple(prefixes)))
    assert all(end is not None and start < end for start, end in ranges[:-1])
