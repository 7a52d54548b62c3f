"""Files and streams of logs: what others do to them, and what becomes of the lines."""

from __future__ import annotations

import os
import resource
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.observability.log_sinks import MOVED_SECONDS, ROTATION_SECONDS, FileSink, StreamSink


class Scene:
    """A sink for one file, and a time under the test's control."""

    def __init__(self, folder: Path, **options: int) -> None:
        self.path = folder / "logs" / "a.log"
        self.path.parent.mkdir(exist_ok=True)
        self.now = 100.0
        bounds = {"max_bytes": 1 << 20, "max_files": 2, **options}
        self.sink = FileSink(str(self.path), seconds=lambda: self.now, **bounds)
        self.sink.open()

    def write(self, *lines: bytes) -> None:
        """Write them all."""
        assert self.sink.write(lines) == (len(lines), None)

    @property
    def files(self) -> dict[str, bytes]:
        """All files beside the log, and the log."""
        return {entry.name: entry.read_bytes() for entry in self.path.parent.iterdir() if entry.is_file()}


@contextmanager
def most_bytes(size: int) -> Iterator[None]:
    """Within the block no file can become larger than that, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_file_that_was_cut_has_no_hole(tmp_path: Path) -> None:
    """As logrotate's copytruncate does it: what follows begins at the file's begin."""
    scene = Scene(tmp_path)
    scene.write(b"one\n")
    os.truncate(scene.path, 0)
    scene.write(b"two\n")
    assert scene.files == {"a.log": b"two\n"}


def test_a_moved_file_is_left_after_a_moment(tmp_path: Path) -> None:
    """It is written to until it was gone for that long; then there is a new one at its path."""
    scene = Scene(tmp_path)
    scene.write(b"one\n")
    scene.path.rename(scene.path.with_name("old"))
    scene.write(b"two\n")
    assert scene.files == {"old": b"one\ntwo\n"}
    scene.now += MOVED_SECONDS
    scene.write(b"three\n")
    assert scene.files == {"old": b"one\ntwo\n", "a.log": b"three\n"}


def test_a_file_in_the_place_of_a_moved_one_is_taken_at_once(tmp_path: Path) -> None:
    """As logrotate's create does it; the mode stays that of the new file."""
    scene = Scene(tmp_path)
    scene.path.rename(scene.path.with_name("old"))
    scene.path.touch(0o640)
    scene.write(b"one\n")
    assert scene.files == {"old": b"", "a.log": b"one\n"}
    assert stat.S_IMODE(scene.path.stat().st_mode) == 0o640


def test_a_removed_file_is_made_again_at_once(tmp_path: Path) -> None:
    """Nobody could ever read what goes to a file without a name; its folder is made too."""
    scene = Scene(tmp_path)
    scene.write(b"one\n")
    scene.path.unlink()
    scene.path.parent.rmdir()
    scene.write(b"two\n")
    assert scene.files == {"a.log": b"two\n"}
    assert stat.S_IMODE(scene.path.parent.stat().st_mode) == 0o700
    scene.path.unlink()
    scene.write()
    assert scene.files == {"a.log": b""}


def test_told_to_open_anew(tmp_path: Path) -> None:
    """Without waiting for that moment."""
    scene = Scene(tmp_path)
    scene.path.rename(scene.path.with_name("old"))
    scene.sink.reopen()
    scene.write(b"one\n")
    assert scene.files == {"old": b"", "a.log": b"one\n"}


def test_a_file_that_cannot_be_opened_anew_is_kept(tmp_path: Path) -> None:
    """It is better than none; it is said, and tried again."""
    scene = Scene(tmp_path)
    scene.path.rename(scene.path.with_name("old"))
    scene.path.mkdir()
    scene.write(b"one\n")
    assert scene.files == {"old": b"one\n"}
    assert scene.sink.trouble == "cannot be opened anew: Is a directory"
    scene.path.rmdir()
    scene.now += MOVED_SECONDS
    scene.write(b"two\n")
    assert scene.files == {"old": b"one\n", "a.log": b"two\n"}
    assert scene.sink.trouble == ""


def test_a_file_that_comes_back_is_no_trouble(tmp_path: Path) -> None:
    """As after a folder lost its permissions for a while, or was renamed: nothing was opened anew, or has to be."""
    now = [0.0]
    (tmp_path / "logs").mkdir()
    sink = FileSink(str(tmp_path / "logs" / "a.log"), 1000, 2, lambda: now[0])
    sink.open()
    (tmp_path / "logs").rename(tmp_path / "aside")
    (tmp_path / "logs").write_text("in its place")
    for _ in range(3):
        assert sink.write([b"one\n"]) == (1, None)
        now[0] += MOVED_SECONDS
    assert "cannot be opened anew" in sink.trouble
    (tmp_path / "logs").unlink()
    (tmp_path / "aside").rename(tmp_path / "logs")
    assert sink.write([b"two\n"]) == (1, None)
    assert sink.trouble == ""
    assert (tmp_path / "logs" / "a.log").read_bytes() == b"one\n" * 3 + b"two\n"
    sink.close()


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """However often a file is moved, removed, rotated."""
    scene = Scene(tmp_path, max_bytes=10)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        scene.write(b"%09d\n" % number)
        scene.path.unlink() if number % 2 else scene.path.rename(scene.path.with_name("old"))
        scene.sink.reopen()
    assert len(os.listdir("/proc/self/fd")) == before
    scene.sink.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_rotation_is_by_bytes_and_between_lines(tmp_path: Path) -> None:
    """No file is larger than the bound, also in the middle of a batch; the newest is .1, and so many stay."""
    scene = Scene(tmp_path, max_bytes=100)
    lines = [b"%09d\n" % number for number in range(45)]
    scene.write(*lines)
    assert scene.files == {
        "a.log.2": b"".join(lines[20:30]), "a.log.1": b"".join(lines[30:40]), "a.log": b"".join(lines[40:]),
    }  # fmt: skip
    scene.write(b"x" * 500 + b"\n")
    assert len(scene.files["a.log"]) == 501
    scene.write(b"y\n")
    assert (len(scene.files["a.log.1"]), scene.files["a.log"]) == (501, b"y\n")


