"""The high-water mark, and sizes fitted to small disks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.maintenance.space import (
    COMPACTION_FILES,
    LONGEST_STEP,
    GuardedDisk,
    SpaceGuard,
    fitted,
    headroom,
    least_free,
    lowered,
    spill_threshold,
)
from kvtwisted.core.disk import DiskUsage
from kvtwisted.core.errors import NearlyFull, StorageFull
from kvtwisted.core.options import GIB, MIB, EngineOptions

from ....support.properties import repeatable

_TOTAL = 1000 * MIB
_LEAST = 50 * MIB


class Scene:
    """A guard over disks of 1000 MiB, of which 50 must stay free."""

    def __init__(self, names: tuple[str, ...] = ("rocksdb.path",)) -> None:
        self.free = dict.fromkeys(names, 500 * MIB)
        self.looks = 0
        self.now = 100.0
        self.mark = 95
        self.changes: list[str | None] = []
        disks = [GuardedDisk(name, self._measure(name), 0) for name in names]
        self.guard = SpaceGuard(disks, lambda: self.mark, self.changes.append, lambda: self.now)

    def _measure(self, name: str) -> Callable[[], DiskUsage]:
        def measure() -> DiskUsage:
            self.looks += 1
            free = self.free[name]
            return DiskUsage(_TOTAL - free, free)

        return measure

    def fill(self, free: int, name: str = "rocksdb.path") -> None:
        """So many bytes are left free; nobody has looked yet."""
        self.free[name] = free

    def admits(self, size: int) -> bool:
        """Whether a write of that size is admitted."""
        try:
            self.guard.admit(size)
        except NearlyFull:
            return False
        return True


@pytest.fixture
def scene() -> Scene:
    """One with half of the disk free."""
    return Scene()


# How much must stay free.


@repeatable
@given(st.integers(0, 2**44), st.integers(0, 2**44), st.integers(1, 100), st.integers(0, 2**40))
def test_least_free_is_what_the_mark_leaves(used: int, free: int, mark: int, room: int) -> None:
    """With that much free the disk is at the mark at most; one byte less is past it, or past the headroom."""
    least = least_free(DiskUsage(used, free), mark, room)
    total = used + free
    assert least >= room
    assert 100 * (total - least) <= mark * total
    assert least == room or 100 * (total - least + 1) > mark * total


@pytest.mark.parametrize("total", [1, 16 * MIB, 64 * MIB, GIB, 10 * GIB, 64 * GIB, 4096 * GIB])
def test_fitted_sizes_are_small_pieces_of_the_disk(total: int) -> None:
    """No size is raised, a large disk keeps all, and on any disk of 16 MiB and more the server's room is a quarter."""
    options = EngineOptions()
    now = fitted(options, total)
    for name, value in asdict(options).items():
        assert getattr(now, name) <= value, name
    assert lowered(options, now) == {
        name: getattr(now, name) for name, value in asdict(options).items() if getattr(now, name) != value
    }
    assert (lowered(options, now) == {}) == (total >= 64 * GIB)
    room = headroom(asdict(now), total)
    assert room <= total // 4
    if total >= 16 * MIB:
        assert COMPACTION_FILES * now.target_file_size_base <= total // 8
        assert now.max_total_wal_size <= total // 32
        assert spill_threshold(MIB, total) <= max(now.target_file_size_base, 64 * 1024)
    if total >= 64 * GIB:
        assert room < total * 5 // 100
        assert spill_threshold(MIB, total) == MIB


def test_fitted_keeps_what_is_smaller() -> None:
    """What was configured below the fitted size stays."""
    options = EngineOptions(write_buffer_size=65_536, max_background_jobs=1)
    now = fitted(options, 64 * MIB)
    assert (now.write_buffer_size, now.max_background_jobs) == (65_536, 1)
    assert now.max_total_wal_size == 2 * MIB
    assert spill_threshold(2000, 64 * MIB) == 2000


def test_a_full_disk_does_not_change_the_fit() -> None:
    """64 MiB, as the documentation shows it."""
    assert lowered(EngineOptions(), fitted(EngineOptions(), 64 * MIB)) == {
        "write_buffer_size": 524_288,
        "max_total_wal_size": 2_097_152,
        "target_file_size_base": 65_536,
        "max_bytes_for_level_base": 2_097_152,
        "max_log_file_size": 131_072,
        "max_background_jobs": 2,
    }


