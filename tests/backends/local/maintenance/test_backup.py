"""Backups in their folder: whole or not there, with every file that the copied records name."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.backends.local.maintenance import backup as backups_module
from kvtwisted.backends.local.maintenance.backup import Backups
from kvtwisted.commands.administration import Backup
from kvtwisted.core.disk import DiskUsage
from kvtwisted.core.errors import InvalidRequest, Overloaded, StorageError, StorageFull, Unavailable
from kvtwisted.core.options import EngineOptions

from ....e2e.harness import engine as engine_name
from ....support.engines import FaultyEngine
from ....support.storage import Storage

#: 2026-11-22T23:06:21Z.
NOW = 1_795_388_781.0
LARGE = b"x" * 2000


class Site:
    """One server's folders, and its store with large values in files."""

    def __init__(self, root: Path, data: str = "data", values: str = "value_data") -> None:
        self.root = root
        self.values = root / values
        self.files = ValueFiles(str(self.values))
        self.engine = FaultyEngine(open_engine(engine_name(), str(root / data), EngineOptions()))
        self.storage = Storage(self.engine, files=self.files, spill_threshold=len(LARGE))
        self.folder = root / "backups"
        self.backups = Backups(
            self.engine,
            self.files,
            self.storage.store.metadata.identity,
            folder=str(self.folder),
            data=str(root / data),
            values=str(self.values),
            now=lambda: NOW,
        )

    def left(self) -> list[str]:
        """What is in the folder of backups, but for the lock, and in the data folder that is not RocksDB's."""
        found = [path.name for path in self.folder.iterdir() if path.name != ".lock"] if self.folder.exists() else []
        return sorted(found) + [path.name for path in (self.root / "data").iterdir() if path.is_dir()]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An empty one."""
    site = Site(tmp_path)
    yield site
    site.engine.close()


def restored(path: str) -> dict[bytes, bytes | None]:
    """Every key of a backup with its value, as a store reads them that is opened on it."""
    copy = Site(Path(path))
    try:
        copy.files.claim(copy.storage.store.metadata.identity(), empty=False)
        return {key: copy.storage.value(key) for key in copy.storage.data()}
    finally:
        copy.files.release()
        copy.engine.close()


def test_backup_holds_everything(site: Site) -> None:
    """Small and large values; later changes do not reach it, and its files are the same ones."""
    store = site.storage.store
    store.mset({b"a": b"1", b"large": LARGE, b"gone": LARGE})
    store.delete(b"gone")
    made = site.backups.create("monday")
    store.mset({b"a": b"2", b"large": b"small now", b"later": LARGE})
    assert restored(made.path) == {b"a": b"1", b"large": LARGE}
    assert (made.name, made.path) == ("monday", str(site.folder / "monday"))
    assert (made.time, made.engine) == ("2026-11-22T23:06:21Z", site.engine.version)
    assert site.left() == ["monday"]


def test_what_is_counted(site: Site) -> None:
    """Files and bytes of database and large values, without manifest and owner."""
    site.storage.store.mset({b"l1": LARGE, b"l2": LARGE + b"!"})
    made = site.backups.create()
    folder = Path(made.path)
    files = [*(folder / "data").iterdir(), *(folder / "value_data").glob("??/*")]
    assert (made.files, made.bytes) == (len(files), sum(file.stat().st_size for file in files))
    assert made.seconds > 0


def test_large_values_are_linked_but_the_owner_is_not(site: Site) -> None:
    """A link costs nothing. One lock on the owner's file would be one for both folders."""
    (site.values / "kvtwisted-database").write_text(site.storage.store.metadata.identity())
    site.storage.store.set(b"l", LARGE)
    folder = Path(site.backups.create().path) / "value_data"
    (file,) = folder.glob("??/*")
    assert file.samefile(site.values / file.relative_to(folder))
    owner = folder / "kvtwisted-database"
    assert owner.read_text() == site.storage.store.metadata.identity()
    assert not owner.samefile(site.values / "kvtwisted-database")


