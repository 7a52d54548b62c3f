"""Files and folders that the configuration names: what is wrong with them, and whether they are still the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Callable, NamedTuple

from .errors import StorageError, StorageFull, UnusablePath

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Errors that mean a wrong path or wrong permissions, not a failing disk.
_UNUSABLE = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)  # fmt: skip

#: Device and inode of a folder, and of a file in it.
Identity = tuple[int, ...]


def kind_of(error: OSError) -> type[StorageError]:
    """The KvError to raise for an OSError about a path that the configuration names."""
    if error.errno in NO_SPACE:
        return StorageFull
    return UnusablePath if error.errno in _UNUSABLE else StorageError


def identity(folder: str, *files: str) -> Identity:
    """The identity of `folder` and of `files` in it, to notice when others take their names. Raises OSError when one is
    not there."""
    found = [os.stat(os.path.join(folder, name)) for name in ("", *files)]
    return tuple([number for one in found for number in (one.st_dev, one.st_ino)])


class Folder(NamedTuple):
    """A folder to look at: its configuration key, its path, and files in it that must not change."""

    key: str
    path: str
    files: tuple[str, ...] = ()


class FolderMonitor:
    """Notices that a folder went away, became another one, or may not be written any more. One thread at a time."""

    def __init__(self, folders: Sequence[Folder], on_change: Callable[[Folder, str | None], None]) -> None:
        """Takes the folders as they are now for the right ones. `on_change` is called with what is wrong with a folder,
        or None when it is right again: on the thread that looks, once for each change. Raises OSError."""
        self._folders = {folder: identity(folder.path, *folder.files) for folder in folders}
        self._troubles: dict[Folder, str] = {}
        self._on_change = on_change

    def look(self) -> None:
        """Look at each. Blocks for a few calls of `stat`."""
        for folder, right in self._folders.items():
            trouble = _trouble(folder, right)
            if trouble == self._troubles.get(folder):
                continue
            if trouble is None:
                del self._troubles[folder]
            else:
                self._troubles[folder] = trouble
            self._on_change(folder, trouble)


def _trouble(folder: Folder, right: Identity) -> str | None:
    path = os.path.abspath(folder.path)
    name = f"{folder.key}: the folder {path}"
    try:
        is_another = identity(folder.path)[:2] != right[:2]
    except OSError as error:
        return f"{name} is lost: {error.strerror}; bring it back as it was"
    if is_another:
        return f"{name} is not the one that the server has opened; bring that back, or restart the server on this one"
    try:
        if identity(folder.path, *folder.files) != right:
            return f"{name} has other files than the server has opened; restart the server"
    except FileNotFoundError:
        return f"{name} has lost its files; restart the server"
    except OSError as error:
        return f"{name} cannot be used any more: {error.strerror}"
    if not os.access(folder.path, os.R_OK | os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        read_only = os.statvfs(folder.path).f_flag & os.ST_RDONLY
        why = os.strerror(errno.EROFS if read_only else errno.EACCES)
        return f"{name} cannot be written any more: {why}"
    return None
