"""Taking files over into another folder: by links where that is possible, else byte by byte. Blocks; raises OSError."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Callable

_CHUNK = 1 << 20
#: Why a file cannot be linked, but perhaps copied: another file system, one without links, or too many of them.
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})


class Copying:
    """Takes files over, by a link where that is possible, and counts them."""

    def __init__(self, check: Callable[[], None]) -> None:
        """`check` is asked often, and raises what ends it all."""
        self._check = check
        self.files = 0
        self.bytes = 0

    def folder(self, source: str, target: str) -> None:
        """Take over the files of one folder, if it has any, without subfolders; make sure that they are on the disk."""
        with os.scandir(source) as entries:
            files = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
        if not files:
            return
        os.mkdir(target)
        for entry in files:
            self._check()
            # One that nobody names any more may go meanwhile.
            with suppress(FileNotFoundError):
                self._file(entry.path, os.path.join(target, entry.name))
        sync(target)

    def count(self, folder: str) -> None:
        """Count the files that are in `folder` already, and make sure that they are on the disk."""
        with os.scandir(folder) as entries:
            for entry in entries:
                self._check()
                sync(entry.path)
                self._add(entry.path)
        sync(folder)

    def _file(self, source: str, target: str) -> None:
        try:
            # What is linked is on the disk already, and never changed.
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            self._copy(source, target)
        self._add(target)

    def _copy(self, source: str, target: str) -> None:
        with open(source, "rb", buffering=0) as old, open(target, "xb", buffering=0) as new:
            while chunk := old.read(_CHUNK):
                left = memoryview(chunk)
                while left:
                    left = left[os.write(new.fileno(), left) :]
                self._check()
            os.fsync(new.fileno())

    def _add(self, path: str) -> None:
        self.files += 1
        self.bytes += os.stat(path).st_size


def moved(source: str, target: str) -> bool:
    """Whether `source` is at `target` now; if not, they are on different file systems."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def tree_bytes(folder: str) -> int:
    """Bytes of all files below `folder`; those that vanish meanwhile do not count."""
    total = 0
    for path, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(path, file)).st_size
    return total


def sync(path: str) -> None:
    """Return once a file's content, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