def test_default_names(site: Site) -> None:
    """From the time in UTC, and another one each."""
    names = [site.backups.create().name for _ in range(3)]
    assert names == ["20261122T230621Z", "20261122T230621Z-2", "20261122T230621Z-3"]


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/a", "a b", "é", "x" * 65, "a\n", "a\0"])
def test_names_that_are_refused(site: Site, name: str) -> None:
    """They become the name of a folder."""
    with pytest.raises(InvalidRequest, match=r"^name: must be 1 to 64 of the characters"):
        site.backups.create(name)
    assert not site.folder.exists()


@pytest.mark.parametrize("name", ["a", "x" * 64, "A-b_c.9", "-", "a..b"])
def test_names_that_are_taken(site: Site, name: str) -> None:
    """They are found again in the list."""
    made = site.backups.create(name)
    assert site.backups.finished() == [made]


def test_taken_name(site: Site) -> None:
    """The earlier backup stays as it is; so does anything else of that name."""
    made = site.backups.create("monday")
    (site.folder / "notes").write_text("mine")
    for name in ("monday", "notes"):
        with pytest.raises(InvalidRequest, match=f"^name: there is a backup {name} already$"):
            site.backups.create(name)
    assert site.backups.finished() == [made]
    assert (site.folder / "notes").read_text() == "mine"


def test_list_is_in_order_of_time_and_leaves_out_what_is_no_backup(site: Site) -> None:
    """Folders without a manifest, with a broken one, or of another format; a copied backup has its folder's name."""
    assert site.backups.finished() == []
    later = site.backups.create("a")
    manifest = json.loads((site.folder / "a" / "backup.json").read_text())
    for name, content in {
        "empty": None,
        "broken": "{",
        "list": "[]",
        "fields": "{}",
        "newer": json.dumps({**manifest, "format": 2}),
        "z": json.dumps({**manifest, "time": "2026-11-21T00:00:00Z"}),
    }.items():
        (site.folder / name).mkdir()
        if content is not None:
            (site.folder / name / "backup.json").write_text(content)
    earlier, other = site.backups.finished()
    assert other == later
    assert earlier == later._replace(name="z", path=str(site.folder / "z"), time="2026-11-21T00:00:00Z")


def test_leftovers_go_at_the_next_backup_and_at_a_start(site: Site) -> None:
    """Of a crash in whatever step; a whole backup stays."""
    made = site.backups.create("whole")
    for clean in (site.backups.tidy, lambda: site.backups.create("next")):
        (site.folder / ".unfinished-monday" / "data").mkdir(parents=True)
        (site.folder / ".unfinished-monday" / "backup.json").write_text("{}")
        for name in ("backup.tmp", "backup.tmp.tmp"):
            (site.root / "data" / name).mkdir()
        assert [backup.name for backup in site.backups.finished()] == ["whole"]
        clean()
        assert site.left() == sorted(backup.name for backup in site.backups.finished())
    assert [backup for backup in site.backups.finished() if backup.name == "whole"] == [made]


def test_tidy_without_a_folder_makes_none(site: Site) -> None:
    """A server that makes no backups has no folder for them."""
    site.backups.tidy()
    assert not site.folder.exists()


def test_only_one_at_a_time(site: Site, tmp_path: Path) -> None:
    """Not in one process, and not of two servers with one folder, whose start does not remove the other's work."""
    other = Site(tmp_path / "other")
    shared = Backups(
        other.engine,
        other.files,
        other.storage.store.metadata.identity,
        folder=str(site.folder),
        data=str(tmp_path / "other" / "data"),
        values=str(other.values),
    )
    refused: list[str] = []

    def meanwhile() -> None:
        for backups in (site.backups, shared):
            with pytest.raises(Overloaded, match="another backup is being made") as error:
                backups.create("second")
            refused.append(error.value.code)
        shared.tidy()

    site.engine.before("checkpoint", meanwhile)
    site.storage.store.set(b"k", b"v")
    made = site.backups.create("first")
    assert refused == ["overloaded"] * 2
    assert restored(made.path) == {b"k": b"v"}
    assert shared.create("second").name == "second"
    other.engine.close()


