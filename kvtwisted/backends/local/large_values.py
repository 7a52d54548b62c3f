"""Large values in files of their own, so that RocksDB does not rewrite them at every compaction.

Note [A file and its record]: a file is complete on the disk before any record names it: written under a temporary name,
fsynced, renamed, its folder fsynced. The record that names it holds length and checksum and is fsynced too. Only then
may a file that it replaces go. So at every moment each record's file is there and whole; what a crash can leave behind
is files that no record names, and those are collected at the next start.

Note [Files go after their last reader]: a replaced file is unlinked when every reader has left that had come in before
it was replaced, since its snapshot may still name it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import threading
import zlib
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Callable

from ...commands.administration import Collected
from ...core.disk import blocks_of, out_of_inodes
from ...core.durable import sync, write_synced
from ...core.errors import Corruption, NoInodes, StorageError, StorageFull, StorageLocked, UnusablePath
from ...core.paths import kind_of
from ...core.resources import NO_DESCRIPTORS, no_descriptors
from .records import Pointer, Record

_TEMPORARY = "tmp"
_SUBFOLDERS = tuple(f"{number:02x}" for number in range(256))
#: The file that says which database the folder belongs to; it is never removed.
OWNER = "kvtwisted-database"
_NAME = re.compile("[0-9a-f]{32}")


class Reading:
    """See `ValueFiles.reading`. A class, since a generator would take as long as a read from memory does."""

    __slots__ = ("_files",)

    def __init__(self, files: ValueFiles) -> None:
        self._files = files

    def __enter__(self) -> None:
        """From now on."""
        self._files.begin(self)

    def __exit__(self, *exception: object) -> None:
        """Until now."""
        self._files.end(self)


class ValueFiles:
    """The folder of large values. All methods block; safe from any thread.

    Files lie in 256 sub-folders by the first byte of their random name, never by anything that a client sent.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._generation = 0
        self._readers: dict[Reading, int] = {}
        self._retired: list[tuple[int, Pointer]] = []
        # Files of writes under way, and of writes that failed in a way that leaves open whether a record names them.
        self._unsettled: set[bytes] = set()
        self._claim: int | None = None
        #: Bytes on the disk of all that is stored and not unlinked yet. Kept, and not read from the folder.
        self.taken = 0
        #: Files that are counted though nothing names them: they could not be unlinked.
        self._left_over: set[bytes] = set()

    def count(self, pointers: Iterable[Pointer]) -> None:
        """These files were stored by a run before."""
        self._add(sum(blocks_of(pointer.length) for pointer in pointers))

    def _add(self, taken: int) -> None:
        with self._lock:
            self.taken += taken

    def prepare(self) -> None:
        """Make the folders. Raises StorageError when that is not possible."""
        try:
            for sub in (_TEMPORARY, *_SUBFOLDERS):
                os.makedirs(os.path.join(self._folder, sub), exist_ok=True)
            sync(self._folder)
        except OSError as error:
            raise self._translated(error, "make room for") from error

    def store(self, value: bytes) -> Pointer:
        """Write a value to a new file, durably. Raises StorageFull or StorageError, and then leaves nothing behind.

        No collection of orphans takes the file; the caller tells by `named` or `retire` what became of it.
        """
        name = secrets.token_bytes(16)
        self._unsettled.add(name)
        temporary = os.path.join(self._folder, _TEMPORARY, name.hex())
        final = self._path(name)
        try:
            write_synced(temporary, value)
            os.rename(temporary, final)
            sync(os.path.dirname(final))
        except OSError as error:
            for path in (temporary, final):
                with suppress(OSError):
                    os.unlink(path)
            self._unsettled.discard(name)
            raise self._translated(error, "write") from error
        self._add(blocks_of(len(value)))
        return Pointer(name, len(value), zlib.crc32(value))

    def load(self, pointer: Pointer) -> bytes:
        """The value. Raises FileNotFoundError, Corruption when it is not what was stored, or StorageError."""
        try:
            with open(self._path(pointer.name), "rb", buffering=0) as file:
                whole = os.fstat(file.fileno()).st_size == pointer.length
                value = file.read(pointer.length) if whole else b""
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._translated(error, "read") from error
        if not whole or zlib.crc32(value) != pointer.checksum:
            raise Corruption(f"the large value in file {pointer.name.hex()} is damaged")
        return value

    def held(self, pointer: Pointer) -> bool:
        """Whether a file has another name elsewhere, in a backup, so that its space does not come back with it."""
        with suppress(OSError):
            return os.stat(self._path(pointer.name)).st_nlink > 1
        return False

    def value(self, record: Record) -> bytes:
        """A record's value, from its file if it has one. Only inside `reading`, begun before the record was read.

        Raises Corruption when the file is missing or damaged, else StorageError.
        """
        if record.pointer is None:
            return record.value
        try:
            return self.load(record.pointer)
        except FileNotFoundError:
            if not os.path.isdir(os.path.join(self._folder, _TEMPORARY)):
                raise UnusablePath(f"value.disk_path: {os.path.abspath(self._folder)} has no large values") from None
            raise Corruption(f"the large value in file {record.pointer.name.hex()} is missing") from None

    def reading(self) -> Reading:
        """For a `with` block, within which no file goes that was named by a record when the block began."""
        return Reading(self)

    def begin(self, reading: Reading) -> None:
        """For `Reading`."""
        with self._lock:
            self._readers[reading] = self._generation

    def end(self, reading: Reading) -> None:
        """For `Reading`."""
        with self._lock:
            del self._readers[reading]
        self._unlink_retired()

    def named(self, pointer: Pointer) -> None:
        """A record names this file now."""
        self._unsettled.discard(pointer.name)

    def retire(self, pointers: Collection[Pointer]) -> None:
        """No durable record names these files any more: unlink them after their last reader."""
        if not pointers:
            return
        with self._lock:
            self._retired.extend((self._generation, pointer) for pointer in pointers)
            self._generation += 1
        for pointer in pointers:
            self._unsettled.discard(pointer.name)
        self._unlink_retired()

    def claim(self, owner: str, *, empty: bool) -> None:
        """Take the folder for the database `owner`, until `release`; `empty` says that no record names a file.

        Raises StorageError when the folder belongs to another database, is in use by another server, is not the one
        that the records mean, or is not empty when it is first taken: nothing is removed from what is not ours.
        """
        folder = os.path.abspath(self._folder)
        path = os.path.join(folder, OWNER)
        if not check_owner(folder, owner, empty=empty):
            write_synced(path, owner.encode())
            sync(folder)
        with open(path, encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                # A copy of this database, identity and all.
                raise StorageLocked(f"value.disk_path: {folder} is in use by another server") from None
            self._claim = os.dup(file.fileno())  # the lock is held as long as one descriptor is

    def release(self) -> None:
        """Let another server have the folder."""
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def collect_orphans(self, in_use: Callable[[], set[bytes]]) -> Collected:
        """Remove every file of ours that is not needed; `in_use` gives the names of those that records point to.

        Files may be stored and retired meanwhile, and those that `store` would not have made stay. Raises StorageError.
        """
        files = freed = 0
        try:
            found = [path for sub in (_TEMPORARY, *_SUBFOLDERS) for path in self._ours(sub)]
            # After the folder was read, and in the order in which a file goes through these, so that none slips by.
            unsettled = set(self._unsettled)
            keep = unsettled | in_use()
            with self._lock:
                keep.update(pointer.name for _, pointer in self._retired)
            for path in found:
                if bytes.fromhex(os.path.basename(path)) not in keep:
                    with suppress(FileNotFoundError):
                        size = os.stat(path).st_size
                        os.unlink(path)
                        files += 1
                        freed += size
                        self._forget(bytes.fromhex(os.path.basename(path)), size)
        except OSError as error:
            raise self._translated(error, "collect") from error
        return Collected(files, freed)

    def _ours(self, sub: str) -> list[str]:
        """Paths of the files in a sub-folder that `store` may have made."""
        with os.scandir(os.path.join(self._folder, sub)) as entries:
            return [
                entry.path
                for entry in entries
                if _NAME.fullmatch(entry.name) and (sub == _TEMPORARY or entry.name.startswith(sub))
            ]

    def _unlink_retired(self) -> None:
        if not self._retired:
            return  # what is retired from now on, `retire` unlinks, unless there are other readers
        with self._lock:
            oldest = min(self._readers.values(), default=self._generation)
            gone = [pointer for generation, pointer in self._retired if generation < oldest]
            self._retired = [entry for entry in self._retired if entry[0] >= oldest]
        for pointer in gone:
            # What cannot be unlinked is an orphan, and collected at the next start.
            try:
                os.unlink(self._path(pointer.name))
            except FileNotFoundError:
                self._add(-blocks_of(pointer.length))
            except OSError:
                self._left_over.add(pointer.name)
            else:
                self._add(-blocks_of(pointer.length))

    def _forget(self, name: bytes, size: int) -> None:
        """An orphan has gone. Only those that this run has left are counted."""
        if name in self._left_over:
            self._left_over.discard(name)
            self._add(-blocks_of(size))

    def _path(self, name: bytes) -> str:
        text = name.hex()
        return os.path.join(self._folder, text[:2], text)

    def _translated(self, error: OSError, doing: str) -> StorageError:
        kind = kind_of(error)
        folder = os.path.abspath(self._folder)
        if kind is StorageFull:
            if out_of_inodes(folder):
                return NoInodes(f"no inode is free for a large value's file in {folder!r} (df -i tells)")
            return StorageFull("no space left for a large value")
        if error.errno in NO_DESCRIPTORS:
            return StorageError(f"cannot {doing} a large value: {no_descriptors()}")
        return kind(f"value.disk_path: cannot {doing} a large value in {folder}: {error.strerror}")


def check_owner(folder: str, owner: str, *, empty: bool) -> bool:
    """Whether the folder belongs to the database `owner` already; False: it could be taken. Blocks.

    Raises StorageError as `ValueFiles.claim` does, but for a folder that is in use.
    """
    try:
        with open(os.path.join(folder, OWNER), encoding="utf-8", errors="replace") as file:
            found = file.read()
    except FileNotFoundError:
        found = ""
    if found:
        if found != owner:
            raise StorageError(f"value.disk_path: {folder} holds the large values of another database")
        return True
    if not empty:
        raise StorageError(
            f"value.disk_path: {folder} is not the folder of this database's large values; "
            "point it there, or move them along"
        )
    if os.path.isdir(folder) and set(os.listdir(folder)) - {OWNER, "lost+found"}:
        raise StorageError(f"value.disk_path: {folder} is not empty; large values need a folder of their own")
    return False
