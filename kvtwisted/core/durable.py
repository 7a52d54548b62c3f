"""Files that survive a crash: synced, or replaced so that the old content or the new one is there, whole."""

from __future__ import annotations

import contextlib
import errno
import os

#: Errors of network file systems that have no fsync for folders.
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP})


def replace_file(path: str, data: bytes, *, keep_mode: bool = False) -> None:
    """Put `data` at `path` and return once it would survive a power loss. Blocks for two or more fsyncs.

    The new file has mode 0600. If root replaces it, it keeps its owner, so that a command run by root does not take the
    file away from the server. With `keep_mode` its group may read it if the old one's could. Raises `OSError`; then the
    old content is in place and the temporary file is gone. Two threads must not call it for one path at once.
    """
    previous = _content(path)
    _rename_over(path, data, keep_mode)
    try:
        sync_entry(path)
    except OSError:
        with contextlib.suppress(OSError):
            if previous is None:
                os.unlink(path)
            else:
                _rename_over(path, previous, keep_mode)
        raise


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _rename_over(path: str, data: bytes, keep_mode: bool) -> None:
    # One fixed name: what a crash leaves behind is overwritten next time instead of piling up.
    temporary = path + ".tmp"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        # A new file, always: one that stands there already could be a link, or readable by others.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            keep_owner(file.fileno(), path)
            if keep_mode:
                _keep_group(file.fileno(), path)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def keep_owner(descriptor: int, path: str) -> None:
    """Give an open file to the owner of `path`, or of its folder while there is none. Does nothing unless run by root.

    Raises `OSError`.
    """
    if os.geteuid() != 0:
        return
    try:
        of = os.lstat(path)
    except FileNotFoundError:
        of = os.stat(os.path.dirname(path) or ".")
    if of.st_uid != 0:
        os.fchown(descriptor, of.st_uid, of.st_gid)


def _keep_group(descriptor: int, path: str) -> None:
    try:
        of = os.lstat(path)
    except FileNotFoundError:
        return
    if of.st_mode & 0o040:
        os.fchown(descriptor, -1, of.st_gid)
        os.fchmod(descriptor, 0o640)


def sync_entry(path: str) -> None:
    """Return once the name of `path` in its folder would survive a power loss. Raises `OSError`."""
    try:
        sync(os.path.dirname(path) or ".")
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def sync(path: str) -> None:
    """Return once a file's content, or a folder's list of files, is on the disk. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: str, data: bytes) -> None:
    """Write a file and return once its content is on the disk; its name may not be. Raises `OSError`."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
