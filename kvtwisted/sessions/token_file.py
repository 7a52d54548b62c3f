"""The token file: read with care, changed by one at a time, followed by a running server.

Whoever can write the file can give himself every right, and whoever can read it knows which tokens there are. So a file
is refused that anybody else may read or write: Note [Files that others can write or read] in `secret_files`. Links are
followed when it is read, as containers mount secrets. A change of it would put a file in the place of the link, and is
refused.

All functions block, on a small file.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Callable

from ..core import secret_files
from ..core.clock import pause
from ..core.durable import keep_owner, replace_file
from .entries import InvalidTokens, TokenEntry, read_entries, write_entries

MAX_FILE_BYTES = 1 << 20
#: Seconds that a change waits for another one to end.
LOCK_SECONDS = 10.0
_LOCK_PAUSE = 0.02

#: What tells one state of a file from another: a write, a rename or a chmod changes it.
Signature = tuple[int, int, int, int, int]


def load(path: str, *, any_owner: bool = False) -> list[TokenEntry]:
    """The entries of the file. `any_owner` is for a command of root's, which may mend anybody's file.

    Raises InvalidTokens, which names the file and says what to do.
    """
    return _load(path, any_owner)[0]


def edit(path: str, change: Callable[[list[TokenEntry]], list[TokenEntry]], *, create: bool = False) -> None:
    """Replace the entries by what `change` makes of them, durably, while nobody else changes the file.

    With `create` a missing file is an empty one. Raises InvalidTokens, also what `change` raises of it; then the file
    is as it was.
    """
    with _locked(path, create):
        if os.path.islink(path):
            raise InvalidTokens(
                f"token file {path}: it is a symbolic link, to {os.path.realpath(path)}; name the file itself, or "
                "change the secret where it is mounted from"
            )
        missing = create and not os.path.lexists(path)
        entries = [] if missing else load(path, any_owner=os.geteuid() == 0)
        data = write_entries(change(entries))
        if len(data) > MAX_FILE_BYTES:
            raise InvalidTokens(f"token file {path}: it would have {len(data)} bytes, and may have {MAX_FILE_BYTES}")
        # What could not be read again is never written.
        read_entries(data)
        try:
            replace_file(path, data, keep_mode=True)
        except OSError as error:
            raise InvalidTokens(f"token file {path}: it cannot be written: {error.strerror}") from None


class TokenFile:
    """The file as a running server follows it. Any thread; what it blocks for is one `stat` while nothing changes.

    `changed` is told the entries whenever they were read anew, and may raise InvalidTokens; `failed` why they could not
    be; the same reason is told once, and what was read last stays valid. Both are called on the thread of `load` or
    `refresh`, which is one at a time.
    """

    def __init__(
        self, path: str, changed: Callable[[list[TokenEntry]], object], failed: Callable[[str], object]
    ) -> None:
        self.path = path
        self._changed = changed
        self._failed = failed
        self._lock = threading.Lock()
        self._signature: Signature | None = None
        self._reason: str | None = None

    def load(self) -> None:
        """The first time: raises InvalidTokens."""
        with self._lock:
            entries, self._signature = _load(self.path, False)
            self._reason = None
            self._changed(entries)

    def refresh(self, *, force: bool = False) -> bool:
        """Read the file if it has changed since, or in any case with `force`; whether it was read well."""
        with self._lock:
            if not force and self._reason is None and self._current() == self._signature:
                return False
            try:
                entries, signature = _load(self.path, False)
                if not force and self._reason is None and signature == self._signature:
                    return False
                self._changed(entries)
            except InvalidTokens as error:
                reason = str(error)
                if force or reason != self._reason:
                    self._reason = reason
                    self._failed(reason)
                return False
            self._signature, self._reason = signature, None
            return True

    def _current(self) -> Signature | None:
        try:
            return _signature(os.stat(self.path))
        except OSError:
            return None


def _load(path: str, any_owner: bool) -> tuple[list[TokenEntry], Signature]:
    try:
        data, signature = _read(path, any_owner)
        return read_entries(data), signature
    except InvalidTokens as error:
        raise InvalidTokens(f"token file {path}: {error}") from None


def _read(path: str, any_owner: bool) -> tuple[bytes, Signature]:
    try:
        fault = secret_files.fault(path, any_owner=any_owner)
        # Not to wait for a writer, should it be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InvalidTokens("there is no such file; `kvtwisted token create` makes it") from None
    except OSError as error:
        raise InvalidTokens(f"it cannot be read: {error.strerror}") from None
    try:
        # Before it is read: what is written to it meanwhile is a change.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidTokens("it is not a regular file")
        if fault is not None:
            raise InvalidTokens(fault)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidTokens(f"it cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise InvalidTokens(f"it has more than {MAX_FILE_BYTES} bytes")
    return data, _signature(status)


def _signature(status: os.stat_result) -> Signature:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def _locked(path: str, create: bool) -> Iterator[None]:
    """Hold the lock of a token file, which is a file beside it that stays. Raises InvalidTokens when others hold it."""
    if not create and not os.path.lexists(path):
        raise InvalidTokens(f"token file {path}: there is no such file; `kvtwisted token create` makes it")
    descriptor = _open_lock(path)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise InvalidTokens(
                        f"token file {path}: another command has been changing it for {LOCK_SECONDS:.0f} s"
                    ) from None
            except OSError as error:
                raise InvalidTokens(f"token file {path}: its lock cannot be taken: {error.strerror}") from None
            pause(_LOCK_PAUSE)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: str) -> int:
    name, flags = path + ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(name, flags)
        # Only of a file that is new: who else may make files there could have put another file under this name.
        with suppress(OSError):  # this command still works, only the next one of the owner's may not
            keep_owner(descriptor, path)
        return descriptor
    except OSError as error:
        raise InvalidTokens(f"token file {path}: {name} cannot be opened: {error.strerror}") from None
