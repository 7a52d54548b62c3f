"""Paths that the configuration names: what an error of one is called, and whether a folder is still the same."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kvtwisted.core.errors import StorageError, StorageFull, UnusablePath
from kvtwisted.core.paths import Folder, FolderMonitor, kind_of


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EACCES, UnusablePath),
        (errno.EROFS, UnusablePath),
        (errno.ENOENT, UnusablePath),
        (errno.EIO, StorageError),
    ],
)
def test_kinds(number: int, kind: type[StorageError]) -> None:
    """A full disk, a path that may not be used, and a disk that fails are different things."""
    assert kind_of(OSError(number, "what happened")) is kind


class Scene:
    """A monitored folder with a file, and what was told of it."""

    def __init__(self, parent: Path) -> None:
        self.path = parent / "data"
        self.path.mkdir()
        (self.path / "LOCK").touch()
        self.told: list[str | None] = []
        self.monitor = FolderMonitor(
            [Folder("rocksdb.path", str(self.path), ("LOCK",))], lambda folder, trouble: self.told.append(trouble)
        )

    def look(self) -> list[str | None]:
        """What two looks tell."""
        self.told.clear()
        self.monitor.look()
        self.monitor.look()
        return self.told


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A folder as it should be."""
    return Scene(tmp_path)


def test_folder_that_stays(scene: Scene) -> None:
    """Nothing is told of it, whatever files come and go."""
    assert scene.look() == []
    (scene.path / "CURRENT").touch()
    assert scene.look() == []


def test_folder_that_is_renamed_and_comes_back(scene: Scene) -> None:
    """Each change is told once; with the key, the path and what to do."""
    aside = scene.path.rename(scene.path.parent / "aside")
    lost = f"rocksdb.path: the folder {scene.path} is lost: No such file or directory; bring it back as it was"
    assert scene.look() == [lost]
    assert scene.look() == []
    scene.path.mkdir()
    (another,) = scene.look()
    assert another == (
        f"rocksdb.path: the folder {scene.path} is not the one that the server has opened; bring that back, or restart "
        "the server on this one"
    )
    (scene.path / "LOCK").touch()
    assert scene.look() == []
    (scene.path / "LOCK").unlink()
    scene.path.rmdir()
    aside.rename(scene.path)
    assert scene.look() == [None]
    assert scene.look() == []


def test_folder_that_is_emptied(scene: Scene) -> None:
    """The same folder, without its files, or with others of their names."""
    (scene.path / "LOCK").rename(scene.path / "kept")
    assert scene.look() == [f"rocksdb.path: the folder {scene.path} has lost its files; restart the server"]
    (scene.path / "LOCK").touch()
    (trouble,) = scene.look()
    assert trouble is not None
    assert "has other files than the server has opened" in trouble
    (scene.path / "kept").rename(scene.path / "LOCK")
    assert scene.look() == [None]


def test_folder_that_is_none(scene: Scene) -> None:
    """A file in its place."""
    scene.path.rename(scene.path.parent / "aside")
    scene.path.touch()
    (trouble,) = scene.look()
    assert trouble is not None
    assert "is lost: Not a directory" in trouble
