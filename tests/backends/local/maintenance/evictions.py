"""A full disk and an evictor, for the tests of eviction."""

from __future__ import annotations

from typing import Callable

from kvtwisted.backends.local.maintenance.eviction import Batch, Disk, Eviction, EvictionRules, Evictor
from kvtwisted.backends.local.maintenance.holdings import Holdings
from kvtwisted.backends.local.recency import Recency
from kvtwisted.backends.local.write_sequence import WriteSequence
from kvtwisted.commands.administration import Collected
from kvtwisted.core.disk import DiskUsage

from ....support.storage import Storage

DISK = 1_000_000
PLENTY = 1 << 40
#: The compaction of nothing before anything is deleted, which flushes.
FLUSH = (b"\xff", b"\xff\0")


def needing(needed: int) -> DiskUsage:
    """A disk from which `needed` bytes must go to be under 80 %."""
    used = DISK * 80 // 100 + needed - 1
    return DiskUsage(used, DISK - used)


def seen_disk(
    *looks: DiskUsage, own_bytes: int = PLENTY, held: Holdings | None = None, wanted_free: int = 0, **holds: bool
) -> Disk:
    """A disk that is seen as `looks` tell, one after the other and the last one from then on, with `own_bytes` that
    would come back, or what `held` says."""
    left = list(looks)
    return Disk(
        "rocksdb.path",
        measure=lambda: left.pop(0) if len(left) > 1 else left[0],
        holdings=lambda: held or Holdings(own_bytes),
        wanted_free=lambda: wanted_free,
        **holds,
    )


class Scene:
    """Evictions on a full disk: an evictor over a store of records of 100 bytes each (key and value)."""

    def __init__(self, storage: Storage | None = None) -> None:
        self.storage = storage or Storage()
        self.recency = Recency()
        self.write_sequence = WriteSequence(1 << 16)
        self.orphans = [Collected(0, 0)]
        self.batches: list[Batch] = []
        self.evictor = self.evictor_reporting_to(self.batches.append)

    def evictor_reporting_to(self, report: Callable[[Batch], None]) -> Evictor:
        """A new evictor over the same store; it collects each of `orphans` in turn, the last one again and again."""
        return Evictor(
            self.storage.engine,
            self.storage.writer.commits,
            self.storage.clock,
            self.recency.__contains__,
            self.write_sequence,
            report,
            collect_orphans=lambda: self.orphans.pop(0) if len(self.orphans) > 1 else self.orphans[0],
        )

    def put(self, *keys: bytes, ttl: int = 0) -> None:
        """Store keys in records that, with the key, have 100 bytes."""
        envelope = 11 if ttl else 0
        self.storage.store.mset({key: b"v" * (100 - len(key) - envelope) for key in keys}, ttl)

    def run(self, needed: int, *, own_bytes: int = PLENTY, size: int = 10, policy: str = "lru") -> Eviction:
        """One run on a disk from which `needed` bytes must go."""
        return self.evictor.run(seen_disk(needing(needed), own_bytes=own_bytes), EvictionRules(80, size, policy))

    @property
    def left(self) -> list[bytes]:
        """The keys that are left."""
        return sorted(self.storage.data())


def dated(scene: Scene) -> Scene:
    """The same, with a store whose writes are recorded."""
    scene.write_sequence.record(True)
    scene.storage.writer.commits.write_sequence = scene.write_sequence
    return scene
