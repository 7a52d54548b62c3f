"""What can be taken over by links is found out by one link."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kvtwisted.backends.local.maintenance.copying import Copying, can_link, can_move, tree_bytes
from kvtwisted.core.errors import StorageFull

from ....e2e.small_disks import MIB, bound, can_mount, mounted


def _folders(root: Path) -> tuple[str, str]:
    source, target = root / "source", root / "target"
    source.mkdir()
    target.mkdir()
    return str(source), str(target)


def test_one_file_system(tmp_path: Path) -> None:
    """Both ways work, and nothing is left of the trial, nor of one that a crash cut short."""
    source, target = _folders(tmp_path)
    for _ in range(2):
        assert can_link(source, target)
        assert can_move(source, target)
        assert can_link(source, source)
        assert os.listdir(source) == os.listdir(target) == []
        for folder in (source, target):
            Path(folder, ".kvtwisted-link").touch()
            Path(folder, ".kvtwisted-linked").touch()
        assert can_link(source, target)
        for folder in (source, target):
            for left in Path(folder).iterdir():
                left.unlink()


@pytest.mark.parametrize("refusal", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_links_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int) -> None:
    """For whatever reason: what is asked is a link, and nothing about the folders."""

    def refuse(*paths: object, **options: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    source, target = _folders(tmp_path)
    monkeypatch.setattr(os, "link", refuse)
    assert not can_link(source, target)
    monkeypatch.setattr(os, "rename", refuse)
    assert not can_move(source, target)
    assert os.listdir(source) == os.listdir(target) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """That is no answer."""
    source, _ = _folders(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        can_link(source, str(tmp_path / "none"))
    assert os.listdir(source) == []


@pytest.mark.skipif(not can_mount(), reason="this user may not mount")
def test_two_mounts_of_one_file_system(tmp_path: Path) -> None:
    """They have one device number, and refuse links all the same."""
    with mounted(tmp_path / "disk", MIB) as disk:
        source, target = _folders(disk)
        with bound(disk / "target", tmp_path / "elsewhere") as elsewhere:
            assert os.stat(source).st_dev == os.stat(elsewhere).st_dev
            assert not can_link(source, str(elsewhere))
            assert not can_move(source, str(elsewhere))
            assert can_link(source, target)


def test_room_is_asked_for_each_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is copied, and before it is written."""
    source, target = _folders(tmp_path)
    Path(source, "file").write_bytes(bytes(3 * MIB))
    monkeypatch.setattr("kvtwisted.backends.local.maintenance.copying._NO_LINK", {errno.EEXIST})
    asked: list[int] = []

    def room(size: int) -> None:
        asked.append(size)
        if len(asked) == 3:
            raise StorageFull("no room")

    def refuse(*paths: object, **options: object) -> None:
        raise OSError(errno.EEXIST, "")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageFull):
        Copying(lambda: None, room).folder(source, os.path.join(target, "copy"))
    assert asked == [MIB, MIB, MIB]
    assert os.path.getsize(os.path.join(target, "copy", "file")) == 2 * MIB


def test_tree_bytes(tmp_path: Path) -> None:
    """Whole blocks, without the sub-folders that are left out."""
    for name, size in (("a", 1), ("b/c", 4096), ("b/d", 4097), ("gone/e", 9000)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert tree_bytes(str(tmp_path)) == (1 + 1 + 2 + 3) * 4096
    assert tree_bytes(str(tmp_path), ["gone"]) == 4 * 4096
