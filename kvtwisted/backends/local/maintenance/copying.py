"""Copies files to another folder: by links where possible, else byte by byte. Blocks; raises OSError."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from contextlib import suppress
from typing import Callable

from ....core.disk import blocks_of
from ....core.durable import sync

_CHUNK = 1 << 20
#: Why a file cannot be linked, but perhaps copied: another file system, one without links, or too many of them.
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
_TRIAL = ".kvtwisted-link"


class Copying:
    """Takes files over, by a link where that is possible, and counts them."""

    def __init__(self, check: Callable[[], None], room: Callable[[int], None] = lambda size: None) -> None:
        """`check` is asked often, and raises what ends it all. `room` is told of so many bytes before they are written
        to the target, and raises what refuses them."""
        self._check = check
        self._room = room
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
        with open(source, "rb", buffering=0) as old, open(target, "xb") as new:
            while chunk := old.read(_CHUNK):
                self._room(len(chunk))
                new.write(chunk)
                self._check()
            new.flush()
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


def can_link(source: str, target: str) -> bool:
    """Whether files of one folder can be linked into another, found out by one link: the device's number does not tell,
    since two mounts of one file system have the same."""
    return _tried(source, target, lambda old, new: os.link(old, new, follow_symlinks=False))


def can_move(source: str, target: str) -> bool:
    """Whether files of one folder can be renamed into another, found out by one that is."""
    return _tried(source, target, os.rename)


def _tried(source: str, target: str, act: Callable[[str, str], None]) -> bool:
    old, new = os.path.join(source, _TRIAL), os.path.join(target, f"{_TRIAL}ed")
    try:
        with suppress(FileNotFoundError):
            os.unlink(new)  # what a crash left
        with open(old, "wb"):
            act(old, new)
        return True
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    finally:
        for path in (old, new):
            with suppress(OSError):
                os.unlink(path)


def tree_bytes(folder: str, passing_over: Collection[str] = ()) -> int:
    """Bytes of all files below `folder` as they take space, in whole blocks; those that vanish meanwhile do not count.

    Sub-folders of the names `passing_over` are left out.
    """
    total = 0
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in passing_over]
        for file in files:
            with suppress(FileNotFoundError):
                total += blocks_of(os.lstat(os.path.join(path, file)).st_size)
    return total
