"""`replace_file`: the old content or the new one, never a part, and nothing left behind."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.core.durable import replace_file

DISK_FAULT = OSError(errno.EIO, os.strerror(errno.EIO))


class Killed(BaseException):
    """Stands for the end of the process: no handler of ordinary errors sees it."""


def failing(error: BaseException) -> Callable[..., Any]:
    """A system call that fails."""

    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


def record_calls(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """The names of the calls of `os` that are made from now on, in order; they still do their work."""
    calls: list[str] = []
    for name in names:
        original = getattr(os, name)

        def call(*args: Any, name: str = name, original: Callable[..., Any] = original) -> Any:
            kind = name
            if name == "fsync":
                status = os.fstat(args[0])
                kind = "fsync folder" if stat.S_ISDIR(status.st_mode) else f"fsync {status.st_size} bytes"
            calls.append(kind)
            return original(*args)

        monkeypatch.setattr(os, name, call)
    return calls


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with old content, alone in its folder."""
    file = tmp_path / "state.json"
    file.write_bytes(b"old")
    return file


def test_content_is_replaced(path: Path) -> None:
    """The file holds the new content, for its owner alone, and the folder nothing else."""
    replace_file(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_stays(path: Path) -> None:
    """Also when root replaces the file; a new one belongs to the owner of its folder."""
    os.chown(path, 12345, 12346)
    replace_file(str(path), b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)
    path.unlink()
    os.chown(path.parent, 12347, 12348)
    replace_file(str(path), b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12347, 12348)


def test_a_missing_file_is_made(tmp_path: Path) -> None:
    """The first content makes the file."""
    replace_file(str(tmp_path / "first"), b"1")
    assert (tmp_path / "first").read_bytes() == b"1"


def test_what_stands_in_the_way_is_not_used(path: Path, tmp_path: Path) -> None:
    """Where the temporary file goes, others may have put a link to another file: that is not written to."""
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    temporary = tmp_path / "state.json.tmp"
    for link in (os.symlink, os.link):
        link(other, temporary)
        replace_file(str(path), b"new")
        assert other.read_bytes() == b"precious"
        assert (path.is_symlink(), path.read_bytes()) == (False, b"new")
        assert path.stat().st_ino != other.stat().st_ino


def test_a_name_without_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name stands in the current folder."""
    monkeypatch.chdir(tmp_path)
    replace_file("bare", b"1")
    assert (tmp_path / "bare").read_bytes() == b"1"


def test_the_order_makes_it_crash_safe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is on disk before it gets the name, and the name before success is reported."""
    calls = record_calls(monkeypatch, "fsync", "replace")
    replace_file(str(path), b"new")
    assert calls == ["fsync 3 bytes", "replace", "fsync folder"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_before_the_rename(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The old content stays and the temporary file goes."""
    monkeypatch.setattr(os, call, failing(DISK_FAULT))
    with pytest.raises(OSError, match="Input/output error"):
        replace_file(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_after_the_rename(path: Path, monkeypatch: pytest.MonkeyPatch, existed: bool) -> None:
    """When the folder cannot be synced, what was there before is put back."""
    if not existed:
        path.unlink()
    original = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise DISK_FAULT
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        replace_file(str(path), b"new")
    assert os.listdir(path.parent) == ([path.name] if existed else [])
    assert not existed or path.read_bytes() == b"old"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_file_systems_that_cannot_sync_folders(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Where a folder has no fsync of its own, there is nothing to wait for."""
    original = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    replace_file(str(path), b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_kill_before_the_rename(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The old content stays; the temporary file that is left is overwritten by the next call."""
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(Killed()))
        with pytest.raises(Killed):
            replace_file(str(path), b"a longer new content")
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(path.parent)) == [path.name, path.name + ".tmp"]
    replace_file(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]
