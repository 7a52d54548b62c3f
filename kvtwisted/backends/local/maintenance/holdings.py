"""What the server has on a disk, by what frees it: deleting keys, time, or the operator.

Note [What deleting gives back]: deleting keys frees only table files of live records and files of live values.
Everything else in the server's folders stays: what a compaction is writing, tables that a slow scan still holds, files
of replaced values that somebody reads, a backup in the making, and finished backups. No key must be deleted for that.
So eviction leaves it out, as if it were not on the disk. A file that a backup holds by a hard link is not freed either.
A table of which a backup holds a link even costs room when keys in it are deleted, since what is left of it is written
again: while more than half of the tables are held so, records count for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Callable

from ....core.disk import file_bytes, on_one_disk
from ..engines.engine import Statistics
from .backup import MANIFEST, STAGING, UNFINISHED

#: Device and number of a file, under whatever names.
File = tuple[int, int]

#: Table files, and logs of what is not in them yet.
_TABLE, _LOG = ".sst", ".log"


@dataclass
class Holdings:
    """Bytes on one disk.

    `returnable` come back when every key is deleted. `passing` do not, but are the server's own, and go by themselves;
    `backups` go when the operator removes them. `log` are the write-ahead log's, which go after a flush. `held` are
    those of living tables and files that a backup holds too. `share` is the part of a record's bytes that comes back, 0
    to 1.
    """

    returnable: int = 0
    passing: int = 0
    log: int = 0
    held: int = 0
    share: float = 1.0
    backups: int = 0

    @property
    def apart(self) -> int:
        """What eviction leaves out, as if it were not on the disk."""
        return self.passing + self.backups


class Folders:
    """The server's folders on one disk. `holdings` walks them: blocks, any thread."""

    def __init__(
        self,
        *,
        data: str | None,
        values: str | None,
        backups: str,
        figures: Callable[[], Statistics],
        named: Callable[[], Collection[bytes]],
    ) -> None:
        """`data` or `values` is None when it is on another disk; `backups` need not exist, nor be on this one.
        `figures` are the engine's, `named` gives the names of the value files that records point to."""
        self._data = data
        self._values = values
        self._backups = backups
        self._figures = figures
        self._named = named
        # Whether the backups are on this disk, by the devices' numbers: finding out may take a trial.
        self._together: dict[tuple[int, int], bool] = {}

    def holdings(self) -> Holdings:
        """Walk the folders now. Raises OSError and StorageError."""
        live: set[File] = set()
        found = Holdings()
        if self._data is not None:
            self._add_data(self._data, live, found)
        if self._values is not None:
            self._add_values(self._values, live, found)
        found.backups = self._of_backups(live)
        return found

    def _add_data(self, folder: str, live: set[File], found: Holdings) -> None:
        """Add the tables, those of them that backups hold, the log, and what passes."""
        free = length = 0
        for entry in _entries(folder):
            if entry.is_dir(follow_symlinks=False):
                continue
            with suppress(FileNotFoundError):
                figures = entry.stat(follow_symlinks=False)
                size = file_bytes(figures)
                if entry.name.endswith(_TABLE):
                    live.add(_file(figures))
                    length += figures.st_size
                    if figures.st_nlink > 1:
                        found.held += size
                    else:
                        free += size
                elif entry.name.endswith(_LOG):
                    found.log += size
        tables = self._figures().file_bytes
        if tables is not None:
            # Written by a compaction that is under way, or held by a scan.
            found.passing = max(0, length - int(tables))
            free = max(0, free - found.passing)
        found.share = free / (free + found.held) if free > found.held else 0.0 if found.held else 1.0
        found.returnable = free if found.share else 0
        for name in (STAGING, f"{STAGING}.tmp"):
            found.passing += sum(_of_copy(os.path.join(folder, name), live))

    def _add_values(self, folder: str, live: set[File], found: Holdings) -> None:
        """Add the files of values, those of them that backups hold, and those that no record names."""
        named = self._named()
        for sub in _entries(folder):
            if not sub.is_dir(follow_symlinks=False):
                continue
            for entry in _entries(sub.path):
                with suppress(FileNotFoundError, ValueError):
                    figures = entry.stat(follow_symlinks=False)
                    if bytes.fromhex(entry.name) not in named or len(sub.name) != 2:
                        found.passing += file_bytes(figures) if figures.st_nlink == 1 else 0
                    elif figures.st_nlink == 1:
                        found.returnable += file_bytes(figures)
                    else:
                        live.add(_file(figures))
                        found.held += file_bytes(figures)

    def _of_backups(self, live: set[File]) -> int:
        """Bytes that the backups alone hold here, finished or in the making."""
        here = self._data if self._data is not None else self._values
        if here is None or not os.path.isdir(self._backups):
            return 0
        devices = os.stat(self._backups).st_dev, os.stat(here).st_dev
        if devices not in self._together:
            self._together[devices] = on_one_disk(self._backups, here)
        if not self._together[devices]:
            return 0
        copies = [entry.path for entry in _entries(self._backups) if _is_backup(entry)]
        return sum(size for copy in copies for size in _of_copy(copy, live))


def _is_backup(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(UNFINISHED) or os.path.exists(os.path.join(entry.path, MANIFEST))


def _of_copy(folder: str, live: set[File]) -> Iterator[int]:
    """Bytes of each file below a folder that is not one of the `live`; no file is counted twice."""
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                figures = os.lstat(os.path.join(path, name))
                if _file(figures) not in live:
                    if figures.st_nlink > 1:
                        live.add(_file(figures))
                    yield file_bytes(figures)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        yield from entries


def _file(figures: os.stat_result) -> File:
    return figures.st_dev, figures.st_ino
