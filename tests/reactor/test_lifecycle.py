"""Stopping in reverse order."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any, Callable

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.logger import capturedLogs, formatEvent

from kvtwisted.core.errors import StorageFull, Unavailable
from kvtwisted.reactor.lifecycle import Unwinding, make_folder, warn_of_open_folders


def _unwound(unwinding: Unwinding) -> list[object]:
    """Start unwinding; the list has one item once it is done."""
    done: list[object] = []
    ensureDeferred(unwinding.unwind()).addBoth(done.append)
    return done


def test_undoes_in_reverse() -> None:
    """What was started last is stopped first."""
    unwinding, stopped = Unwinding(), []
    for name in ("engine", "pool", "server"):
        unwinding.push(name, lambda name=name: stopped.append(name))
    assert stopped == []
    assert _unwound(unwinding) == [None]
    assert stopped == ["server", "pool", "engine"]


def test_waits_for_each_step() -> None:
    """The next step begins when the Deferred of the one before has fired."""
    unwinding, draining = Unwinding(), Deferred()
    stopped: list[str] = []
    unwinding.push("engine", lambda: stopped.append("engine"))
    unwinding.push("server", lambda: draining)
    done = _unwound(unwinding)
    assert (stopped, done) == ([], [])
    draining.callback(None)
    assert (stopped, done) == (["engine"], [None])


@pytest.mark.parametrize("failing", [lambda: 1 / 0, lambda: fail(ZeroDivisionError())])
def test_failure_does_not_stop_the_rest(failing: Any) -> None:
    """A step that raises, or whose Deferred fails, is logged by its name; the rest is undone."""
    unwinding = Unwinding()
    stopped: list[str] = []
    unwinding.push("engine", lambda: stopped.append("engine"))
    unwinding.push("server", failing)
    with capturedLogs() as events:
        assert _unwound(unwinding) == [None]
    assert stopped == ["engine"]
    (event,) = events
    assert formatEvent(event) == "server did not stop cleanly"
    assert event["log_failure"].type is ZeroDivisionError


def test_known_failure_is_one_line() -> None:
    """What a full disk does to the last flush is logged without a traceback."""
    unwinding = Unwinding()
    unwinding.push("engine", lambda: fail(StorageFull("no space left")))
    with capturedLogs() as events:
        assert _unwound(unwinding) == [None]
    (event,) = events
    assert formatEvent(event) == "engine did not stop cleanly: no space left"
    assert "log_failure" not in event


def test_folders_are_made(tmp_path: Path) -> None:
    """Also several levels deep, and again; one that cannot be made is named with its key."""
    folder = tmp_path / "a" / "b"
    for _ in range(2):
        make_folder("rocksdb.path", str(folder))
        assert folder.is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"^rocksdb\.path: cannot make the folder .*/file: File exists$"):
        make_folder("rocksdb.path", str(tmp_path / "file"))


def test_folders_survive_a_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder that got a new entry is fsynced; the one above a folder that was there, all the same."""
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    make_folder("rocksdb.path", str(tmp_path / "a" / "b"))
    assert synced == [tmp_path / "a", tmp_path]
    make_folder("rocksdb.path", str(tmp_path / "a" / "b"))
    assert synced[2:] == [tmp_path / "a"]


def test_folders_above_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is used although nobody can wait until its entry is on the disk; a disk that fails is an error."""
    monkeypatch.setattr(os, "fsync", _failing(PermissionError(errno.EACCES, "Permission denied")))
    make_folder("rocksdb.path", str(tmp_path / "a"))
    assert (tmp_path / "a").is_dir()
    monkeypatch.setattr(os, "fsync", _failing(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(Unavailable, match=r"^rocksdb\.path: cannot make the folder .*/a: Input/output error$"):
        make_folder("rocksdb.path", str(tmp_path / "a"))


def _failing(error: OSError) -> Callable[[int], None]:
    def fsync(descriptor: int) -> None:
        raise error

    return fsync


def test_each_step_is_undone_once() -> None:
    """Unwinding again does nothing, and what is pushed later is undone by the next one."""
    unwinding = Unwinding()
    stopped: list[str] = []
    unwinding.push("engine", lambda: stopped.append("engine"))
    _unwound(unwinding)
    assert _unwound(unwinding) == [None]
    assert stopped == ["engine"]
    unwinding.push("pool", lambda: stopped.append("pool"))
    _unwound(unwinding)
    assert stopped == ["engine", "pool"]


def test_step_pushed_while_unwinding_is_undone_too() -> None:
    """A part that was still starting is stopped like the others."""
    unwinding = Unwinding()
    stopped: list[str] = []
    unwinding.push("engine", lambda: stopped.append("engine"))
    unwinding.push("server", lambda: unwinding.push("late", lambda: stopped.append("late")))
    assert _unwound(unwinding) == [None]
    assert stopped == ["late", "engine"]


def test_new_folders_are_their_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask; a folder that is there keeps its rights."""
    before = os.umask(0)
    try:
        make_folder("rocksdb.path", str(tmp_path / "a" / "data"))
        (tmp_path / "shared").mkdir(0o755)
        make_folder("rocksdb.path", str(tmp_path / "shared"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o755


def test_folders_that_others_can_get_at_are_named(tmp_path: Path) -> None:
    """One line each, with what mends it; not for what a folder above keeps others from, nor for what is not there."""
    above = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        above.chmod(0o755)
        (above / "open").mkdir()
        (above / "open").chmod(0o755)
        (above / "closed").mkdir(0o750)
        paths = {"rocksdb.path": above / "open", "backup.path": above / "closed", "value.disk_path": above / "none"}
        with capturedLogs() as events:
            warn_of_open_folders({name: str(path) for name, path in paths.items()})
        said = f"can get at {above}/open (mode 0755); chmod o-rwx {above}/open mends it"
        assert [formatEvent(event) for event in events] == [f"rocksdb.path: other users of this machine {said}"]
        above.chmod(0o700)
        with capturedLogs() as events:
            warn_of_open_folders({"rocksdb.path": str(above / "open")})
        assert events == []
    finally:
        shutil.rmtree(above)
