"""Eviction: which keys go, and how many, when the disk fills up.

The rules are functions of what was measured; `Evictor` applies them in batches. Deleting is not freeing in RocksDB, so
the key range that lost keys is compacted at the end of a run, and what the last run deleted but the disk does not show
yet is subtracted from what is still needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Callable, NamedTuple

from . import records
from .disk import DiskUsage
from .engine import DATA, EXPIRY, Engine, Mutation
from .errors import Corruption
from .expiry import Sweeper
from .recency import Recency
from .records import Record
from .writer import Writer

#: Reasons, as the metrics name them.
EXPIRED, LRU, TTL = "expired", "lru", "ttl"


@dataclass(frozen=True)
class EvictionRules:
    """What the configuration says (`eviction.*`): percent of the disk, keys in a batch, and the policy's word."""

    threshold: int
    batch_size: int
    policy: str


class Batch(NamedTuple):
    """One batch of deletions: why, how many keys, and the bytes of their keys and records."""

    reason: str
    keys: int
    freed: int


class Eviction(NamedTuple):
    """What a run did: bytes that had to go, bytes that went, and whether evicting could not have helped."""

    needed: int
    freed: int
    futile: bool


def bytes_over(usage: DiskUsage, threshold: int) -> int:
    """Bytes to free so that usage is back under `threshold` percent; 0 when it is under it now."""
    hundredths_over = 100 * usage.used - threshold * (usage.used + usage.free)
    return hundredths_over // 100 + 1 if usage.used and hundredths_over >= 0 else 0


class Evictor:
    """Runs evictions. One thread at a time; blocks on storage.

    `on_batch` is told of each batch as soon as it is deleted. The clock hand goes round the key space and passes over
    keys used lately, so that LRU is approximate but needs no record of every key (Redis samples for the same reason).
    """

    def __init__(
        self, engine: Engine, writer: Writer, sweeper: Sweeper, recency: Recency, on_batch: Callable[[Batch], None]
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._sweeper = sweeper
        self._recency = recency
        self._on_batch = on_batch
        self._hand = b""
        self._last: tuple[DiskUsage, int] | None = None

    def run(self, usage: DiskUsage, own_bytes: Callable[[], int], rules: EvictionRules) -> Eviction:
        """Evict until the projected use is under the threshold, or the policy has no more to offer.

        Call it at every look at the disk, full or not: it remembers what it deleted until the next look. When the
        store's `own_bytes` (asked for only then) could not bring the disk back under the threshold, nothing is
        destroyed. Raises StorageError; what was deleted by then stays deleted.
        """
        needed = max(0, bytes_over(usage, rules.threshold) - self._returning(usage))
        self._last = (usage, 0)
        if needed == 0:
            return Eviction(0, 0, False)
        if own_bytes() < needed:
            return Eviction(needed, 0, True)
        freed = 0
        touched: list[bytes] = []
        for batch, keys in self._batches(rules):
            freed += batch.freed
            self._last = (usage, freed)
            touched = [min(touched + keys), max(touched + keys)]
            self._on_batch(batch)
            if freed >= needed:
                break
        if touched:
            self._engine.compact(touched[0], touched[-1] + b"\0")
        return Eviction(needed, freed, False)

    def _returning(self, usage: DiskUsage) -> int:
        if self._last is None:
            return 0
        before, deleted = self._last
        return max(0, deleted - max(0, before.used - usage.used))

    def _batches(self, rules: EvictionRules) -> Iterator[tuple[Batch, list[bytes]]]:
        more = True
        while more:
            sweep = self._sweeper.sweep(rules.batch_size)
            more = sweep.more
            if sweep.deleted:
                yield Batch(EXPIRED, len(sweep.deleted), sweep.freed), sweep.deleted
        if rules.policy == TTL:
            yield from self._by_ttl(rules.batch_size)
        elif rules.policy == LRU:
            yield from self._by_hand(rules.batch_size, spare_recent=True)
            yield from self._by_hand(rules.batch_size, spare_recent=False)

    def _by_ttl(self, size: int) -> Iterator[tuple[Batch, list[bytes]]]:
        floor = b""
        while True:
            scan = self._engine.scan(floor, None, EXPIRY)
            entries = [records.split_index_key(entry) for entry, _ in islice(scan, size)]
            if not entries:
                return
            floor = records.index_key(*entries[-1]) + b"\0"
            yield from self._delete(TTL, {key: deadline for deadline, key in entries})

    def _by_hand(self, size: int, *, spare_recent: bool) -> Iterator[tuple[Batch, list[bytes]]]:
        """Once round the key space from where the hand stands."""
        start = self._hand
        for low, end in ((start, None), (b"", start)):
            self._hand = low
            while True:
                scan = self._engine.scan(self._hand, end, DATA)
                keys = [key for key, _ in islice(scan, size)]
                if not keys:
                    break
                self._hand = keys[-1] + b"\0"
                if spare_recent:
                    keys = [key for key in keys if key not in self._recency and key not in self._writer.cache.entries]
                yield from self._delete(LRU, dict.fromkeys(keys))

    def _delete(
        self, reason: str, nominated: dict[bytes, int] | dict[bytes, None]
    ) -> Iterator[tuple[Batch, list[bytes]]]:
        """Choose among `nominated` (key: the deadline its record must carry, or None) and delete what was chosen."""
        with self._writer.watching(nominated) as watch:
            sizes: dict[bytes, int] = {}
            unindex: dict[bytes, list[Mutation]] = {}
            for key, deadline in nominated.items():
                stored = self._engine.get(key)
                if stored is None:
                    continue
                record = _readable(stored)
                expires_at_ms = record.expires_at_ms
                if deadline is not None and expires_at_ms != deadline:
                    continue
                sizes[key] = records.stored_bytes(key, stored, record)
                unindex[key] = [(EXPIRY, records.index_key(expires_at_ms, key), None)] if expires_at_ms else []
            deleted = self._writer.delete_watched(watch, unindex)
        if deleted:
            yield Batch(reason, len(deleted), sum(sizes[key] for key in deleted)), deleted


def _readable(stored: bytes) -> Record:
    try:
        return records.decode(stored)
    except Corruption:
        return Record(stored, 0)  # a record nobody can read is as good a victim as any