def test_values_replaced_meanwhile_are_in_it(site: Site) -> None:
    """Right after the copy of the database all keys are overwritten; what it names is still there to be linked."""
    store = site.storage.store
    store.mset({b"%d" % number: LARGE for number in range(20)})

    def overwrite() -> None:
        store.mset({b"%d" % number: b"y" * 2000 for number in range(20)})
        site.storage.writer.commits.sync()
        site.storage.writer.commits.file_index.collect_orphans()

    site.engine.after("checkpoint", overwrite)
    made = site.backups.create()
    assert set(restored(made.path).values()) == {LARGE}
    assert len(list(site.values.glob("??/*"))) == 20


def test_values_that_vanish_meanwhile_are_left_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record names what goes during a backup, but the folder was listed before."""
    site.storage.store.set(b"k", LARGE)
    (used,) = site.values.glob("??/*")
    orphan = site.values / "00" / ("00" + "1" * 30)
    orphan.write_text("nobody's")
    link = os.link

    def late(source: str, target: str, **options: Any) -> None:
        orphan.unlink(missing_ok=True)
        link(source, target, **options)

    monkeypatch.setattr(os, "link", late)
    made = site.backups.create()
    assert restored(made.path) == {b"k": LARGE}
    assert [file.name for file in (Path(made.path) / "value_data").glob("??/*")] == [used.name]


@pytest.mark.parametrize("refusal", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_what_cannot_be_linked_is_copied(site: Site, monkeypatch: pytest.MonkeyPatch, refusal: int) -> None:
    """To another file system, or to one without links: database and values, every byte of them."""
    monkeypatch.setattr("kvtwisted.backends.local.maintenance.copying._CHUNK", 4096)
    value = os.urandom(520_000).hex().encode()
    site.storage.store.mset({b"k": value, b"empty": b"", b"small": b"v"})

    def refuse(*paths: object, **options: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    rename = os.rename

    def rename_within(source: str, target: str) -> None:
        if source.endswith("backup.tmp"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target)

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "rename", rename_within)
    made = site.backups.create()
    monkeypatch.undo()
    assert restored(made.path) == {b"k": value, b"empty": b"", b"small": b"v"}
    (file,) = (Path(made.path) / "value_data").glob("??/*")
    assert file.stat().st_nlink == 1
    assert site.left() == [made.name]


def test_room_is_asked_for_before_copying(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it nothing is copied, not even the database within its own disk, and the sentence has the numbers."""
    site.storage.store.set(b"k", LARGE)
    monkeypatch.setattr(backups_module, "can_link", lambda source, target: False)
    monkeypatch.setattr(backups_module, "can_move", lambda source, target: False)
    monkeypatch.setattr(backups_module, "tree_bytes", lambda folder, passing_over=(): 5000)
    monkeypatch.setattr(backups_module, "disk_usage", lambda folder: DiskUsage(0, 14_096))
    # What an engine copies by itself comes on top: lbry-rocksdb does so whatever can be linked.
    copies = site.engine.copies
    needed = 5000 * (2 + (copies or 1))
    with pytest.raises(StorageFull, match=rf"^a backup needs {needed} bytes in .*data, where 14096 are free$"):
        site.backups.create()
    monkeypatch.setattr(backups_module, "can_link", lambda source, target: source == target)
    monkeypatch.setattr(backups_module, "disk_usage", lambda folder: DiskUsage(0, 9999))
    needed, place = 5000 * (2 + copies), "data" if copies else "backups"
    with pytest.raises(StorageFull, match=rf"^a backup needs {needed} bytes in .*{place}, where 9999 are free$"):
        site.backups.create()
    assert site.engine.called("checkpoint") == []
    assert site.left() == []


