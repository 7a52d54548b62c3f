"""Eviction takes first from who has more than their share."""

from __future__ import annotations

import pytest

from kvtwisted.backends.local.engines.engine import DATA
from kvtwisted.backends.local.maintenance.eviction import EvictionRules
from kvtwisted.backends.local.maintenance.victims import LRU, OLDEST, TTL
from kvtwisted.sessions.quotas import Quota, Usage

from .evictions import Scene, dated, needing, seen_disk


class Shared(Scene):
    """A store whose keys, of 100 bytes each, are shared by principals with quotas."""

    def __init__(self) -> None:
        self.usages: list[Usage] = []
        super().__init__()
        self.evictor._nominators[DATA]._shares = lambda: self.usages

    def usage(self, quota: Quota, *prefixes: bytes) -> Usage:
        """One more with a quota, who has been counted."""
        usage = Usage("", quota, prefixes)
        self.usages.append(usage)
        self.count(usage)
        return usage

    def count(self, *usages: Usage) -> None:
        """Count what they have."""
        for usage in usages or self.usages:
            keys = [key for key, _ in self.storage.engine.scan(b"", None, DATA) if key.startswith(usage.prefixes)]
            usage.begin_count()
            usage.end_count(100 * len(keys), len(keys))

    def fill(self, prefix: bytes, count: int, *, ttl: int = 0) -> None:
        """So many keys."""
        for start in range(0, count, 500):
            self.put(*(b"%b%06d" % (prefix, number) for number in range(start, min(start + 500, count))), ttl=ttl)

    def evict(self, keys: int, *, policy: str = LRU) -> None:
        """So many must go, in batches of ten, on a disk that has given back all that was deleted before."""
        self.evictor._returning.clear()
        self.run(100 * keys, policy=policy)

    def kept(self, *prefixes: bytes) -> tuple[int, ...]:
        """How many keys there are under each."""
        return tuple(sum(key.startswith(prefix) for key in self.left) for prefix in prefixes)


@pytest.fixture
def scene() -> Shared:
    """An empty one."""
    return Shared()


@pytest.mark.parametrize("policy", [LRU, OLDEST, TTL])
def test_one_tenant_s_writes_do_not_evict_another_s_keys(scene: Shared, policy: str) -> None:
    """A has 4,000 keys, within its quota; B writes without end, over its own. A's stay while B's go."""
    dated(scene)
    scene.fill(b"a/", 4000, ttl=3600)
    scene.usage(Quota(500_000), b"a/")
    scene.fill(b"b/", 4000, ttl=60)
    b = scene.usage(Quota(300_000), b"b/")
    for turn in range(3):
        scene.fill(b"b/%d/" % turn, 1000, ttl=60)
        scene.count(b)
        assert b.fill > 1
        scene.evict(1000, policy=policy)
        assert scene.kept(b"a/") == (4000,)
    assert scene.kept(b"b/") == (4000,)
    assert b.size == 400_000


def test_in_which_order(scene: Shared) -> None:
    """Who exceeds a quota, until it is kept; what no quota covers; then who uses most of theirs, evenly."""
    for prefix in (b"a/", b"b/", b"c/", b"free/"):
        scene.fill(prefix, 100)
    scene.usage(Quota(20_000), b"a/")
    scene.usage(Quota(8_000), b"b/")
    scene.usage(Quota(0, 200), b"c/")
    prefixes = (b"a/", b"b/", b"c/", b"free/")
    scene.evict(20)
    assert scene.kept(*prefixes) == (100, 80, 100, 100)
    scene.evict(50)
    assert scene.kept(*prefixes) == (100, 80, 100, 50)
    scene.evict(50)
    assert scene.kept(*prefixes) == (100, 80, 100, 0)
    scene.evict(40)
    assert scene.kept(*prefixes) == (100, 40, 100, 0)
    scene.evict(120)
    a, b, c, _ = scene.kept(*prefixes)
    assert a + b + c == 120
    assert max(a / 200, b / 80, c / 200) - min(a / 200, b / 80, c / 200) <= 10 / 80
    scene.evict(120)
    assert scene.kept(*prefixes) == (0, 0, 0, 0)


def test_expired_keys_go_first(scene: Shared) -> None:
    """Whose they are does not matter."""
    scene.fill(b"a/", 10, ttl=1)
    scene.fill(b"b/", 10)
    a, b = scene.usage(Quota(2000), b"a/"), scene.usage(Quota(100), b"b/")
    scene.storage.time.advance(1000)
    scene.evict(10)
    assert scene.kept(b"a/", b"b/") == (0, 10)
    assert (a.keys, b.keys) == (0, 10)


def test_a_key_is_of_the_narrowest_share(scene: Shared) -> None:
    """Who may write everything, and has too much, does not cost a tenant its keys."""
    scene.fill(b"a/", 50)
    scene.fill(b"b/", 50)
    scene.usage(Quota(1000), b"")
    scene.usage(Quota(10_000), b"a/")
    scene.evict(50)
    assert scene.kept(b"a/", b"b/") == (50, 0)
    scene.evict(10)
    assert scene.kept(b"a/", b"b/") == (40, 0)


def test_who_used_a_key_lately_keeps_it(scene: Shared) -> None:
    """Within a share the policy decides, and the hand goes on where it stopped."""
    scene.fill(b"a/", 40)
    scene.usage(Quota(2000), b"a/")
    for number in range(10):
        scene.recency.touch(b"a/%06d" % number)
    scene.evict(10)
    assert scene.left[:10] == [b"a/%06d" % number for number in range(10)]
    assert scene.left[10] == b"a/000020"
    scene.evict(10)
    assert scene.left[10] == b"a/000030"


def test_a_dry_run_names_the_same(scene: Shared) -> None:
    """Keys and bytes, each once, and nothing is deleted."""
    for prefix in (b"a/", b"b/", b"free/"):
        scene.fill(prefix, 20)
    scene.usage(Quota(20_000), b"a/")
    scene.usage(Quota(800), b"b/")
    for needed, keys in ((1500, 15), (4500, 45), (6000, 60)):
        plan = scene.evictor.plan([seen_disk(needing(needed))], EvictionRules(80, 10, LRU))
        assert plan.victims == {LRU: (keys, 100 * keys)}
    assert len(scene.left) == 60
    scene.evict(12)
    assert scene.kept(b"a/", b"b/", b"free/") == (20, 8, 20)


def test_quotas_come_and_go(scene: Shared) -> None:
    """Without them the policy alone decides, also about what was in shares before."""
    dated(scene)
    scene.fill(b"a/", 20)
    scene.fill(b"b/", 20)
    scene.usage(Quota(5000), b"a/")
    scene.evict(15, policy=OLDEST)
    assert scene.kept(b"a/", b"b/") == (20, 5)
    scene.usages.clear()
    scene.evict(10, policy=OLDEST)
    assert scene.kept(b"a/", b"b/")[0] < 20
    scene.usage(Quota(5000), b"b/")
    scene.usages[0].quota = Quota(500_000)
    scene.evict(30, policy=OLDEST)
    assert not scene.left
