"""Closing a database and opening it again behind an engine that others go on using.

Note [Reopening under readers]: before anything is closed the files are opened a second time, for reading, which shows
that they can be. Calls that may take long (an fsync, a compaction) are counted, and waited for while reads go on. Then
the binding's object is replaced by a stand-in, so that every call that begins from then on is refused as one to try
again; and, if the database takes no writes any more, that by the copy for reading, which has all that anybody was told
of. So reads go on until the database is open again. What remains are calls that got hold of the object before.

rocksdict refuses to close while one of them works without Python's lock, and refuses them once it is closed. So closing
is tried again until they have gone, for READ_PATIENCE at most, and its hot calls need no counting. Each of its objects
(one for each column family, handles, iterators, snapshots) keeps the folder's lock. So those that can be closed are,
all of them, and the others are held in one place each, which lets go of them: whoever has a frame, an error or a scan
left has no part of the database.

lbry-rocksdb ends the process when an object is used or freed after the close. So every call is counted, what outlives
a call (iterators, snapshots) is held in one place, and both are over before the close.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Callable, Generic, Protocol, TypeVar

from ....core.clock import pause
from ....core.durable import write_synced
from ....core.errors import StorageError, StorageFull, UnusablePath
from ....core.paths import Identity, identity
from .scans import Scans
from .translate import EngineReopening, in_use

T = TypeVar("T")
D = TypeVar("D", bound="Database")

#: Seconds that a reopening waits for calls that may take long (an fsync, a compaction); reads go on meanwhile.
PATIENCE = 5.0
#: Seconds that it waits for reads that are under way; others may be refused for so long.
READ_PATIENCE = 0.5
_PAUSE = 0.002
_REHEARSALS = 5
_TRIAL = "kvtwisted-trial"
#: Bytes beside those of the log: RocksDB's small files.
_MARGIN = 1 << 20


def check_folder(path: str, right: Identity) -> None:
    """See to it that the database can be opened again as far as the disk goes: a file can be written, synced, removed.

    Replaying the log writes about as much as the log holds, so that much room must be there. Raises StorageFull when
    it is not, OSError when the disk is broken or read-only, or when no database is there any more: a binding would make
    a new one. Raises UnusablePath when there is another than the one that was opened, whose `identity` was `right`.
    """
    os.stat(os.path.join(path, "CURRENT"))
    if identity(path, "LOCK") != right:
        raise UnusablePath(f"rocksdb.path: {os.path.abspath(path)} is not the folder of the database that is open")
    trial = os.path.join(path, _TRIAL)
    write_synced(trial, b"x" * 4096)
    os.unlink(trial)
    needed = _MARGIN
    for name in os.listdir(path):
        if name.endswith(".log"):
            with suppress(FileNotFoundError):  # RocksDB removes those that it needs no more
                needed += os.path.getsize(os.path.join(path, name))
    room = shutil.disk_usage(path).free
    if room < needed:
        raise StorageFull(f"the data folder {path!r} needs {needed} bytes to be opened again, but {room} are free")


def patiently(act: Callable[[], T], patience: float | None = None) -> T:
    """The result of `act`, tried again for so many seconds (PATIENCE) while calls under way hold the database."""
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    while True:
        try:
            return act()
        except Exception as error:
            if not in_use(error) or time.monotonic() > deadline:
                raise
        pause(_PAUSE)


def rehearsed(act: Callable[[], T]) -> T:
    """Let `act` open the files for reading beside the open database; again if that has just removed some."""
    for _ in range(_REHEARSALS - 1):
        with suppress(Exception):
            return act()
        pause(_PAUSE)
    return act()


@contextmanager
def telling_unsynced() -> Iterator[None]:
    """Within the block, a sync that cannot begin is a StorageError: what it was to cover is written already."""
    try:
        yield
    except EngineReopening:
        raise StorageError(
            "the storage is being reopened; whether the last writes have reached the disk is not known"
        ) from None


class Calls:
    """Counts calls under way: a `with` block around each. Any thread; may be entered by many at once, not nested."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may end something that is counted wherever it likes to run.
        self._lock = threading.RLock()
        self._running = 0
        self._refusing = False

    def __enter__(self) -> None:
        """One more. Raises EngineReopening while none may begin."""
        with self._lock:
            if self._refusing:
                raise EngineReopening
            self._running += 1

    def __exit__(self, *exception: object) -> None:
        """One less."""
        with self._lock:
            self._running -= 1

    def stop(self, patience: float | None = None) -> None:
        """Let none begin, and wait for the last to end, or so many seconds: then all is as before, and StorageError."""
        with self._lock:
            self._refusing = True
        deadline = time.monotonic() + (PATIENCE if patience is None else patience)
        # No Condition: Pythons before 3.11 wait for those by the wall clock, which may be set back.
        while self._running:
            if time.monotonic() > deadline:
                self.go_on()
                raise StorageError(f"cannot reopen the storage yet: {self._running} calls under way do not end")
            pause(_PAUSE)

    def go_on(self) -> None:
        """Let calls begin again."""
        with self._lock:
            self._refusing = False