def test_what_must_stay_free_is_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so it is when others write meanwhile: the backup fails then, half done, and nothing is left of it."""
    site.storage.store.set(b"k", LARGE)
    monkeypatch.setattr(backups_module, "can_link", lambda source, target: source == target)
    monkeypatch.setattr("kvtwisted.backends.local.maintenance.copying._NO_LINK", frozenset({errno.EEXIST, errno.EXDEV}))
    site.backups._least_free = lambda folder: 1 << 60
    with pytest.raises(StorageFull, match=r"are free, of which \d+ must stay so$"):
        site.backups.create()
    assert site.engine.called("checkpoint") == []
    left = [1 << 30]
    monkeypatch.setattr(backups_module, "disk_usage", lambda folder: DiskUsage(0, left[0]))
    site.backups._least_free = lambda folder: 0
    site.engine.after("checkpoint", lambda: left.insert(0, 100))

    def refuse(*paths: object, **options: object) -> None:
        raise OSError(errno.EEXIST, "")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageFull, match=r"where 100 are free$"):
        site.backups.create()
    assert len(site.engine.called("checkpoint")) == 1
    assert site.left() == []


def test_failures_leave_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever system call fails, and however: no folder is left, neither there nor within the data."""
    site.storage.store.set(b"k", LARGE)
    site.backups.create("first")
    site.engine.fail("checkpoint", StorageError("broken"), 1)
    with pytest.raises(StorageError, match="broken"):
        site.backups.create("second")
    assert site.left() == ["first"]
    site.engine.heal("checkpoint")
    for name in ("mkdir", "link", "fsync", "rename"):
        assert _fail_each_time(site, monkeypatch, name) >= 1, name
    assert site.backups.create("second").name == "second"


def _fail_each_time(site: Site, monkeypatch: pytest.MonkeyPatch, name: str) -> int:
    """Let the first call of `os.name` fail, then the second, and so on; returns how often that failed the backup."""
    real = getattr(os, name)
    failed = 0
    for turn in range(50):
        calls = 0

        def failing(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == turn + 1:  # noqa: B023 - called within this turn
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing)
            try:
                made = site.backups.create("again")
            except StorageError:
                failed += 1
                made = None
        if made is not None:
            assert restored(made.path) == {b"k": LARGE}
            shutil.rmtree(made.path)
        assert site.left() == ["first"], (name, turn)
        if calls <= turn:
            return failed
    raise AssertionError(f"{name} is called again and again")


def test_the_folder_is_its_owners_alone(site: Site) -> None:
    """A backup has all there is in the database."""
    before = os.umask(0)
    try:
        site.backups.create()
    finally:
        os.umask(before)
    assert site.folder.stat().st_mode & 0o777 == 0o700


def test_folder_that_cannot_be_made(site: Site) -> None:
    """The error names the path."""
    site.folder.write_text("a file")
    with pytest.raises(StorageError, match=r"cannot make a backup: .*backups"):
        site.backups.create()
    with pytest.raises(StorageError):
        site.backups.finished()


def test_stop_ends_a_backup(site: Site) -> None:
    """A running one gives up between two files and leaves nothing; a later one is refused."""
    site.storage.store.mset({b"%d" % number: LARGE for number in range(5)})
    site.engine.after("checkpoint", site.backups.stop)
    for _ in range(2):
        with pytest.raises(Unavailable, match="the server is stopping; no backup was made"):
            site.backups.create()
    assert site.left() == []
    assert len(site.engine.called("checkpoint")) == 1


def test_writes_go_on_meanwhile(site: Site) -> None:
    """While the values are taken over, keys are written and deleted, large ones among them; each batch is whole."""
    store = site.storage.store
    done = threading.Event()
    turns = [0]

    def write() -> None:
        while not done.is_set():
            turns[0] += 1
            value = b"%d" % turns[0]
            store.mset({b"small": value, b"large": value.rjust(3000, b"."), b"other": value.rjust(2500, b".")})

    store.mset({b"small": b"0", b"large": b"0".rjust(3000, b"."), b"other": b"0".rjust(2500, b".")})
    writer = threading.Thread(target=write)
    writer.start()
    made: list[tuple[int, Backup]] = []
    try:
        for number in range(4):
            made.append((turns[0] - 1, site.backups.create(f"b{number}")))
    finally:
        done.set()
        writer.join()
    for least, backup in made:
        found = restored(backup.path)
        values = {int((value or b"").lstrip(b".")) for value in found.values()}
        assert len(found) == 3
        assert len(values) == 1
        assert values.pop() >= least
