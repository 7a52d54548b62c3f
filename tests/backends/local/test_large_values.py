"""Large values in files: what is on the disk when, and what readers see."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local import records
from kvtwisted.backends.local.engines.engine import DATA, FILES
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.backends.local.maintenance.eviction import Disk, EvictionRules, Evictor
from kvtwisted.backends.local.maintenance.holdings import Holdings
from kvtwisted.backends.local.records import Pointer
from kvtwisted.backends.local.write_sequence import WriteSequence
from kvtwisted.core.disk import DiskUsage
from kvtwisted.core.errors import Corruption, ResponseTooLarge, StorageError, StorageLocked

from ...support.pages import page_of
from ...support.storage import PLENTY, Storage
from .large_values import BIG, OTHER, THRESHOLD, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """An empty one."""
    return Scene(tmp_path / "values")


def test_from_the_threshold_on_a_value_has_a_file(scene: Scene) -> None:
    """One byte less stays in the record; the file's name owes nothing to the key."""
    scene.store.set(b"small", BIG[:-1])
    assert scene.files() == []
    scene.store.set(b"big", BIG)
    (file,) = scene.files()
    assert file.read_bytes() == BIG
    assert file.parent.name == file.name[:2]
    assert len(file.name) == 32
    pointer = records.decode(scene.data()[b"big"]).pointer
    assert pointer is not None
    assert pointer.name.hex() == file.name
    assert dict(scene.engine.scan(b"", None, FILES)) == {b"big": pointer.pack()}
    assert [scene.value(key) for key in (b"small", b"big")] == [BIG[:-1], BIG]


def test_every_read_gives_the_value(scene: Scene) -> None:
    """Get, with its ttl, MGet and both scans; keys alone need no file."""
    scene.store.mset({b"a": b"small", b"b": BIG}, 10)
    found = scene.store.get(b"b")
    assert found is not None
    assert (found.value, found.ttl) == (BIG, 10)
    assert scene.store.mget([b"b", b"a"], budget=PLENTY) == {b"b": BIG, b"a": b"small"}
    assert scene.store.scan(b"", budget=PLENTY).items == [(b"a", b"small"), (b"b", BIG)]
    scene.files()[0].unlink()
    assert scene.store.scan(b"", keys_only=True, budget=PLENTY).items == [(b"a", b""), (b"b", b"")]


def test_budgets_count_the_file(scene: Scene) -> None:
    """A large value counts with its length, before it is read."""
    scene.store.mset({b"a": BIG, b"b": BIG})
    with pytest.raises(ResponseTooLarge):
        scene.store.mget([b"a", b"b"], budget=THRESHOLD + 100)
    page = scene.store.scan(b"", limit=10, budget=THRESHOLD + 100)
    assert page == page_of([(b"a", BIG)], b"a")


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_a_replaced_file_goes(tmp_path: Path, cache_bytes: int) -> None:
    """By a small value, by a large one, by Delete and MDelete; the index of files follows."""
    scene = Scene(tmp_path / "values", cache_bytes=cache_bytes)
    scene.store.set(b"k", BIG)
    for _ in range(3):
        assert scene.value(b"k") == BIG
    scene.store.set(b"k", OTHER)
    assert scene.value(b"k") == OTHER
    assert len(scene.files()) == 1
    scene.store.set(b"k", b"small")
    assert scene.value(b"k") == b"small"
    assert scene.files() == []
    scene.store.mset({b"k": BIG, b"l": BIG})
    scene.store.delete(b"k")
    scene.store.mdelete([b"l", b"l"])
    assert scene.files() == []
    assert list(scene.engine.scan(b"", None, FILES)) == []


def test_order_of_a_replacement(scene: Scene) -> None:
    """The new file is there before the record, the record is fsynced, and only then does the old file go."""
    scene.store.set(b"k", BIG)
    seen: list[int] = []
    scene.engine.before("write", lambda: seen.append(len(scene.files())))
    scene.engine.before("sync", lambda: seen.append(len(scene.files())))
    scene.store.set(b"k", OTHER)
    assert seen == [2, 2]
    assert len(scene.files()) == 1


