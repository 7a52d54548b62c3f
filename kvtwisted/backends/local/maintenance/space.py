"""The high-water mark: writes are refused before a disk is full, since RocksDB needs room even to delete.

Also how RocksDB's sizes are fitted to a small disk, so that each flush and compaction is a small piece of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable, NamedTuple

from ....core.disk import DiskUsage
from ....core.errors import NearlyFull
from ....core.options import GIB, KIB, MIB, EngineOptions

#: Bytes admitted between two looks at the disks, at most.
LONGEST_STEP = 8 * MIB
#: A write of more than 1 / this of the disk is refused alone when it does not fit.
_LARGE = 64
#: Seconds within which a write that was admitted reaches the disk, as a rule. What takes longer has the headroom.
_SPELL = 0.1
#: Inodes that must stay free, for what RocksDB writes: these, or 1 / that of all where there are few.
_INODES, _PART_OF_INODES = 1024, 20
#: Seconds after which a refusal looks at the disks again.
_STALE = 1.0

#: Below this compactions take turns: several at once would need more room than there is.
SMALL_DISK = 1 * GIB
#: Table files that RocksDB compacts at once, or little more, unless one file spans more keys than usual.
COMPACTION_FILES = 25
#: Sizes in `rocksdb.options`, the part of the disk that each may be at most (1 / this), and the least it is lowered to.
_FITTING = {
    "write_buffer_size": (128, 64 * KIB),
    "max_total_wal_size": (32, 256 * KIB),
    "target_file_size_base": (1024, 16 * KIB),
    "max_bytes_for_level_base": (32, 256 * KIB),
    "max_log_file_size": (512, 64 * KIB),
}


def fitted(options: EngineOptions, disk_total: int) -> EngineOptions:
    """The options with sizes that a disk of so many bytes can bear: each lowered where it is too large, none raised."""
    fitting: dict[str, Any] = {
        name: min(getattr(options, name), max(disk_total // parts, least)) for name, (parts, least) in _FITTING.items()
    }
    if disk_total < SMALL_DISK:
        fitting["max_background_jobs"] = min(options.max_background_jobs, 2)  # one flush and one compaction
    return replace(options, **fitting)


def lowered(options: EngineOptions, now: EngineOptions) -> dict[str, int]:
    """What `fitted` has lowered, by name."""
    names = (*_FITTING, "max_background_jobs")
    return {name: getattr(now, name) for name in names if getattr(now, name) != getattr(options, name)}


def spill_threshold(configured: int, disk_total: int) -> int:
    """Bytes from which a value gets a file of its own on such a disk: a table file should hold several values."""
    parts, least = _FITTING["target_file_size_base"]
    return min(configured, max(disk_total // parts, least))


def headroom(options: Mapping[str, Any], disk_total: int) -> int:
    """Bytes that RocksDB may need with the `options` in force to write down what it has accepted, and to compact it:
    the log's data once more as table files, level 0, the first level, and the files of a compaction further down. At
    most a quarter of the disk."""
    level0 = options["write_buffer_size"] * options["level0_file_num_compaction_trigger"]
    further = COMPACTION_FILES * options["target_file_size_base"]
    needed = options["max_total_wal_size"] + level0 + options["max_bytes_for_level_base"] + further
    return int(min(needed, disk_total // 4))


class GuardedDisk(NamedTuple):
    """A disk that is to stay below the mark: the configuration key of its folder, how to measure it (OSError when that
    is not possible), and the bytes of it that must stay free whatever the mark is."""

    name: str
    measure: Callable[[], DiskUsage]
    headroom: int


def least_free(usage: DiskUsage, mark: int, headroom: int) -> int:
    """Bytes that must stay free on a disk: what is above `mark` percent, or `headroom` where that is more."""
    return max(headroom, -(-usage.total * (100 - mark) // 100))


def least_inodes(usage: DiskUsage) -> int:
    """Inodes that must stay free on a disk; 0 where they are made as needed."""
    return min(_INODES, usage.inodes // _PART_OF_INODES)


class SpaceGuard:
    """Decides whether there is room to write. Safe from any thread.

    A refusal lasts until 1 % of the disk more than the least is free, so that it does not come and go with every write.
    """

    def __init__(
        self,
        disks: Sequence[GuardedDisk],
        mark: Callable[[], int],
        on_change: Callable[[str | None], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`mark` is percent. `on_change` is told of each change: why writes are refused now, or None. It is called on
        any thread, under the guard's lock, and must be quick."""
        #: As they were given.
        self.disks = disks
        self._mark = mark
        self._on_change = on_change
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # Bytes admitted since the last look; before it, since the present spell began; and in the spell before that.
        self._admitted = 0
        self._this_spell = self._last_spell = 0
        self._spell_began = 0.0
        self._step = 0
        self._looked_at = -_STALE
        self._wanted: dict[str, int] = {}
        self._few_inodes: set[str] = set()
        #: Why writes are refused now, or None.
        self.reason: str | None = None
        #: Writes refused since the start.
        self.refused = 0

    def admit(self, size: int) -> None:
        """A write of `size` bytes of keys and values is about to begin. Raises NearlyFull where there is no room.

        Cheap: the disks are looked at (a statvfs of each) only after some MiB, or less where less is free.
        """
        # Two threads at once may lose a count; the step leaves room for that.
        self._admitted += size
        if self.reason is None and self._admitted < self._step:
            return
        with self._lock:
            too_large = None
            if self.reason is None or self._monotonic() - self._looked_at >= _STALE:
                too_large = self._look(size)
            refusal = self.reason or too_large
            if refusal is not None:
                self._admitted -= size
                self.refused += 1
                raise NearlyFull(refusal)

    def admit_file(self) -> None:
        """A file of a large value is about to be made, after `admit`. Raises NearlyFull where no inode is left for it.

        A statvfs of each disk, which is no time beside what the file takes.
        """
        with self._lock:
            if self.reason is None and not any(map(_lacks_inodes, self.disks)):
                return
            self._look(0)
            if self.reason is not None:
                self.refused += 1
                raise NearlyFull(self.reason)

    def look(self) -> None:
        """Measure the disks, and decide anew. Blocks on the file systems."""
        with self._lock:
            self._look(0)

    @property
    def wants_bytes(self) -> bool:
        """Whether writes are refused for want of bytes: inodes are not what eviction brings."""
        return bool(self._wanted)

    def wanted_free(self, name: str) -> int:
        """Bytes that must be free on the disk of that name for writes to be accepted again; 0 while they are."""
        return self._wanted.get(name, 0)

    def _look(self, size: int) -> str | None:
        """`size` of the bytes admitted are those of the write that asks; returns why it does not fit, though smaller
        ones do."""
        mark, now = self._mark(), self._monotonic()
        recent = self._recent(now, self._admitted - size)
        refusals: dict[str, int] = {}
        reasons: list[str] = []
        few_inodes: set[str] = set()
        too_large = None
        room = LONGEST_STEP
        for disk in self.disks:
            try:
                usage = disk.measure()
            except OSError:
                continue  # whoever writes there will be told
            inodes = least_inodes(usage)
            inodes += inodes // 4 if disk.name in self._few_inodes else 0
            if usage.inodes_free < inodes:
                few_inodes.add(disk.name)
                reasons.append(_sentence_of_inodes(disk.name, usage, least_inodes(usage)))
            least = least_free(usage, mark, disk.headroom)
            again = least + usage.total // 100
            if disk.name in self._wanted:
                least = again
            room = min(room, usage.free - least - recent - size)
            # In the log, and in a table file before the log goes.
            if usage.free < least + recent + 2 * min(size, usage.total // _LARGE):
                refusals[disk.name] = again
                reasons.append(_sentence(disk.name, usage, mark, again))
            elif usage.free < least + recent + 2 * size:
                too_large = (
                    f"{size} bytes are too many for the disk of {disk.name}: {usage.free} bytes are free, of which "
                    f"{least} must stay free (eviction.high_water_mark is {mark} %)"
                )
        self._looked_at = now
        self._admitted = size
        self._step = room // 8
        self._few_inodes = few_inodes
        self._decide(refusals, reasons)
        return too_large

    def _recent(self, now: float, admitted: int) -> int:
        """Bytes admitted lately, which the disk may not show yet: in this spell and in the one before."""
        self._this_spell += admitted
        spells = (now - self._spell_began) // _SPELL
        if spells:
            self._last_spell = self._this_spell if spells == 1 else 0
            self._this_spell, self._spell_began = 0, now
        return self._this_spell + self._last_spell

    def _decide(self, refusals: dict[str, int], reasons: list[str]) -> None:
        self._wanted = refusals
        reason = "; ".join(reasons) or None
        changed = (reason is None) != (self.reason is None)
        self.reason = reason
        if changed:
            self._on_change(reason)


def _lacks_inodes(disk: GuardedDisk) -> bool:
    try:
        usage = disk.measure()
    except OSError:
        return False  # whoever writes there will be told
    return usage.inodes_free < least_inodes(usage)


def _sentence(name: str, usage: DiskUsage, mark: int, wanted: int) -> str:
    return (
        f"the disk of {name} is nearly full: {usage.percent:.1f} % in use, {usage.free} bytes free; writes are refused "
        f"until {wanted} bytes are free (eviction.high_water_mark is {mark} %), reads and deletes go on"
    )


def _sentence_of_inodes(name: str, usage: DiskUsage, least: int) -> str:
    return (
        f"the disk of {name} has nearly no inodes left: {usage.inodes_free} of {usage.inodes} are free, of which "
        f"{least} must stay so (df -i tells; each file takes one); writes are refused until there are more, reads and "
        "deletes go on"
    )
