"""How full the disk is, and how much of it this server uses. All functions block: for a pool thread."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

#: Most file systems give files space in blocks of so many bytes.
BLOCK = 4096
#: Bytes of the file that is written to find out whether two folders share their space, and the difference of their free
#: bytes up to which that is tried.
_TRIAL_BYTES, _ALIKE = 4 << 20, 256 << 20
_TRIAL = ".kvtwisted-trial"


class DiskUsage(NamedTuple):
    """Bytes of a file system: used by anybody, and free for this process (root's reserve counts as neither).

    Also its inodes, of which each file takes one: all and free ones; both are 0 where the file system makes them as
    needed.
    """

    used: int
    free: int
    inodes: int = 0
    inodes_free: int = 0

    @property
    def percent(self) -> float:
        """Percent in use, 0 to 100, as `df` computes it."""
        return 100.0 * self.used / self.total if self.total else 0.0

    @property
    def total(self) -> int:
        """Bytes in use and free: all that this process and others can have."""
        return self.used + self.free


def disk_usage(path: str) -> DiskUsage:
    """The file system that holds `path`. Raises OSError when there is no such path."""
    figures = os.statvfs(path)
    return DiskUsage(
        used=(figures.f_blocks - figures.f_bfree) * figures.f_frsize,
        free=figures.f_bavail * figures.f_frsize,
        inodes=figures.f_files,
        inodes_free=figures.f_favail,
    )


def on_one_disk(path: str, other: str) -> bool:
    """Whether two folders share their free space. Raises OSError when there is no such path.

    Device numbers do not tell: volumes of one pool have different ones, and folders with a quota each have the same. So
    if the figures could be those of one disk, a file is written to one folder, and the other's free space is looked at.
    """
    here, there = disk_usage(path), disk_usage(other)
    if abs(here.free - there.free) > _ALIKE:
        return False
    if os.stat(path).st_dev == os.stat(other).st_dev:
        return here.total == there.total
    return min(here.free, there.free) > 8 * _TRIAL_BYTES and _takes_from(path, other)


def _takes_from(path: str, other: str) -> bool:
    """Whether a file at `path` takes space from `other`, and gives it back. Others may write meanwhile."""
    trial = os.path.join(path, _TRIAL)
    before = disk_usage(other).free
    try:
        with open(trial, "wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, _TRIAL_BYTES)
            os.fsync(file.fileno())
        between = disk_usage(other).free
    finally:
        with suppress(FileNotFoundError):
            os.unlink(trial)
    after = disk_usage(other).free
    return before - between >= _TRIAL_BYTES // 2 and after - between >= _TRIAL_BYTES // 2


def out_of_inodes(path: str) -> bool:
    """Whether no file can be made at `path` because no inode is free, although bytes may be. `path` need not exist."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    try:
        usage = disk_usage(path)
    except OSError:
        return False
    return bool(usage.inodes) and not usage.inodes_free


def blocks_of(length: int) -> int:
    """Bytes of the blocks that a file of `length` bytes takes."""
    return -(-length // BLOCK) * BLOCK


def folder_bytes(path: str) -> int:
    """Bytes on disk of all files below `path`; 0 when it does not exist. Files that vanish meanwhile do not count."""
    total = 0
    with suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += folder_bytes(entry.path)
            else:
                total += _file_bytes(entry)
    return total


def _file_bytes(entry: os.DirEntry[str]) -> int:
    try:
        return file_bytes(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return 0


def file_bytes(figures: os.stat_result) -> int:
    """Bytes on disk of a file. RocksDB sets its log's blocks aside beforehand, so that blocks count, and not length."""
    return figures.st_blocks * 512