# Who is admitted.


def test_room_is_looked_for_now_and_then(scene: Scene) -> None:
    """The first write looks; the next ones do after some MiB only."""
    for _ in range(1000):
        scene.guard.admit(1000)
    assert scene.looks == 1
    scene.guard.admit(LONGEST_STEP)
    assert scene.looks == 2
    assert scene.changes == []


def test_little_room_is_looked_at_more_often(scene: Scene) -> None:
    """With 80 KiB of room every 10 KiB are too many to go without a look."""
    scene.fill(_LEAST + 80 * 1024)
    scene.guard.look()
    for _ in range(4):
        assert scene.admits(9000)
    assert scene.looks == 1 + 3


def test_refused_at_the_mark(scene: Scene) -> None:
    """The error is a StorageFull that names the mark and the figures; the reason is told once."""
    scene.fill(_LEAST + 100)
    with pytest.raises(NearlyFull) as refused:
        scene.guard.admit(51)
    assert isinstance(refused.value, StorageFull)
    assert str(refused.value) == (
        "the disk of rocksdb.path is nearly full: 95.0 % in use, 52428900 bytes free; writes are refused until "
        "62914560 bytes are free (eviction.high_water_mark is 95 %), reads and deletes go on"
    )
    assert not scene.admits(1)
    assert scene.changes == [scene.guard.reason] == [str(refused.value)]
    assert scene.guard.refused == 2
    assert scene.looks == 1


def test_just_enough_room(scene: Scene) -> None:
    """A write needs its size twice."""
    scene.fill(_LEAST + 100)
    assert scene.admits(50)


def test_admitted_bytes_count_before_the_disk_shows_them(scene: Scene) -> None:
    """Many writes that come at once do not go past the mark together."""
    scene.fill(_LEAST + 1000)
    sizes = 0
    while scene.admits(10):
        sizes += 10
        assert sizes <= 1000
    assert sizes >= 800


def test_admitted_bytes_are_written_a_while_later(scene: Scene) -> None:
    """From then on the disk shows them, and they count for nothing."""
    scene.fill(_LEAST + 1000)
    assert scene.admits(400)
    scene.now += 0.15
    assert scene.admits(250)
    scene.now += 0.2
    assert scene.admits(450)
    scene.now += 0.15
    assert not scene.admits(350)


def test_large_write_is_refused_alone(scene: Scene) -> None:
    """What does not fit is refused, and smaller writes go on."""
    scene.fill(_LEAST + 40 * MIB)
    with pytest.raises(NearlyFull, match=r"41943040 bytes are too many .*eviction.high_water_mark is 95 %"):
        scene.guard.admit(40 * MIB)
    assert scene.guard.reason is None
    assert scene.admits(1000)
    assert scene.changes == []


def test_recovers_by_itself(scene: Scene) -> None:
    """A look that finds 1 % of the disk more than the least ends it; less does not."""
    scene.fill(_LEAST)
    assert not scene.admits(1)
    wanted = scene.guard.wanted_free("rocksdb.path")
    assert wanted == _LEAST + _TOTAL // 100
    scene.fill(wanted - 1)
    scene.guard.look()
    assert not scene.admits(1)
    scene.fill(wanted)
    scene.guard.look()
    assert scene.guard.wanted_free("rocksdb.path") == 0
    assert scene.admits(1)
    assert scene.changes[1:] == [None]


def test_recovers_without_the_periodic_look(scene: Scene) -> None:
    """A write that comes a second after the last look looks again."""
    scene.fill(0)
    assert not scene.admits(1)
    scene.fill(500 * MIB)
    scene.now += 0.99
    assert not scene.admits(1)
    scene.now += 0.01
    assert scene.admits(1)


def test_a_changed_mark_counts_at_the_next_look(scene: Scene) -> None:
    """The mark is asked for at each look."""
    scene.mark = 40
    scene.guard.look()
    assert not scene.admits(1)
    scene.mark = 60
    scene.guard.look()
    assert scene.admits(1)


