"""How full the disk is, and how much of that is ours. Blocking calls, for a pool thread."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

#: What files take space in, on most file systems.
BLOCK = 4096


class DiskUsage(NamedTuple):
    """Bytes of a file system: used by anybody, and free for this process (root's reserve counts as neither).

    Also its inodes, of which each file takes one: all there are, and those that are free; 0 of 0 where they are made as
    needed.
    """

    used: int
    free: int
    inodes: int = 0
    inodes_free: int = 0

    @property
    def percent(self) -> float:
        """Share in use, 0 to 100, as `df` reckons it."""
        return 100.0 * self.used / self.total if self.total else 0.0

    @property
    def total(self) -> int:
        """Bytes that there are for this process and others."""
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


def out_of_inodes(path: str) -> bool:
    """Whether what keeps files from being made at `path` is that no inode is free, however many bytes are."""
    try:
        usage = disk_usage(path)
    except OSError:
        return False
    return bool(usage.inodes) and not usage.inodes_free


def blocks_of(length: int) -> int:
    """Bytes of the whole blocks that a file of so many bytes takes."""
    return -(-length // BLOCK) * BLOCK


def same_disk(path: str, other: str) -> bool:
    """Whether two folders are on one file system. Raises OSError when there is no such path."""
    return os.stat(path).st_dev == os.stat(other).st_dev


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
        # RocksDB sets its log's blocks aside beforehand: what counts for the disk is blocks, not length.
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except FileNotFoundError:
        return 0
