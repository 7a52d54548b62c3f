"""Failures of a binding as errors of kvtwisted: the one place that reads RocksDB's messages.

rocksdict raises plain `Exception` and lbry-rocksdb a few classes whose message is bytes; both carry the text of
RocksDB's Status ("Corruption: ...", "IO error: ..."). The text is therefore what decides.
"""

from __future__ import annotations

import re
from typing import Any

from ....core.disk import out_of_inodes
from ....core.errors import (
    Corruption,
    KvError,
    NoInodes,
    StorageError,
    StorageFull,
    StorageLocked,
    Unavailable,
    WriteStalled,
    without_frames,
)
from ....core.resources import no_descriptors

#: What the operating system says when a file system, or the user's share of it, is full.
_FULL = re.compile("No space left on device|Disk quota exceeded")
_NO_DESCRIPTORS = re.compile("Too many open files")
#: RocksDB holds a POSIX lock on the file LOCK; the first text is for a holder in this process.
_LOCKED_HERE = re.compile("lock hold by current process")
_LOCKED_ELSEWHERE = re.compile("While lock file: .*Resource temporarily unavailable")
#: Incomplete is the status of a write with no_slowdown that would have waited.
_STALLED = re.compile("Result incomplete: .*write stall", re.IGNORECASE)
#: What the bindings say of a call that began before the database was closed to be opened again.
_GONE = re.compile(
    "DB instance already closed|Already (mutably )?borrowed|is no longer a valid ColumnFamilyHandle|in read only mode"
)
_UNKNOWN_FAMILIES = re.compile("Column families not opened: (.*)")


class EngineClosed(Exception):
    """Raised inside an engine by what stands in for the database once that is closed."""


class EngineReopening(Exception):
    """The same while the database is closed to be opened again."""


class _StandIn:
    """Stands in for a closed database, and for what belongs to it: every use is an error. A live one needs no check."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error(name)

    def __getitem__(self, family: str) -> Any:
        raise self._error(family)


CLOSED: Any = _StandIn(EngineClosed)
REOPENING: Any = _StandIn(EngineReopening)


def check_open(database: object) -> None:
    """Raise EngineClosed when `database` is what stands in for one that is closed for good."""
    if database is CLOSED:
        raise EngineClosed


def in_use(error: Exception) -> bool:
    """Whether `error`, of closing or opening a database, says that something in this process still holds it."""
    text = _text(error)
    return bool(_GONE.search(text) or _LOCKED_HERE.search(text))


def stalled(error: Exception) -> bool:
    """Whether `error`, of a write, says that RocksDB would have let it wait."""
    return bool(_STALLED.search(_text(error)))


def translated(error: Exception, path: str) -> KvError:
    """The error of kvtwisted that says what `error`, raised by a binding on the data folder `path`, means.

    For any thread. `error` loses its traceback, whose frames hold objects of the binding. The caller raises the answer
    `from None`: it says all that `error` says.
    """
    if isinstance(error, KvError):
        return error
    text = _text(without_frames(error))
    if isinstance(error, EngineClosed):
        return Unavailable("the storage is closed")
    if isinstance(error, EngineReopening) or _GONE.search(text):
        return Unavailable("the storage is being reopened; try again")
    if text.startswith("Corruption"):
        return Corruption(f"the data folder {path!r} is damaged: {text}")
    if _FULL.search(text):
        if out_of_inodes(path):
            return NoInodes(f"no inode is free for a file in the data folder {path!r} (df -i tells): {text}")
        return StorageFull(f"no space is left for the data folder {path!r}: {text}")
    if _NO_DESCRIPTORS.search(text):
        return StorageError(f"the storage in {path!r} failed: {no_descriptors()}: {text}")
    if _LOCKED_HERE.search(text):
        return StorageLocked(f"the data folder {path!r} is already open in this process")
    if _LOCKED_ELSEWHERE.search(text):
        return StorageLocked(f"the data folder {path!r} is in use by another process")
    if _STALLED.search(text):
        return WriteStalled("RocksDB has stalled writes until flushes and compactions catch up; try again")
    unknown = _UNKNOWN_FAMILIES.search(text)
    if unknown:
        return StorageError(
            f"the data folder {path!r} holds column families that are not kvtwisted's: {unknown.group(1)}"
        )
    return StorageError(f"the storage in {path!r} failed: {text}")


class Translating:
    """A `with` block on a data folder, whose failures leave it translated. It may be entered by many threads at once.

    Costs 0.1 us, for which the hottest calls of the engines call `translated` themselves.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise the translation of any failure."""
        # This frame is part of the new traceback, and must not hold the old one.
        del trace
        if isinstance(error, Exception) and not isinstance(error, KvError):
            raise translated(error, self._path) from None


def _text(error: Exception) -> str:
    """The message in one line."""
    message = error.args[0] if len(error.args) == 1 else str(error)
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    return " ".join(text.split())
