"""Large values on disks that fail or are full, and what they take there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kvtwisted.backends.local import large_values
from kvtwisted.core.errors import NoInodes, Overloaded, StorageError, StorageFull, Unavailable, WriteStalled

from .large_values import BIG, OTHER, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """An empty one."""
    return Scene(tmp_path / "values")


def _raise(error: Exception) -> None:
    raise error


def test_no_space_leaves_nothing_behind(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says so, no record is written, and MSet is all or nothing."""
    scene.store.set(b"a", b"before")
    real, calls = large_values.write_synced, []

    def full(path: str, data: bytes) -> None:
        calls.append(path)
        if len(calls) > 1:
            real(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(large_values, "write_synced", full)
    with pytest.raises(StorageFull, match="no space left for a large value"):
        scene.store.mset({b"a": BIG, b"b": OTHER})
    monkeypatch.undo()
    assert scene.files() == []
    assert [scene.value(key) for key in (b"a", b"b")] == [b"before", None]


def test_other_failures_of_the_disk(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write error is a StorageError, and so is a read error."""
    scene.store.set(b"k", BIG)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageError, match=r"cannot write a large value in .*: Input/output error"):
        scene.store.set(b"k", OTHER)
    monkeypatch.undo()
    (file,) = scene.files()
    file.unlink()
    file.mkdir()
    with pytest.raises(StorageError, match=r"cannot read a large value in .*: Is a directory"):
        scene.store.get(b"k")


def test_stalled_write_takes_its_file_away(scene: Scene) -> None:
    """Nothing was written, so nothing stays."""
    scene.engine.fail("write", WriteStalled("stalled"))
    with pytest.raises(Overloaded):
        scene.store.set(b"k", BIG, deadline=0.0)
    assert scene.files() == []


def test_unknown_outcome_keeps_the_file(scene: Scene) -> None:
    """When the record may have been written, its file stays; if it was not, the next start collects it."""
    scene.engine.fail("write", StorageError("broke"), times=1)
    with pytest.raises(StorageError):
        scene.store.set(b"k", BIG)
    assert scene.writer.commits.file_index.collect_orphans().files == 0
    assert len(scene.files()) == 1
    scene.restart_files()
    assert scene.writer.commits.file_index.collect_orphans().files == 1


def test_a_reopening_tells_what_became_of_a_failed_write(scene: Scene) -> None:
    """The file of a record that is there after all stays, that of the other goes with the next fsync."""
    scene.engine.fail("write", StorageError("broke"), times=1)
    with pytest.raises(StorageError):
        scene.store.set(b"lost", OTHER)
    scene.store.delete(b"none")  # it takes writes again
    scene.engine.after("write", lambda: _raise(StorageError("broke")))
    with pytest.raises(StorageError):
        scene.store.set(b"k", BIG)
    scene.writer.commits.reopen()
    scene.store.set(b"small", b"v")
    scene.writer.commits.sync()
    assert len(scene.files()) == 1
    assert scene.value(b"k") == BIG
    scene.store.delete(b"k")
    assert scene.files() == []


def test_a_refused_write_takes_its_file_away(scene: Scene) -> None:
    """While the storage is reopened nothing is done, so the file goes with the next fsync."""
    scene.engine.fail("write", Unavailable("reopening"), times=1)
    with pytest.raises(Unavailable):
        scene.store.set(b"k", BIG)
    scene.writer.commits.sync()
    assert scene.files() == []


def test_failing_writes_do_not_heap_up_files(scene: Scene) -> None:
    """Once a batch has failed, no file is written before the engine takes writes again."""
    scene.engine.fail("write", StorageError("broke"))
    for _ in range(5):
        with pytest.raises(StorageError, match="broke"):
            scene.store.mset({b"k": BIG, b"l": OTHER})
    assert len(scene.files()) == 2
    scene.engine.heal("write")
    scene.store.set(b"k", OTHER)
    assert scene.value(b"k") == OTHER
    scene.engine.fail("write", StorageError("broke"), times=1)
    with pytest.raises(StorageError, match="broke"):
        scene.store.set(b"small", b"v")
    scene.engine.fail("write", WriteStalled("stalled"), times=2)
    scene.store.set(b"l", OTHER)
    assert scene.value(b"l") == OTHER


def test_deadline_ends_a_batch_of_large_values(scene: Scene) -> None:
    """It is looked at before each file but the first; nothing is written then, and no file stays."""
    with pytest.raises(Overloaded, match="time ran out while its large values were being written"):
        scene.store.mset({b"a": BIG, b"b": BIG, b"c": BIG}, deadline=0.0)
    assert scene.files() == []
    assert scene.data() == {}


def _taken(scene: Scene) -> int:
    return sum(path.stat().st_blocks * 512 for path in scene.files())


def test_bytes_are_kept_in_mind(scene: Scene) -> None:
    """Each value counts from when it is stored until its file has gone, and after a start without a walk."""
    files = scene.writer.files
    assert files.taken == 0
    scene.store.mset({b"a": BIG, b"b": OTHER * 10, b"c": OTHER})
    scene.store.set(b"a", OTHER * 20)
    assert files.taken == _taken(scene) > 0
    with files.reading():
        scene.store.delete(b"b")
        assert files.taken == _taken(scene)
    assert files.taken == _taken(scene)
    scene.restart_files()
    assert scene.writer.files.taken == _taken(scene)
    scene.store.mdelete([b"a", b"c"])
    assert scene.writer.files.taken == _taken(scene) == 0


def test_bytes_of_what_cannot_be_unlinked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are still taken, until the collection of orphans has them; orphans of others do not count."""
    files = scene.writer.files
    scene.store.mset({b"a": BIG, b"b": BIG})

    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "no", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        scene.store.delete(b"a")
    assert files.taken == _taken(scene) > 0
    (scene.folder / "ab" / ("ab" * 16)).write_bytes(b"x" * 50_000)
    assert scene.writer.commits.file_index.collect_orphans().files == 2
    assert files.taken == _taken(scene) > 0


def test_no_inode_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without inodes is not called full when its bytes are free."""

    def refuse(path: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(large_values, "out_of_inodes", lambda folder: folder == str(scene.folder))
    monkeypatch.setattr(large_values, "write_synced", refuse)
    with pytest.raises(NoInodes, match="no inode is free for a large value's file"):
        scene.store.set(b"k", BIG)
