"""Starting in order and stopping in reverse: Twisted's MultiService does not wait between its children."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Callable

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from ..core import secret_files
from ..core.disk import out_of_inodes
from ..core.durable import sync_entry
from ..core.errors import KvError, Unavailable

_log = Logger(namespace="kvtwisted")


class Unwinding:
    """Steps that have to be undone, in the order in which they were done. Reactor thread."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], Any]]] = []

    def push(self, name: str, undo: Callable[[], Any]) -> None:
        """`name` has been started; `undo` stops it and may return a Deferred."""
        self._steps.append((name, undo))

    async def unwind(self) -> None:
        """Undo the last step first, each awaited before the next. A failure is logged and does not stop the rest."""
        while self._steps:
            name, undo = self._steps.pop()
            try:
                await maybeDeferred(undo)
            except KvError as error:
                # Known, and nothing is lost: a full disk that fails the last flush, for example.
                _log.error("{part} did not stop cleanly: {error}", part=name, error=error)
            except Exception:
                _log.failure("{part} did not stop cleanly", part=name)


def start_pool(push: Callable[[str, Callable[[], Any]], None], name: str, threads: int) -> ThreadPool:
    """A pool with all its threads, which is stopped by what is pushed. Raises Unavailable.

    All at once: one that cannot be started later would have requests wait for ever.
    """
    pool = ThreadPool(minthreads=threads, maxthreads=threads, name=f"kvtwisted-{name}")
    # Waits for the jobs that run: RocksDB cannot be closed under them.
    push(f"{name} pool", pool.stop)
    try:
        pool.start()
    except RuntimeError as error:
        # Stopping waits for each, which one that never began would make an error of.
        pool.threads[:] = [thread for thread in pool.threads if thread.ident is not None]
        raise Unavailable(f"the threads for {name}: {error} (ulimit -u is their limit)") from None
    return pool


def make_folder(key: str, path: str) -> None:
    """Make the folder that the configuration names under `key`, so that it survives a power loss.

    A new one is for its owner alone; one that is there stays as it is. Raises Unavailable, naming key and path.
    """
    folder = os.path.abspath(path)
    made = [folder]  # in any case: a run that was killed may have made it and no more
    while not os.path.isdir(os.path.dirname(made[-1])):
        made.append(os.path.dirname(made[-1]))
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        for name in made:
            # Without the right to read the folder above there is no way to wait for its fsync.
            with suppress(PermissionError):
                sync_entry(name)
    except OSError as error:
        is_for_inodes = error.errno == errno.ENOSPC and out_of_inodes(folder)
        why = "no inode is free (df -i tells)" if is_for_inodes else error.strerror
        raise Unavailable(f"{key}: cannot make the folder {folder}: {why}") from None


def warn_of_open_folders(paths: Mapping[str, str]) -> None:
    """Log a line for each folder or file, named by its setting, that other users of the machine can read or change.

    Missing ones are passed over. The group's rights are left to the operator, who may let a backup program read, for
    example.
    """
    for name, path in paths.items():
        with suppress(OSError):
            mode, path = stat.S_IMODE(os.stat(path).st_mode), os.path.abspath(path)
            if mode & stat.S_IRWXO and secret_files.reaches(path):
                _log.warn(
                    "{name}: other users of this machine can get at {path} (mode {mode}); chmod o-rwx {path} mends it",
                    name=name, path=path, mode=f"{mode:04o}",
                )  # fmt: skip
