"""Eviction of files: orphans, and two disks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.backends.local.maintenance.eviction import Batch, Eviction, EvictionRules
from kvtwisted.commands.administration import Collected

from ....support.storage import Storage
from .evictions import Scene, needing, seen_disk


@pytest.fixture
def scene() -> Scene:
    """An empty store with an evictor."""
    return Scene()


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
    disk = seen_disk(needing(10_000), records=False)
    assert large.evictor.run(disk, EvictionRules(80, 1, "lru")) == Eviction(10_000, 16_384, False)
    assert large.batches == [Batch("lru", 1, 8192)] * 2
    assert large.left == [b"a", b"n", b"z"]
    assert large.storage.engine.called("compact") == []


def test_files_free_nothing_on_the_disk_of_the_records(large: Scene) -> None:
    """There a key with a file counts its record alone."""
    large.storage.store.set(b"a", b"v" * 5000)
    large.put(b"b", b"c")
    disk = seen_disk(needing(200), files=False)
    assert large.evictor.run(disk, EvictionRules(80, 1, "lru")) == Eviction(200, 240, False)
    assert large.batches == [Batch("lru", 1, 40), Batch("lru", 1, 100), Batch("lru", 1, 100)]


@pytest.mark.parametrize("policy", ["ttl", "oldest"])
def test_other_policies_on_the_disk_of_the_files(large: Scene, policy: str) -> None:
    """Keys without files are passed over by every policy."""
    large.put(b"a", b"b", ttl=10)
    large.storage.store.set(b"c", b"v" * 5000, 20)
    disk = seen_disk(needing(1), records=False)
    assert large.evictor.run(disk, EvictionRules(80, 10, policy)).freed == 8192
    assert large.left == [b"a", b"b"]


def test_expired_files_go_from_their_own_disk(large: Scene) -> None:
    """An expired key without a file is left to the sweeper there."""
    large.put(b"a", ttl=1)
    large.storage.store.set(b"b", b"v" * 5000, 2)
    large.storage.time.advance(2000)
    large.evictor.run(seen_disk(needing(1), records=False), EvictionRules(80, 10, "none"))
    assert large.batches == [Batch("expired", 1, 8192)]
    assert large.left == [b"a"]


def test_disks_are_remembered_apart(scene: Scene) -> None:
    """What is on its way back on one disk is not expected on another."""
    scene.put(*(b"%02d" % n for n in range(20)))
    assert scene.run(500).freed == 500
    other = replace(seen_disk(needing(500)), name="value.disk_path")
    assert scene.evictor.run(other, EvictionRules(80, 10, "lru")).freed == 500