def test_headroom_counts_where_it_is_more() -> None:
    """A disk with room by the mark is full when RocksDB's own room is not left."""
    usage = DiskUsage(_TOTAL - 80 * MIB, 80 * MIB)
    guard = SpaceGuard([GuardedDisk("rocksdb.path", lambda: usage, 81 * MIB)], lambda: 95, lambda reason: None)
    with pytest.raises(NearlyFull):
        guard.admit(1)


def test_each_disk_is_guarded() -> None:
    """One full disk is enough; only that one wants space, and the sentence names it; then both."""
    scene = Scene(("rocksdb.path", "value.disk_path"))
    scene.fill(0, "value.disk_path")
    with pytest.raises(NearlyFull, match=r"^the disk of value\.disk_path"):
        scene.guard.admit(1)
    assert scene.guard.wanted_free("rocksdb.path") == 0
    assert scene.guard.wanted_free("value.disk_path") > 0
    scene.fill(0)
    scene.guard.look()
    assert scene.guard.reason is not None
    assert scene.guard.reason.count("is nearly full") == 2
    assert len(scene.changes) == 1


def test_disk_that_cannot_be_measured_refuses_nothing() -> None:
    """The write itself will tell."""

    def measure() -> DiskUsage:
        raise FileNotFoundError

    guard = SpaceGuard([GuardedDisk("rocksdb.path", measure, 0)], lambda: 95, lambda reason: None)
    guard.admit(1000)
    assert guard.reason is None


def test_no_disk_no_limit() -> None:
    """The engine that keeps nothing on a disk."""
    guard = SpaceGuard([], lambda: 95, lambda reason: None)
    guard.admit(1 << 40)
    assert guard.refused == 0


# Inodes.


class Inodes:
    """A guard over a disk with room, of whose 1000 inodes some are free; and how often writes were refused."""

    def __init__(self, inodes: int = 1000) -> None:
        self.inodes, self.free = inodes, inodes
        self.changes: list[str | None] = []
        disks = [GuardedDisk("rocksdb.path", lambda: DiskUsage(0, _TOTAL, self.inodes, self.free), 0)]
        self.guard = SpaceGuard(disks, lambda: 95, self.changes.append, lambda: 100.0)

    def accepted(self, free: int) -> bool:
        """Whether writes are accepted after a look at so many free inodes."""
        self.free = free
        self.guard.look()
        return self.guard.reason is None


def test_inodes_end_before_they_are_all_gone() -> None:
    """A twentieth of them stays free; a refusal lasts a little longer than that; what to look at is said."""
    scene = Inodes()
    assert [scene.accepted(free) for free in (50, 49, 61, 62)] == [True, False, False, True]
    refused, again = scene.changes
    assert refused == (
        "the disk of rocksdb.path has nearly no inodes left: 49 of 1000 are free, of which 50 must stay so (df -i "
        "tells; each file takes one); writes are refused until there are more, reads and deletes go on"
    )
    assert again is None


def test_a_large_disk_keeps_no_more_inodes_than_are_of_use() -> None:
    """1,024 are enough however many there are; where they are made as needed none are missed."""
    scene = Inodes(10_000_000)
    assert [scene.accepted(free) for free in (1024, 1023, 1279, 1280)] == [True, False, False, True]
    assert Inodes(0).accepted(0)


def test_want_of_inodes_is_none_of_bytes() -> None:
    """Nothing would be won by evicting."""
    scene = Inodes()
    assert not scene.accepted(0)
    assert not scene.guard.wants_bytes
    assert scene.guard.wanted_free("rocksdb.path") == 0
    with pytest.raises(NearlyFull, match="inodes"):
        scene.guard.admit(1)


def test_each_file_is_asked_for() -> None:
    """A large value is refused as soon as no inode is left for it, before anybody else has looked."""
    scene = Inodes()
    scene.guard.admit_file()
    scene.free = 49
    with pytest.raises(NearlyFull, match="49 of 1000"):
        scene.guard.admit_file()
    assert scene.guard.refused == 1
    scene.free = 500
    scene.guard.admit_file()
    assert scene.guard.reason is None
