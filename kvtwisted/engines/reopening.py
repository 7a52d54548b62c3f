"""Closing a database and opening it again behind an engine that others go on using.

Note [Closing under readers]: before anything is closed the files are opened a second time, for reading, which shows
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
from operator import methodcaller
from typing import Any, Callable, TypeVar

from ..core.clock import pause
from ..core.errors import StorageError, StorageFull, UnusablePath
from ..core.paths import Identity, identity
from .translate import EngineReopening, in_use

T = TypeVar("T")

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
    if database_identity(path) != right:
        raise UnusablePath(f"rocksdb.path: {os.path.abspath(path)} is not the folder of the database that is open")
    trial = os.path.join(path, _TRIAL)
    with open(trial, "wb") as file:
        file.write(b"x" * 4096)
        file.flush()
        os.fsync(file.fileno())
    os.unlink(trial)
    needed = _MARGIN
    for name in os.listdir(path):
        if name.endswith(".log"):
            with suppress(FileNotFoundError):  # RocksDB removes those that it needs no more
                needed += os.path.getsize(os.path.join(path, name))
    room = shutil.disk_usage(path).free
    if room < needed:
        raise StorageFull(f"the data folder {path!r} needs {needed} bytes to be opened again, but {room} are free")


def database_identity(path: str) -> Identity:
    """What tells the folder of a database that is open from others. Raises OSError."""
    return identity(path, "LOCK")


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


class Counted:
    """A database of lbry-rocksdb: its calls are counted, its iterators and snapshots end before it is closed.

    No variable holds an iterator or a snapshot: a stored traceback would keep its frame, and so them.
    """

    def __init__(self, native: Any) -> None:
        self._native = native
        self._calls = Calls()
        # What outlives a call. It is freed within counted calls too, or by `shut`.
        self._natives: dict[object, Any] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The method of that name, counted."""
        method = getattr(self._native, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._calls:
                return method(*args, **kwargs)

        setattr(self, name, call)
        return call

    def snapshot(self) -> _Held:
        """A snapshot, for `multi_get`."""
        with self._calls:
            return self._hold(self._native.snapshot())

    def multi_get(self, keys: Any, *, snapshot: _Held | None = None, **options: Any) -> Any:
        """The values at `keys`."""
        with self._calls:
            if snapshot is None:
                return self._native.multi_get(keys, **options)
            if snapshot.token not in self._natives:
                raise EngineReopening  # it is of a database that is closed by now
            return self._native.multi_get(keys, snapshot=self._natives[snapshot.token], **options)

    def iteritems(self, *args: Any, **options: Any) -> _Held:
        """An iterator over pairs, with a `seek`."""
        with self._calls:
            return self._hold(self._native.iteritems(*args, **options))

    def lend(self, use: Callable[[Any], T]) -> T:
        """What `use` makes of the binding's own object, as one counted call."""
        with self._calls:
            return use(self._native)

    def shut(self) -> None:
        """Close the database once no call is under way. Raises StorageError when they do not end; it stays open."""
        self._calls.stop(READ_PATIENCE)
        self._natives.clear()
        self._native.close()

    def _hold(self, native: Any) -> _Held:
        token = object()
        self._natives[token] = native
        return _Held(self, token)

    def use(self, token: object, call: Callable[[Any], T]) -> T:
        """What `call` makes of the iterator of that token, counted."""
        with self._calls:
            return call(self._natives[token])

    def release(self, token: object) -> None:
        """Free what the token stands for, unless that is done."""
        with suppress(EngineReopening), self._calls:
            self._natives.pop(token, None)


class _Held:
    """An iterator or a snapshot, which goes when this goes."""

    def __init__(self, owner: Counted, token: object) -> None:
        self._owner = owner
        self.token = token

    def seek(self, key: bytes) -> None:
        """See the binding's iterator."""
        self._owner.use(self.token, methodcaller("seek", key))

    def __iter__(self) -> Iterator[Any]:
        """Itself."""
        return self

    def __next__(self) -> Any:
        """See the binding's iterator."""
        return self._owner.use(self.token, next)

    def __del__(self) -> None:
        """Free it within a counted call."""
        self._owner.release(self.token)
