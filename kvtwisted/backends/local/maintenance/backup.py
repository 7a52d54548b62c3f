"""Online backups: the database and the files of its large values, from one moment, in a folder that a server can open.

Note [A named backup is complete]: a backup is made under a name that begins with a dot, everything in it is fsynced,
its manifest is written last, and then it gets its own name by one rename. So a backup with a name and a manifest is
complete. What a crash leaves behind begins with a dot; it is removed before the next backup and at the next start.

Note [A backup's value files]: the copy of the database is made within `ValueFiles.reading`, and so are the links to the
files of large values. Until the block ends no file is removed that a record named when it began, so every record of the
copy finds its file. Files that came later are linked too; no record of the copy names them, and a server that is
started on the backup removes them as orphans.

Note [Room for a backup]: before anything is copied, one link shows whether files can be linked, and the bytes that must
be copied are added up. A backup that would leave less free space than writes need is refused. If others use up the room
meanwhile, only the backup fails. No key is ever evicted for it: see Note [What deleting gives back].
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Callable

from ....commands.administration import Backup
from ....core.disk import disk_usage, on_one_disk
from ....core.durable import sync, write_synced
from ....core.errors import InvalidRequest, NoRoomForBackup, Overloaded, StorageError, StorageFull, Unavailable
from ....core.paths import kind_of
from ..engines.engine import CanCheckpoint, Engine
from ..large_values import ValueFiles
from .copying import Copying, can_link, can_move, moved, tree_bytes

#: The folders of a backup, and its manifest.
DATA_FOLDER, VALUE_FOLDER, MANIFEST = "data", "value_data", "backup.json"
#: What the manifest's `format` says.
FORMAT = 1
#: Within the data folder, so that it is surely on the same file system: where the engine makes its copy.
STAGING = "backup.tmp"
#: What the name of a backup's folder begins with until it is whole.
UNFINISHED = ".unfinished-"

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_LOCK = ".lock"
_VALUE_SUBFOLDER = re.compile("[0-9a-f]{2}")


class Backups:
    """The folder of backups of one server. All methods block: a pool's thread only. Safe from any thread."""

    def __init__(
        self,
        engine: Engine,
        files: ValueFiles,
        identity: Callable[[], str],
        *,
        folder: str,
        data: str,
        values: str,
        least_free: Callable[[str], int] = lambda folder: 0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`folder` is where backups go; `data` and `values` are the folders of `engine` and `files`.

        `identity` gives the database's, which the copied values must carry; `now` is in seconds since 1970.
        `least_free` gives the bytes that must stay free on the disk of a folder.
        """
        self._engine = engine
        self._files = files
        self._identity = identity
        self._folder = os.path.abspath(folder)
        self._data = data
        self._values = values
        self._least_free = least_free
        self._now = now
        self._stopping = threading.Event()

    def create(self, name: str | None = None) -> Backup:
        """Make a backup and return it once it is whole and on the disk. Without a name it gets one from the time.

        Raises InvalidRequest for a name that is not allowed or taken, Overloaded while another is being made,
        NoRoomForBackup, StorageError when engine or disk fail or the engine cannot copy itself,
        Unavailable after `stop`. Then nothing is left of it.
        """
        if not isinstance(self._engine, CanCheckpoint):
            engine = self._engine.name
            raise StorageError(f"storage.engine {engine} keeps nothing on disk, so no copy of it can be made")
        if name is not None:
            check_name(name)
        with self._exclusively():
            self._remove_leftovers()
            begun = self._now()
            name = self._free_name(begun) if name is None else name
            if os.path.lexists(self._path(name)):
                raise InvalidRequest(f"name: there is a backup {name} already")
            return self._create(name, begun, self._engine)

    def finished(self) -> list[Backup]:
        """All whole backups in the folder, the oldest first. Raises StorageError when the folder cannot be read."""
        try:
            names = [name for name in os.listdir(self._folder) if _NAME.fullmatch(name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _translated(error) from error
        found = filter(None, map(self._read, names))
        return sorted(found, key=lambda backup: (backup.time, backup.name))

    def tidy(self) -> None:
        """Remove what a crash left behind, unless another server makes a backup in the same folder just now."""
        self._remove_staging()
        if os.path.isdir(self._folder):
            with suppress(StorageError, Overloaded), self._exclusively():
                self._remove_leftovers()

    def stop(self) -> None:
        """Let a running `create` give up soon, and every later one at once, with Unavailable."""
        self._stopping.set()

    def _create(self, name: str, begun: float, engine: CanCheckpoint) -> Backup:
        started = time.monotonic()
        temporary = os.path.join(self._folder, UNFINISHED + name)
        try:
            os.mkdir(temporary)
            least = self._least_free(temporary)
            copying = Copying(self._check, lambda size: self._check_room(temporary, size, least))
            self._copy_all(temporary, copying, least, engine)
            backup = Backup(
                name,
                self._path(name),
                time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
                self._engine.version,
                copying.files,
                copying.bytes,
                round(time.monotonic() - started, 3),
            )
            _write_manifest(temporary, backup)
            self._check()
            os.rename(temporary, backup.path)
            try:
                sync(self._folder)
            except OSError:
                shutil.rmtree(backup.path, ignore_errors=True)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # there is none any more after a success
            self._remove_staging()
        return backup

    def _copy_all(self, target: str, copying: Copying, least: int, engine: CanCheckpoint) -> None:
        """See Note [A backup's value files]."""
        data, values = os.path.join(target, DATA_FOLDER), os.path.join(target, VALUE_FOLDER)
        staging = os.path.join(self._data, STAGING)
        os.mkdir(values)
        of_copy = ValueFiles(values)
        # Not a link to our own: a lock on the one would be a lock on the other.
        of_copy.claim(self._identity(), empty=True)
        of_copy.release()
        with self._files.reading():
            of_values = self._check_all_room(target, least, engine.copies)
            engine.checkpoint(staging)
            if moved(staging, data):
                copying.count(data)
            else:
                # What is written to the database meanwhile is in it too.
                self._check_room(target, tree_bytes(staging) + of_values, least)
                copying.folder(staging, data)
            for sub in sorted(filter(_VALUE_SUBFOLDER.fullmatch, os.listdir(self._values))):
                copying.folder(os.path.join(self._values, sub), os.path.join(values, sub))
        sync(values)

    def _check_all_room(self, target: str, least: int, copies: int) -> int:
        """Raise StorageFull unless there is room for all that must be copied, since it cannot be linked, where `target`
        is and where the engine makes its copy. Returns the bytes of the values among that."""
        database = tree_bytes(self._data, (STAGING, f"{STAGING}.tmp"))
        in_staging = database * (copies or not can_link(self._data, self._data))
        of_values = 0 if can_link(self._values, target) else tree_bytes(self._values)
        in_target = of_values + (0 if can_move(self._data, target) else database)
        if in_staging:
            together = on_one_disk(self._data, target)
            self._check_room(self._data, in_staging + in_target * together, self._least_free(self._data))
        self._check_room(target, in_target, least)
        return of_values

    def _check_room(self, folder: str, needed: int, least: int) -> None:
        free = disk_usage(folder).free
        if needed and needed > free - least:
            place = folder if folder == self._data else self._folder
            stay = f", of which {least} must stay so" if least else ""
            raise StorageFull(f"a backup needs {needed} bytes in {place}, where {free} are free{stay}")

    def _free_name(self, begun: float) -> str:
        plain = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(begun))
        name, number = plain, 1
        while os.path.lexists(self._path(name)):
            number += 1
            name = f"{plain}-{number}"
        return name

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Within the block nobody else, in this process or another, works in the folder of backups."""
        self._check()
        try:
            os.makedirs(self._folder, 0o700, exist_ok=True)
            with open(os.path.join(self._folder, _LOCK), "w", encoding="ascii") as lock:
                try:
                    fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise Overloaded("another backup is being made; try again when it is done") from None
                yield
        except StorageFull as error:
            raise NoRoomForBackup(str(error)) from error
        except OSError as error:
            raise _translated(error) from error

    def _check(self) -> None:
        if self._stopping.is_set():
            raise Unavailable("the server is stopping; no backup was made")

    def _remove_leftovers(self) -> None:
        self._remove_staging()
        for name in os.listdir(self._folder):
            if name.startswith(UNFINISHED):
                shutil.rmtree(os.path.join(self._folder, name), ignore_errors=True)

    def _remove_staging(self) -> None:
        for name in (STAGING, f"{STAGING}.tmp"):
            shutil.rmtree(os.path.join(self._data, name), ignore_errors=True)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _read(self, name: str) -> Backup | None:
        """The backup of that name, or None for whatever else has it."""
        try:
            with open(os.path.join(self._path(name), MANIFEST), encoding="utf-8") as file:
                manifest = json.load(file)
            if manifest.pop("format") != FORMAT:
                return None
            return Backup(**{**manifest, "name": name, "path": self._path(name)})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


def check_name(name: str) -> None:
    """Raise InvalidRequest unless `name` can be a backup's: it becomes the name of a folder."""
    if not _NAME.fullmatch(name):
        shown = json.dumps(name[:80], ensure_ascii=False)
        raise InvalidRequest(
            f"name: must be 1 to 64 of the characters A-Z a-z 0-9 . _ - and not begin with a dot, but {shown} was sent"
        )


def _write_manifest(folder: str, backup: Backup) -> None:
    """The last file of a backup. Name and path are those of its folder, wherever that is taken."""
    manifest = {key: value for key, value in backup._asdict().items() if key not in ("name", "path")}
    text = json.dumps({"format": FORMAT, **manifest}, indent=2) + "\n"
    write_synced(os.path.join(folder, MANIFEST), text.encode())
    sync(folder)


def _translated(error: OSError) -> StorageError:
    kind = kind_of(error)
    if kind is StorageFull:
        return NoRoomForBackup("no space left for a backup")
    return kind(f"backup.path: cannot make a backup: {error.strerror}: {error.filename!r}")