class Database(Protocol):
    """A database that is open, for reading alone or for everything. For the thread that reopens."""

    def shut(self) -> None:
        """Close it, within READ_PATIENCE. Raises StorageError when calls under way keep it open: it can be used on."""

    def stands_still(self: D, copy: D, /) -> bool:
        """Whether late callers, who still hold this object, can write no more, and `copy` has all data."""


class Reopening(Generic[D]):
    """The database of an engine and how it is opened again. One thread at a time; every method blocks."""

    def __init__(
        self,
        path: str,
        opened: Callable[..., D],
        rehearsed: Callable[[D], D],
        use: Callable[[D | None], None],
    ) -> None:
        """Open the database in folder `path`; it is made when there is none. Raises what `opened` does, and OSError.

        `opened` opens it, `rehearsed` reads its files into memory, beside it. `use` has all calls that begin use a
        database, or refuses them as ones to try again; it cannot fail.
        """
        self._path = path
        self._opened = opened
        self._rehearsed = rehearsed
        self._use = use
        #: What ends before a close: scans, and calls that may take long.
        self.scans = Scans(path)
        self.slow = Calls()
        #: None while it is closed to be opened again; and what is read from meanwhile, if anything is.
        self.database: D | None = opened(create=True)
        self._copy: D | None = None
        self._identity = identity(path, "LOCK")
        use(self.database)

    def given_up(self) -> list[D]:
        """What is open, for the caller to close for good."""
        databases = [database for database in (self._copy, self.database) if database is not None]
        self._copy = self.database = None
        return databases

    def reopen(self, closed: Callable[[], None]) -> None:
        """Close and open again, while reads go on if they can; `closed` is called when no call finds it any more.

        Raises what `check_folder` and the rehearsal do, and StorageError when calls under way keep it open: then all
        is as before. What opening raises leaves it closed; the next reopening goes on from there.
        """
        check_folder(self._path, self._identity)
        if self.database is not None:
            self._close(self.database, closed)
        else:
            self._refuse(closed)
            self._use(self._copy)
        patiently(self._open)

    def _close(self, database: D, closed: Callable[[], None]) -> None:
        copy = self._rehearsed(database)
        try:
            self.slow.stop()
            self._refuse(closed)
            if database.stands_still(copy):
                self._copy = copy
                self._use(copy)
            try:
                database.shut()
            except StorageError:
                self._refuse(closed)
                self._copy = None
                self._use(database)
                self.slow.go_on()
                raise
            self.database = None
        finally:
            if self._copy is not copy:
                _dismiss(copy)

    def _open(self) -> None:
        # What was begun before the close keeps the folder's lock.
        self.scans.end(EngineReopening)
        self.database = self._opened()
        self._use(self.database)
        self.slow.go_on()
        copy, self._copy = self._copy, None
        if copy is not None:
            self.scans.end(EngineReopening)
            _dismiss(copy)

    def _refuse(self, closed: Callable[[], None]) -> None:
        """Let every call, and every scan under way, be one to try again."""
        self._use(None)
        self.scans.end(EngineReopening)
        closed()


def _dismiss(copy: Database) -> None:
    with suppress(Exception):  # it locks nothing; its last reader frees it
        copy.shut()
