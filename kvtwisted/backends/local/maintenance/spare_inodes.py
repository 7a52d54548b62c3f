"""Spare inodes: empty files, which are removed when the file system has no inode left and RocksDB needs some.

Each file takes an inode, and some file systems have a fixed number. RocksDB makes some ten files to open a database,
and one or two for each flush. Others may have taken all there are. Then these empty files go: some while the server
runs, so that what is deleted can be flushed, and some when it starts, so that it can.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from ....core.disk import disk_usage
from .space import least_inodes

#: Empty files that are kept, by what for.
_COUNTS = {"start": 24, "run": 16}
#: Free inodes below which they are given up.
FEW = 16
_NAME = "spare-inodes"


class SpareInodes:
    """The empty files of one data folder, in a sub-folder of it. Blocks; one thread at a time.

    Every method raises OSError when there is no data folder.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._kept: set[str] = set()

    def before_open(self) -> bool:
        """Give up those for the start if they are needed; whether any were."""
        return self._scarce() and self._give_up("start")

    def after_open(self) -> None:
        """Take again what is left of them."""
        if self._scarce(more=_COUNTS["start"]):
            self._keep("start")

    def look(self) -> bool:
        """Give up those for the running server if they are needed, or keep some if there are enough; whether any were
        given up."""
        if self._scarce():
            return self._give_up("run")
        usage = disk_usage(self._folder)
        if usage.inodes_free - sum(_COUNTS.values()) >= 2 * least_inodes(usage):
            for name in _COUNTS.keys() - self._kept:
                self._keep(name)
        return False

    def _scarce(self, more: int = 0) -> bool:
        usage = disk_usage(self._folder)
        return bool(usage.inodes) and usage.inodes_free < FEW + more

    def _give_up(self, name: str) -> bool:
        self._kept.discard(name)
        path = self._path(name)
        there = os.path.isdir(path)
        shutil.rmtree(path, ignore_errors=True)
        return there

    def _keep(self, name: str) -> None:
        path = self._path(name)
        with suppress(OSError):  # there may be no more; what was made by then is kept
            os.makedirs(path, exist_ok=True)
            for number in range(_COUNTS[name]):
                with open(os.path.join(path, f"{number:02d}"), "wb"):
                    """Nothing goes in."""
            self._kept.add(name)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, _NAME, name)
