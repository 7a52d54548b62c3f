"""Eviction: how much has to go when a disk fills up, and the deleting of it. Who goes is `victims`.

Note [Deleting is not freeing]: RocksDB gives space back when it flushes and compacts. So before anything is deleted it
flushes (its old log goes with that) and compacts where dead data alone may be enough, and the disk is measured again.
After a run the ranges that lost keys are compacted. Bytes that were deleted but are not free on the disk yet are
subtracted from what is needed at the next check.

Note [Two disks]: the value folder may be on a disk of its own. Each disk is handled by itself: on a disk with only
files, only keys with files are victims, and only files' bytes count; on a disk with only records, no file counts.

Note [Garbage before keys]: no key is chosen before all garbage is removed: orphaned files, what the memtables and the
log hold, entries of the expiry index that belong to no record, and what RocksDB has not compacted away. Space of the
server's that no key takes (Note [What deleting gives back]) is subtracted from what must be freed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Callable, NamedTuple

from ....commands.administration import Collected, Foreseen, Plan
from ....commands.watch import EventType
from ....core.clock import Clock
from ....core.disk import DiskUsage, blocks_of
from ....core.options import MIB
from .. import records
from ..commit_point import CommitPoint
from ..engines.engine import DATA, EXPIRY, FILES, CanCompact, Engine, Mutation, Statistics, statistics_of
from ..records import Pointer, Record
from ..write_sequence import WriteSequence
from . import expiry
from .holdings import Holdings
from .scrub import Scrub
from .victims import EXPIRED, MOST_RANGES, ORPHAN, Nomination, Nominator, Share, Touched, Victims, outside

#: After every key, since keys are UTF-8 text.
_AFTER_ALL = b"\xff"
#: Pairs that are taken at a time where all are looked at.
_TAKEN = 256
_ORPHANS_EVERY_MS = 60_000
#: Where a dry run ends: keys judged, and seconds.
PLAN_KEYS, PLAN_SECONDS = 100_000, 5.0
#: After a walk over the folders that took so many seconds or more, and showed that nothing can be done, this many times
#: as long without another.
_LONG_WALK, _REST = 0.05, 20


@dataclass(frozen=True)
class EvictionRules:
    """What the configuration says (`eviction.*`): percent of the disk, keys in a batch, the policy, and what the
    keys begin with that it may not take."""

    threshold: int
    batch_size: int
    policy: str
    protected: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Disk:
    """A file system that holds records, files of large values, or both.

    `name` is the configuration key of its folder. `holdings` walks the server's folders on it. `wanted_free` is how
    many bytes must be free for writes to be accepted again, 0 while they are. `held` tells whether a value's file is
    held by a backup too.
    """

    name: str
    measure: Callable[[], DiskUsage]
    holdings: Callable[[], Holdings]
    wanted_free: Callable[[], int] = lambda: 0
    held: Callable[[Pointer], bool] = lambda pointer: False
    records: bool = True
    files: bool = True

    def bytes_of(self, key: bytes, stored: bytes, record: Record, share: float = 1.0) -> int:
        """Bytes of this disk that come back when a key is deleted; files take whole blocks. `share` is
        `Holdings.share`.

        Nothing where a backup holds its file: what is left of it is not worth a large value.
        """
        taken = int((len(key) + len(stored)) * share) if self.records else 0
        if self.files and record.pointer:
            if self.held(record.pointer):
                return 0
            taken += blocks_of(record.pointer.length)
        return taken


class Batch(NamedTuple):
    """One batch of deletions: why, how many keys (or orphaned files), and their bytes on the disk that was too full."""

    reason: str
    keys: int
    freed: int


class Eviction(NamedTuple):
    """What a run did: bytes that had to go, bytes that went, and whether evicting could not have helped.

    `passing` is how many bytes of the disk are the server's but do not come back with keys, when no key went for that.
    `scrubbing` says that no key was deleted because so much of the expiry index is still found to be garbage.
    """

    needed: int
    freed: int
    futile: bool
    passing: int = 0
    scrubbing: bool = False

    @property
    def is_passing(self) -> bool:
        """Whether what is too much goes by itself."""
        return bool(self.passing) and not self.futile


def bytes_over(usage: DiskUsage, threshold: int) -> int:
    """Bytes to free so that usage is back under `threshold` percent; 0 when it is under it now."""
    hundredths_over = 100 * usage.used - threshold * (usage.used + usage.free)
    return hundredths_over // 100 + 1 if usage.used and hundredths_over >= 0 else 0


def worth_compacting(figures: Statistics, needed: int) -> bool:
    """Whether the engine should compact everything before any key is deleted, by its `figures`: when the data that is
    dead is so much beside the living that rewriting those is worth it (half, or a tenth where that would do). That
    needs room for a while."""
    live = figures.live_bytes
    dead = (figures.file_bytes or 0) - live
    return dead > 0 and (dead >= live / 2 or dead >= max(needed, live / 10))


class Evictor:
    """Runs evictions. One thread at a time; blocks on storage. `on_batch` is told of each batch once it is deleted."""

    def __init__(
        self,
        engine: Engine,
        commits: CommitPoint,
        clock: Clock,
        used_lately: Callable[[bytes], bool],
        write_sequence: WriteSequence,
        on_batch: Callable[[Batch], None],
        *,
        scrub: Scrub | None = None,
        collect_orphans: Callable[[], Collected] = lambda: Collected(0, 0),
        seconds: Callable[[], float] = time.monotonic,
        shares: Callable[[], Collection[Share]] = tuple,
    ) -> None:
        """`used_lately` tells which keys the policy `lru` spares, `write_sequence` whom `oldest` takes first. `scrub`
        is that of the expiry sweep, which knows how far it is. `seconds` is a monotonic time. `shares` gives those that
        there are just now; a share stays the same object."""
        self._engine = engine
        self._commits = commits
        self._clock = clock
        self._on_batch = on_batch
        self._scrub = scrub or Scrub(engine, commits, clock)
        self._collect_orphans = collect_orphans
        self._seconds = seconds
        self._orphans_at_ms = 0
        self._nominators = {
            family: Nominator(partial(Victims, engine, used_lately, write_sequence, family), shares)
            for family in (DATA, FILES)
        }
        # By disk: bytes in use after the last run, and those of what it deleted that were still to come back.
        self._returning: dict[str, tuple[int, int]] = {}
        # By disk: the last run that was futile, and until when it stands for others.
        self._futile: dict[str, tuple[Eviction, float]] = {}

    def run(self, disk: Disk, rules: EvictionRules) -> Eviction:
        """Evict until the projected use is under the threshold, or the policy has no more to offer.

        Call it at every look at the disk, full or not: it remembers what it deleted until the next look. When what
        would come back (asked for only when some has to go) could not bring the disk back under the threshold, nothing
        is destroyed. See Note [Garbage before keys]. Raises StorageError and OSError; what was deleted by then stays
        deleted.
        """
        usage = disk.measure()
        returning = self._still_returning(disk, usage)
        needed = max(0, _bytes_needed(disk, usage, rules) - returning)
        self._returning[disk.name] = (usage.used, 0)
        if needed == 0:
            return Eviction(0, 0, False)
        orphans = self._drop_orphans(disk)
        needed -= orphans
        if needed <= 0:
            return Eviction(needed + orphans, orphans, False)
        usage = DiskUsage(usage.used - orphans, usage.free + orphans)
        futile, until = self._futile.get(disk.name, (Eviction(0, 0, True), 0.0))
        began = self._seconds()
        # Unless writes are refused: then each look may be the one that helps.
        if began < until and needed >= futile.needed and not disk.wanted_free():
            return Eviction(needed + orphans, orphans, True, futile.passing)
        held = self._holdings(disk, rules, needed)
        if needed <= held.apart or held.returnable + held.log < needed - held.apart:
            # What frees itself needs no warning.
            found = Eviction(needed + orphans, orphans, needed > held.passing, held.apart + held.held)
            took = self._seconds() - began
            # What passes may have passed by the next look.
            lasting = took >= _LONG_WALK and held.returnable + held.log + held.apart < needed
            self._futile[disk.name] = (found, began + _REST * took if lasting else 0.0)
            return found
        if disk.records:
            if self._scrub.before_eviction():
                return Eviction(needed + orphans, orphans, False, scrubbing=True)
            usage, needed = self._settle(disk, usage, rules, needed, returning, held)
        return self._evict_beside(disk, rules, usage, needed, orphans)

    def collect_garbage(self, disk: Disk) -> None:
        """Give back what can be given back without deleting a key, at any price in time. Raises as `run` does."""
        self._drop_orphans(disk)
        if disk.records:
            self._scrub.before_eviction()
            if disk.holdings().share == 1:  # else what is compacted would come on top of what a backup holds
                self.reclaim()

    def reclaim(self) -> None:
        """Let RocksDB give back the space of everything that was deleted or overwritten, at any price in time.

        A piece at a time, since each needs room for what it writes until it is done.
        """
        piece = max(MIB, (statistics_of(self._engine).file_bytes or 0) / MOST_RANGES)
        for family in (EXPIRY, FILES, DATA):
            bounds, size = [b""], 0
            scan = self._engine.scan(b"", None, family)
            for key, stored in chain.from_iterable(iter(partial(scan.take, _TAKEN), [])):
                size += len(key) + len(stored)
                if size >= piece:
                    bounds.append(key)
                    size = 0
            # No scan is open any more: it would keep what is compacted.
            for low, high in zip(bounds, [*bounds[1:], _AFTER_ALL]):
                self._compact(low, high, family)

    def plan(self, disks: Iterable[Disk], rules: EvictionRules) -> Plan:
        """What `run` would do, without doing it. Counting ends after PLAN_KEYS keys or PLAN_SECONDS.

        Any thread, also while a run is under way.
        """
        usage, disk, needed = max(
            ((usage, disk, _bytes_needed(disk, usage, rules)) for disk in disks for usage in (disk.measure(),)),
            key=lambda candidate: (candidate[2], candidate[0].percent),
        )
        held = self._holdings(disk, rules, needed)
        needed = max(0, needed - held.apart)
        futile = held.returnable < needed
        victims: dict[str, Foreseen] = {}
        if needed and not futile:
            for batch in self._foreseen(disk, rules, needed, held.share):
                keys, freed = victims.get(batch.reason, (0, 0))
                victims[batch.reason] = Foreseen(keys + batch.keys, freed + batch.freed)
        return Plan(usage.percent, rules.threshold, rules.policy, needed, held.returnable, futile, victims)

    def _holdings(self, disk: Disk, rules: EvictionRules, needed: int) -> Holdings:
        """What is there now. Only what is not protected is returnable: its bytes are counted, up to those needed."""
        held = disk.holdings()
        if rules.protected:
            unprotected = 0
            for start, end in outside(rules.protected):
                scan = self._engine.scan(start, end, DATA)
                while unprotected < needed and (pairs := scan.take(_TAKEN)):
                    for key, stored in pairs:
                        unprotected += disk.bytes_of(key, stored, _record(stored), held.share)
            held.returnable = min(held.returnable, unprotected)
        return held

    def _still_returning(self, disk: Disk, usage: DiskUsage) -> int:
        used, outstanding = self._returning.get(disk.name, (0, 0))
        return max(0, outstanding - max(0, used - usage.used))

    def _settle(
        self, disk: Disk, before: DiskUsage, rules: EvictionRules, needed: int, returning: int, held: Holdings
    ) -> tuple[DiskUsage, int]:
        """Take back what is dead already; gives use and need as they are then. See Note [Deleting is not freeing]."""
        # Of tables that a backup holds nothing comes back, and what is written in their stead comes on top.
        if held.share == 1 and worth_compacting(statistics_of(self._engine), needed):
            self.reclaim()
        else:
            self._compact(_AFTER_ALL, _AFTER_ALL + b"\0")  # nothing is there: it only flushes
        usage = disk.measure()
        returned = max(0, before.used - usage.used)
        return usage, max(0, _bytes_needed(disk, usage, rules) - max(0, returning - returned))

    def _evict_beside(self, disk: Disk, rules: EvictionRules, usage: DiskUsage, needed: int, orphans: int) -> Eviction:
        """Evict what has to go beside what passes by itself. The disk is measured before and after that is looked at,
        so that neither what came meanwhile counts, nor what went."""
        if needed:
            held = self._holdings(disk, rules, needed)
            apart = held.apart + held.log
            after = disk.measure()
            needed = min(needed, max(0, needed - (usage.used - after.used)))
            beside = max(0, needed - apart)
            if needed and (not beside or held.returnable < beside):
                futile = needed > held.passing + held.log
                return Eviction(needed + orphans, orphans, futile, apart + held.held)
            if beside:
                freed = self._evict(disk, rules, after, beside, held.share)
                return Eviction(beside + orphans, freed + orphans, False)
        return Eviction(orphans, orphans, False)

    def _evict(self, disk: Disk, rules: EvictionRules, before: DiskUsage, needed: int, share: float) -> int:
        freed = 0
        touched = Touched()
        try:
            nominator, now = self._nominator(disk), self._clock.now_ms()
            for nomination in nominator.nominations(rules.policy, now, rules.batch_size, rules.protected, dry=False):
                left = dict(nomination.keys)
                while left and freed < needed:
                    batch, keys = self._delete(disk, nomination, left, needed - freed, share)
                    if keys:
                        freed += batch.freed
                        touched.add(keys)
                        self._on_batch(batch)
                if freed >= needed:
                    break
            for low, high in touched.ranges() if disk.records else ():
                self._compact(low, high + b"\0")
        finally:
            after = disk.measure()
            self._returning[disk.name] = (after.used, max(0, freed - max(0, before.used - after.used)))
        return freed

    def _compact(self, low: bytes, high: bytes, family: str = DATA) -> None:
        """Where nothing is compacted, deleting alone gives back the space."""
        if isinstance(self._engine, CanCompact):
            self._engine.compact(low, high, family)

    def _drop_orphans(self, disk: Disk) -> int:
        now = self._clock.now_ms()
        if not disk.files or now < self._orphans_at_ms:
            return 0
        self._orphans_at_ms = now + _ORPHANS_EVERY_MS
        orphans = self._collect_orphans()
        if orphans.files:
            self._on_batch(Batch(ORPHAN, orphans.files, orphans.bytes))
        return orphans.bytes

    def _nominator(self, disk: Disk) -> Nominator:
        return self._nominators[DATA if disk.records else FILES]

    def _delete(
        self, disk: Disk, nomination: Nomination, left: dict[bytes, int | None], needed: int, share: float
    ) -> tuple[Batch, list[bytes]]:
        """Delete as many as are needed of those `left`, unless rewritten meanwhile; `left` loses the judged."""
        with self._commits.guards.keys(left) as guard:
            sizes: dict[bytes, int] = {}
            unindex: dict[bytes, list[Mutation]] = {}
            for key, size, expires_at_ms in self._judged(disk, left, needed, share, nomination.chosen):
                sizes[key] = size
                unindex[key] = [(EXPIRY, records.index_key(expires_at_ms, key), None)] if expires_at_ms else []
                if nomination.reason == EXPIRED:
                    self._clock.mark(expires_at_ms)
            why = EventType.EXPIRE if nomination.reason == EXPIRED else EventType.EVICT
            deleted = self._commits.delete_guarded(guard, unindex, why=why)
        gone = {key: sizes[key] for key in deleted}
        self._nominator(disk).deleted(gone)
        return Batch(nomination.reason, len(gone), sum(gone.values())), deleted

    def _judged(
        self,
        disk: Disk,
        left: dict[bytes, int | None],
        needed: int,
        share: float,
        chosen: Callable[[bytes], bool],
        alive_at_ms: int = 0,
    ) -> Iterator[tuple[bytes, int, int]]:
        """Those that have something on the disk and live at that time, until it is enough: key, bytes, deadline."""
        found = 0
        for key, deadline in list(left.items()):
            if found >= needed:
                return
            del left[key]
            stored = self._engine.get(key) if chosen(key) else None
            if stored is None:
                continue
            record = _record(stored)
            size = disk.bytes_of(key, stored, record, share)
            if expiry.is_expired(record.expires_at_ms, alive_at_ms):
                continue
            if size and (deadline is None or record.expires_at_ms == deadline):
                yield key, size, record.expires_at_ms
                found += size

    def _foreseen(self, disk: Disk, rules: EvictionRules, needed: int, share: float) -> Iterator[Batch]:
        now, until, judged = self._clock.now_ms(), self._seconds() + PLAN_SECONDS, 0
        nominator = self._nominator(disk)
        for nomination in nominator.nominations(rules.policy, now, rules.batch_size, rules.protected, dry=True):
            judged += len(nomination.keys)
            # The expired ones have been named already.
            alive_at_ms = 0 if nomination.reason == EXPIRED else now
            foreseen = self._judged(disk, dict(nomination.keys), needed, share, nomination.chosen, alive_at_ms)
            sizes = [size for _, size, _ in foreseen]
            yield Batch(nomination.reason, len(sizes), sum(sizes))
            needed -= sum(sizes)
            if needed <= 0 or judged >= PLAN_KEYS or self._seconds() > until:
                return


def _record(stored: bytes) -> Record:
    """What cannot be read may be evicted too."""
    return records.readable(stored) or Record(stored, 0)


def _bytes_needed(disk: Disk, usage: DiskUsage, rules: EvictionRules) -> int:
    wanted = disk.wanted_free()
    return max(bytes_over(usage, rules.threshold), wanted - usage.free if wanted else 0)