def test_rotation_keeps_the_mode(tmp_path: Path) -> None:
    """Whom the operator let read the log may read the next one."""
    scene = Scene(tmp_path, max_bytes=10)
    scene.path.chmod(0o664)
    scene.write(b"%09d\n" % 1, b"2\n")
    assert stat.S_IMODE(scene.path.stat().st_mode) == 0o664


def test_a_rotation_that_fails_is_tried_again(tmp_path: Path) -> None:
    """Meanwhile the file is written on, past its bound, and no old one is lost by trying."""
    scene = Scene(tmp_path, max_bytes=20)
    scene.path.with_name("a.log.1").mkdir()
    (scene.path.with_name("a.log.2") / "full").mkdir(parents=True)
    for number in range(5):
        scene.write(b"%09d\n" % number)
        scene.now += ROTATION_SECONDS
    assert len(scene.files["a.log"]) == 50
    assert scene.sink.trouble == "cannot be rotated: Directory not empty"
    scene.path.with_name("a.log.1").rmdir()
    scene.write(b"%09d\n" % 5)
    assert (len(scene.files["a.log.1"]), len(scene.files["a.log"])) == (50, 10)
    assert scene.sink.trouble == ""


def test_a_rotation_that_fails_half_way_moves_nothing_twice(tmp_path: Path) -> None:
    """Old files move on only as far as there is none in their way."""
    scene = Scene(tmp_path, max_bytes=10, max_files=3)
    for number in range(3):
        scene.write(b"%09d\n" % number)
    scene.path.with_name("a.log.1").unlink()
    scene.write(b"%09d\n" % 3)
    assert [scene.files[f"a.log.{number}"] for number in (1, 2)] == [b"%09d\n" % 2, b"%09d\n" % 0]


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """What was written in part is taken back, and written whole when there is room again: nothing is lost or glued."""
    scene = Scene(tmp_path)
    lines = [b"%09d\n" % number for number in range(10)]
    with most_bytes(35):
        written, error = scene.sink.write(lines)
        assert (written, error and error.strerror) == (3, "File too large")
        assert scene.files["a.log"] == b"".join(lines[:3])
        assert scene.sink.write(lines[3:])[0] == 0
    scene.write(*lines[3:])
    assert scene.files["a.log"] == b"".join(lines)


def test_half_a_line_that_cannot_be_taken_back_stays_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a file that may only be appended to (chattr +a): the next line begins a line."""
    scene = Scene(tmp_path)

    def refuse(fd: int, size: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "ftruncate", refuse)
    with most_bytes(15):
        assert scene.sink.write([b"%09d\n" % 1, b"%09d\n" % 2])[0] == 1
    scene.write(b"%09d\n" % 2, b"%09d\n" % 3)
    assert scene.files["a.log"] == b"000000001\n00000\n000000002\n000000003\n"


def test_half_a_line_of_an_earlier_run_stays_by_itself(tmp_path: Path) -> None:
    """After a power cut, for one."""
    Scene(tmp_path).path.write_bytes(b"one\nhal")
    scene = Scene(tmp_path)
    scene.write(b"two\n")
    assert scene.files["a.log"] == b"one\nhal\ntwo\n"


def test_a_link_to_somewhere_else(tmp_path: Path) -> None:
    """A log that leads to a pipe, as containers have it (/dev/stdout), is neither rotated nor left."""
    read, write = os.pipe()
    path = tmp_path / "a.log"
    path.symlink_to(f"/proc/self/fd/{write}")
    sink = FileSink(str(path), 10, 1)
    sink.open()
    for _ in range(3):
        assert sink.write([b"%09d\n" % 1, b"%09d\n" % 2]) == (2, None)
    assert os.read(read, 1000) == 3 * b"000000001\n000000002\n"
    assert sorted(os.listdir(tmp_path)) == ["a.log"]
    sink.close()
    os.close(read)
    os.close(write)


def test_a_stream_is_waited_for(tmp_path: Path) -> None:
    """Also one that somebody made one that does not wait; everything comes, in order."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    sink = StreamSink(write)
    os.close(write)
    lines = [b"%09d\n" % number for number in range(50_000)]
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(sink.write(lines)))
    thread.start()
    got = b""
    while len(got) < 10 * len(lines):
        got += os.read(read, 1 << 16)
    thread.join()
    assert (got, answers) == (b"".join(lines), [(len(lines), None)])
    sink.close()
    os.close(read)


def test_a_stream_on_a_full_disk_glues_nothing(tmp_path: Path) -> None:
    """Standard output may be a file: half a line stays by itself."""
    path = tmp_path / "out"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sink = StreamSink(fd)
    os.close(fd)
    lines = [b"%09d\n" % number for number in range(3)]
    with most_bytes(15):
        written, error = sink.write(lines)
    assert (written, error is None) == (1, False)
    assert sink.write(lines[1:]) == (2, None)
    assert path.read_bytes() == b"000000000\n00000\n000000001\n000000002\n"
    sink.close()
