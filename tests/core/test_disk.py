"""How full the disk is, and how much of that is ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvtwisted.core import disk
from kvtwisted.core.disk import DiskUsage, disk_usage, folder_bytes, on_one_disk

from ..e2e.small_disks import bound, can_mount, mounted


@pytest.mark.parametrize(("used", "free", "percent"), [(0, 0, 0), (0, 5, 0), (1, 3, 25), (4, 4, 50), (5, 0, 100)])
def test_percent(used: int, free: int, percent: float) -> None:
    """Used of used and free; nothing at all is 0 %."""
    assert DiskUsage(used, free).percent == percent


def test_disk_usage_as_statvfs_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Used counts what root reserved as neither, as df does."""
    figures = os.statvfs_result((4096, 1024, 100, 40, 30, 0, 0, 0, 0, 255))
    asked: list[str] = []

    def statvfs(path: str) -> os.statvfs_result:
        asked.append(path)
        return figures

    monkeypatch.setattr(disk.os, "statvfs", statvfs)
    assert disk_usage(str(tmp_path)) == DiskUsage(used=60 * 1024, free=30 * 1024)
    assert asked == [str(tmp_path)]


def test_disk_usage_of_a_real_disk(tmp_path: Path) -> None:
    """Something is used, and a share of it."""
    usage = disk_usage(str(tmp_path))
    assert usage.used > 0
    assert 0 < usage.percent <= 100


def test_disk_usage_of_nowhere(tmp_path: Path) -> None:
    """No such path is an OSError."""
    with pytest.raises(FileNotFoundError):
        disk_usage(str(tmp_path / "missing"))


def _on_disk(*paths: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in paths)


def _written(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
    return path


def test_folder_bytes_of_a_tree(tmp_path: Path) -> None:
    """Blocks of all files at any depth; empty folders count nothing."""
    files = [
        _written(tmp_path / "a", 10_000),
        _written(tmp_path / "deep/er/b", 100_000),
        _written(tmp_path / "deep/c", 0),
    ]
    (tmp_path / "empty").mkdir()
    assert folder_bytes(str(tmp_path)) == _on_disk(*files) >= 110_000


def test_folder_bytes_counts_blocks_not_length(tmp_path: Path) -> None:
    """A sparse file counts what it takes."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    assert folder_bytes(str(tmp_path)) == _on_disk(tmp_path / "sparse") < 1 << 20


def test_folder_bytes_does_not_follow_links(tmp_path: Path) -> None:
    """A link to a folder or a file elsewhere is not ours."""
    _written(tmp_path / "elsewhere/big", 1_000_000)
    folder = tmp_path / "ours"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "file").symlink_to(tmp_path / "elsewhere/big")
    assert folder_bytes(str(folder)) == _on_disk(folder / "link", folder / "file") < 100_000


def test_folder_bytes_of_nowhere(tmp_path: Path) -> None:
    """A folder that does not exist has 0 bytes."""
    assert folder_bytes(str(tmp_path / "missing")) == 0


class _Vanishing:
    """A `scandir` that removes the files and folders named `gone` after they were listed."""

    def __init__(self, path: str) -> None:
        with os.scandir(path) as entries:
            self._entries = list(entries)
        for entry in self._entries:
            if entry.name == "gone":
                (os.rmdir if entry.is_dir() else os.unlink)(entry.path)

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return iter(self._entries)

    def __exit__(self, *_: object) -> None:
        pass


def test_folder_bytes_while_files_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and folders that are gone when they are looked at do not count, and do not stop the count."""
    kept = [_written(tmp_path / "kept", 5000), _written(tmp_path / "sub/kept", 5000)]
    _written(tmp_path / "gone", 5000)
    (tmp_path / "sub/gone").mkdir()
    expected = _on_disk(*kept)
    scandir = os.scandir

    def vanishing(path: str) -> _Vanishing:
        monkeypatch.setattr(disk.os, "scandir", scandir)
        try:
            return _Vanishing(path)
        finally:
            monkeypatch.setattr(disk.os, "scandir", vanishing)

    monkeypatch.setattr(disk.os, "scandir", vanishing)
    assert folder_bytes(str(tmp_path)) == expected
    assert not (tmp_path / "gone").exists()
    assert not (tmp_path / "sub/gone").exists()


def test_on_one_disk(tmp_path: Path) -> None:
    """Two folders of one file system, and one of another."""
    (tmp_path / "a").mkdir()
    assert on_one_disk(str(tmp_path), str(tmp_path / "a"))
    assert not on_one_disk(str(tmp_path), "/proc")


@pytest.mark.skipif(not can_mount(), reason="this user may not mount")
def test_disks_that_look_alike(tmp_path: Path) -> None:
    """Two of the same size that are equally full are two; two mounts of one are one, whatever the device's number
    says."""
    size = 48 << 20
    with mounted(tmp_path / "a", size) as a, mounted(tmp_path / "b", size) as b, bound(a, tmp_path / "c") as c:
        assert disk_usage(str(a)) == disk_usage(str(b))
        assert not on_one_disk(str(a), str(b))
        assert on_one_disk(str(a), str(c))
        assert list(a.iterdir()) == list(b.iterdir()) == []


@pytest.mark.skipif(not can_mount(), reason="this user may not mount")
def test_volumes_of_one_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have device numbers of their own: a file that takes space from the other one tells."""
    real, numbers = os.stat, iter(range(100))

    def stat(path: str) -> os.stat_result:
        figures = list(real(path))
        figures[2] = next(numbers)
        return os.stat_result(figures)

    with mounted(tmp_path / "a", 48 << 20) as a, bound(a, tmp_path / "c") as c:
        with monkeypatch.context() as patch:
            patch.setattr(disk.os, "stat", stat)
            together = on_one_disk(str(a), str(c))
        assert together
        assert list(a.iterdir()) == []
