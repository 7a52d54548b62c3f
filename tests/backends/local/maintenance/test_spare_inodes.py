"""Empty files whose inodes are there for RocksDB when there are no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvtwisted.backends.local.maintenance import spare_inodes
from kvtwisted.backends.local.maintenance.spare_inodes import SpareInodes
from kvtwisted.core.disk import DiskUsage


class Scene:
    """The spare files of a folder, on a file system whose free inodes are what is said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.free = 1000
        self.total = 2000

    def usage(self, path: str) -> DiskUsage:
        """What is said."""
        assert path == str(self.folder)
        return DiskUsage(0, 1, self.total, self.free)

    def files(self) -> int:
        """How many spare files there are."""
        return sum(path.is_file() for path in self.folder.rglob("*"))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """One with inodes enough."""
    scene = Scene(tmp_path)
    monkeypatch.setattr(spare_inodes, "disk_usage", scene.usage)
    return scene


def test_kept_while_there_are_enough(scene: Scene) -> None:
    """Some for the next start, some for a running server; none are taken where there are few, or made as needed."""
    for total, free in ((2000, 239), (0, 0)):
        scene.total, scene.free = total, free
        assert not SpareInodes(str(scene.folder)).look()
        assert scene.files() == 0
    scene.total, scene.free = 2000, 240
    assert not SpareInodes(str(scene.folder)).look()
    assert scene.files() == 40


def test_given_up_in_part(scene: Scene) -> None:
    """While the server runs those for that, once; when it starts the others, of which it takes again what is left."""
    spare = SpareInodes(str(scene.folder))
    spare.look()
    scene.free = 15
    assert spare.look()
    assert scene.files() == 24
    assert not spare.look()
    again = SpareInodes(str(scene.folder))
    assert again.before_open()
    assert scene.files() == 0
    assert not again.before_open()
    again.after_open()
    assert scene.files() == 24
    scene.free = 1000
    again.look()
    assert scene.files() == 40


def test_an_ordinary_start_leaves_them(scene: Scene) -> None:
    """They are for when there are no others."""
    SpareInodes(str(scene.folder)).look()
    assert not SpareInodes(str(scene.folder)).before_open()
    SpareInodes(str(scene.folder)).after_open()
    assert scene.files() == 40


def test_without_a_folder(tmp_path: Path) -> None:
    """That is an error, as for whoever measures."""
    with pytest.raises(FileNotFoundError):
        SpareInodes(str(tmp_path / "gone")).look()