def test_file_and_folder_are_fsynced_before_the_record(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before it gets its name, the folder after."""
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(descriptor: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def recorded_rename(old: str, new: str) -> None:
        done.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    scene.engine.before("write", lambda: done.append("record"))
    scene.store.set(b"k", BIG)
    assert done == ["file", "rename", "folder", "record"]


def test_a_reader_keeps_its_file(scene: Scene) -> None:
    """A scan that began before a value was replaced still gives the old one, and then its file goes."""
    scene.store.mset({b"a": b"first", b"b": BIG})
    with scene.writer.files.reading():
        stored = scene.data()[b"b"]
        scene.store.set(b"b", OTHER)
        pointer = records.decode(stored).pointer
        assert pointer is not None
        assert scene.writer.files.load(pointer) == BIG
        with scene.writer.files.reading():
            pass
        assert len(scene.files()) == 2
    assert len(scene.files()) == 1


def test_a_get_that_is_overtaken(scene: Scene) -> None:
    """When the file goes between the record and its reading, the new value is given; when the key goes, nothing."""
    scene.store.set(b"k", BIG)
    scene.engine.after("get", lambda: scene.store.set(b"k", OTHER))
    assert scene.value(b"k") == OTHER
    scene.engine.after("get", lambda: scene.store.delete(b"k"))
    assert scene.value(b"k") is None


@pytest.mark.parametrize("damage", ["missing", "short", "long", "changed"])
def test_a_damaged_file_is_an_error_for_its_key(scene: Scene, damage: str) -> None:
    """Never wrong bytes; other keys are fine, and the key can be written anew."""
    scene.store.mset({b"bad": BIG, b"good": OTHER})
    file = next(path for path in scene.files() if path.read_bytes() == BIG)
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"short": BIG[:-1], "long": BIG + b"x", "changed": b"z" + BIG[1:]}[damage])
    for read in (
        lambda: scene.store.get(b"bad"),
        lambda: scene.store.mget([b"good", b"bad"], budget=PLENTY),
        lambda: scene.store.scan(b"", budget=PLENTY),
    ):
        with pytest.raises(Corruption, match=r"large value in file [0-9a-f]{32} is (missing|damaged)"):
            read()
    assert scene.value(b"good") == OTHER
    scene.store.set(b"bad", BIG)
    assert scene.value(b"bad") == BIG


def test_threshold_may_change(scene: Scene) -> None:
    """Values stay where they are and are read from there."""
    scene.store.set(b"a", BIG)
    scene.writer.spill_threshold = 10 * THRESHOLD
    scene.store.set(b"b", BIG)
    scene.writer.spill_threshold = 10
    scene.store.set(b"c", b"x" * 10)
    assert [scene.value(key) for key in (b"a", b"b", b"c")] == [BIG, BIG, b"x" * 10]
    assert len(scene.files()) == 2


def test_expiry_and_eviction_take_the_file(scene: Scene) -> None:
    """And count its bytes."""
    scene.store.set(b"old", BIG, 1)
    scene.time.advance(1000)
    swept = scene.sweeper.sweep(10)
    assert swept.deleted == [b"old"]
    assert scene.files() == []
    scene.store.set(b"k", BIG)
    evictor = Evictor(
        scene.engine, scene.writer.commits, scene.clock, lambda key: False, WriteSequence(1), lambda batch: None
    )
    disk = Disk("rocksdb.path", measure=lambda: DiskUsage(used=100, free=0), holdings=lambda: Holdings(PLENTY))
    eviction = evictor.run(disk, EvictionRules(50, 10, "lru"))
    assert eviction.freed > THRESHOLD
    assert scene.files() == []


def test_orphans_are_collected(scene: Scene) -> None:
    """Files that no record names, and temporary ones, go; the others stay, also after a restart."""
    scene.store.set(b"k", BIG)
    scene.restart()
    (scene.folder / "tmp" / ("ab" * 16)).write_bytes(b"half")
    (scene.folder / "ab" / ("ab" * 16)).write_bytes(b"nobody's")
    others = [scene.folder / "cd" / "notes.txt", scene.folder / "cd" / ("ab" * 16), scene.folder / "mine" / "x"]
    for other in others:
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(b"somebody's")
    collected = scene.writer.commits.file_index.collect_orphans()
    assert collected == (2, 4 + 8)
    for other in others:
        other.unlink()
    assert len(scene.files()) == 1
    assert scene.value(b"k") == BIG
    scene.store.set(b"k", b"small")
    assert scene.files() == []


def test_file_of_a_write_under_way_is_no_orphan(tmp_path: Path) -> None:
    """It stays until a record names it, or nobody ever will."""
    files = ValueFiles(str(tmp_path))
    files.prepare()
    pointer = files.store(BIG)
    assert files.collect_orphans(set) == (0, 0)
    assert files.load(pointer) == BIG
    files.named(pointer)
    assert files.collect_orphans(set) == (1, THRESHOLD)


def test_a_folder_belongs_to_one_database(tmp_path: Path) -> None:
    """It is marked at first, and from then on taken only by the same database; nothing in another one is touched."""
    for empty in (True, False, True):
        files = ValueFiles(str(tmp_path))
        files.claim("me", empty=empty)
        files.release()
        files.release()
    with pytest.raises(StorageError, match=r"^value\.disk_path: .* holds the large values of another database$"):
        ValueFiles(str(tmp_path)).claim("you", empty=True)
    (tmp_path / "moved").mkdir()
    with pytest.raises(StorageError, match=r"moved is not the folder of this database's large values"):
        ValueFiles(str(tmp_path / "moved")).claim("me", empty=False)
    assert list((tmp_path / "moved").iterdir()) == []


def test_a_folder_is_used_by_one_server(tmp_path: Path) -> None:
    """A copy of a database has its identity too; it cannot have the folder at the same time."""
    first = ValueFiles(str(tmp_path))
    first.claim("me", empty=True)
    with pytest.raises(StorageLocked, match=r"^value\.disk_path: .* is in use by another server$"):
        ValueFiles(str(tmp_path)).claim("me", empty=True)
    first.release()
    ValueFiles(str(tmp_path)).claim("me", empty=True)


def test_a_folder_with_somebodys_files_is_not_taken(tmp_path: Path) -> None:
    """Whatever they are called; a marker that a crash left empty is in nobody's way."""
    (tmp_path / "kvtwisted-database").touch()
    (tmp_path / "lost+found").mkdir()
    files = ValueFiles(str(tmp_path))
    files.claim("me", empty=True)
    files.release()
    (tmp_path / "kvtwisted-database").unlink()
    (tmp_path / "ab").mkdir()
    with pytest.raises(StorageError, match=r"is not empty; large values need a folder of their own$"):
        ValueFiles(str(tmp_path)).claim("me", empty=True)


def test_a_failed_fsync_only_delays_the_unlinking(scene: Scene) -> None:
    """The replaced file goes with the next fsync that works."""
    scene.store.set(b"k", BIG)
    scene.engine.fail("sync", StorageError("fsync broke"), times=1)
    with pytest.raises(StorageError, match="fsync broke"):
        scene.store.set(b"k", OTHER)
    assert len(scene.files()) == 2
    scene.store.set(b"other", b"small")
    scene.writer.commits.sync()
    assert len(scene.files()) == 1
    assert scene.value(b"k") == OTHER


def test_absurd_length_in_a_pointer(scene: Scene) -> None:
    """A damaged length is found out before anything of that size is asked for."""
    scene.store.set(b"k", BIG)
    pointer = records.decode(scene.data()[b"k"]).pointer
    assert pointer is not None
    scene.engine.write([(DATA, b"k", records.encode_pointer(pointer._replace(length=2**64 - 1), 0))])
    with pytest.raises(Corruption, match="damaged"):
        scene.store.get(b"k")


def test_a_database_keeps_its_identity(scene: Scene) -> None:
    """Also over a restart."""
    identity = scene.store.metadata.identity()
    scene.restart()
    assert scene.store.metadata.identity() == identity
    assert Storage().store.metadata.identity() != identity


def test_readers_beside_a_writer(scene: Scene) -> None:
    """While one thread replaces a large value again and again, every reader sees a whole one."""
    values = [bytes([letter]) * (THRESHOLD + letter) for letter in b"abcdefgh"]
    scene.store.set(b"k", values[0])
    done, failures = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            try:
                seen = [scene.value(b"k"), dict(scene.store.scan(b"", budget=PLENTY).items)[b"k"]]
                failures.extend(value for value in seen if value not in values)
            except Exception as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(100):
        scene.store.set(b"k", values[turn % len(values)])
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(scene.files()) == 1


def test_a_scan_keeps_the_files_of_its_view(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is replaced just after the view was taken is still read from its file."""
    scene.store.set(b"k", BIG)
    taken = scene.engine.scan

    def then_replaced(*args: Any, **kwargs: Any) -> Any:
        pairs = taken(*args, **kwargs)
        monkeypatch.undo()
        scene.store.set(b"k", OTHER * 20)
        return pairs

    monkeypatch.setattr(scene.engine, "scan", then_replaced)
    assert scene.store.scan(b"", budget=PLENTY).items == [(b"k", BIG)]
    assert scene.value(b"k") == OTHER * 20
    assert len(scene.files()) == 1


def test_missing_pointer_is_told(scene: Scene) -> None:
    """A record that names a file which never was."""
    scene.engine.write([(DATA, b"k", records.encode_pointer(Pointer(bytes(16), 1, 1), 0))])
    with pytest.raises(Corruption, match=f"file {'00' * 16} is missing"):
        scene.store.get(b"k")
