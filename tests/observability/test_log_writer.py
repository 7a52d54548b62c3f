"""The threads that write logs: what waits, what is lost, and who waits for whom."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Callable

import pytest

from kvtwisted.config.settings import LoggingSettings
from kvtwisted.observability import log_writer
from kvtwisted.observability.log_sinks import Sink
from kvtwisted.observability.log_writer import LogWriter, LogWriters

#: Seconds after which a wait has failed.
PATIENCE = 30.0


def lost(lines: int) -> bytes:
    """What stands in the place of lost lines here."""
    return b"lost %d\n" % lines


def eventually(check: Callable[[], object]) -> None:
    """Wait until `check` is true."""
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again soon, and what hangs is found soon."""
    monkeypatch.setattr(log_writer, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(log_writer, "STUCK_SECONDS", 0.1)
    monkeypatch.setattr(log_writer, "OPEN_SECONDS", 0.1)


@pytest.fixture
def writers() -> Iterator[LogWriters]:
    """Those of a test, closed afterwards."""
    writers = LogWriters()
    yield writers
    writers.close(*writers.all)


def opened(writers: LogWriters, folder: Path, name: str = "a", max_bytes: int = 1 << 20) -> LogWriter:
    """A log in `folder`."""
    return writers.open(name, LoggingSettings(directory=str(folder), max_bytes=max_bytes, max_files=3), lost)


class FakeSink(Sink):
    """One that keeps lines in memory, or fails, or hangs."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.error: OSError | None = None
        self.going = threading.Event()
        self.going.set()
        self.opened = 0

    def reopen(self) -> None:
        """Count it."""
        self.opened += 1

    def write(self, lines: Sequence[bytes]) -> tuple[int, OSError | None]:
        """Keep them, when told to."""
        if lines:
            assert self.going.wait(PATIENCE)
        if self.error is not None:
            return 0, self.error
        self.lines += lines
        return len(lines), None


@pytest.fixture
def kept() -> Iterator[tuple[FakeSink, LogWriter]]:
    """A log in memory, started."""
    sink = FakeSink()
    writer = LogWriter("a.log", sink, lost)
    writer.start()
    yield sink, writer
    sink.error = None
    sink.going.set()
    writer.close(PATIENCE)


def test_lines_come_in_order(writers: LogWriters, tmp_path: Path) -> None:
    """Those added at once soon, those that are gathered within a second, and all of them at the end."""
    log = opened(writers, tmp_path)
    log.add(b"one\n")
    eventually(lambda: (tmp_path / "a.log").read_bytes() == b"one\n")
    log.gather(b"two\n")
    eventually(lambda: (tmp_path / "a.log").read_bytes() == b"one\ntwo\n")
    log.gather(b"three\n")
    log.add(b"four\n")
    log.close()
    assert (tmp_path / "a.log").read_bytes() == b"one\ntwo\nthree\nfour\n"
    assert log.dropped == 0


def test_a_look_does_not_wait_for_the_writer(
    writers: LogWriters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may sleep for an hour, where Python waits by a wall clock that was set back."""
    monkeypatch.setattr(log_writer, "LOOK_SECONDS", 3600.0)
    log = opened(writers, tmp_path)
    log.gather(b"one\n")
    writers.look()
    eventually(lambda: (tmp_path / "a.log").read_bytes() == b"one\n")


def test_a_log_that_cannot_be_opened(writers: LogWriters, tmp_path: Path) -> None:
    """Is an error of the start."""
    (tmp_path / "a.log").mkdir()
    with pytest.raises(IsADirectoryError):
        opened(writers, tmp_path)


def test_what_was_added_before_the_start_is_written(tmp_path: Path) -> None:
    """As by a process that is still to fork; also if it never comes to that."""
    sink = FakeSink()
    writer = LogWriter("a.log", sink, lost)
    writer.add(b"one\n")
    writer.settle(PATIENCE)
    assert sink.lines == [b"one\n"]
    writer.add(b"two\n")
    writer.start()
    writer.close(PATIENCE)
    assert sink.lines == [b"one\n", b"two\n"]


def test_a_log_that_hangs_holds_up_nobody(writers: LogWriters, tmp_path: Path) -> None:
    """Neither who logs, nor another log, nor the start, nor for long the end; it is said, once."""
    os.mkfifo(tmp_path / "pipe.log")
    stuck, other = opened(writers, tmp_path, "pipe"), opened(writers, tmp_path)
    stuck.add(b"nobody reads this\n")
    other.add(b"one\n")
    eventually(lambda: (tmp_path / "a.log").read_bytes() == b"one\n")
    eventually(lambda: stuck.stuck)
    assert writers.troubles() == ["pipe.log takes no lines: a write to it does not end"]
    assert not other.stuck
    reader = os.open(tmp_path / "pipe.log", os.O_RDONLY | os.O_NONBLOCK)
    eventually(lambda: not stuck.stuck and not stuck.waiting)
    assert os.read(reader, 100) == b"nobody reads this\n"
    assert writers.troubles() == []
    # A full pipe, and an end in spite of it.
    for _ in range(20):
        stuck.add(b"x" * 10_000 + b"\n")
    eventually(lambda: stuck.stuck)
    begun = time.monotonic()
    writers.close("pipe", "a")
    assert time.monotonic() - begun < PATIENCE / 2
    while stuck.waiting:
        with suppress(BlockingIOError):
            os.read(reader, 1 << 16)
    os.close(reader)


@pytest.mark.parametrize("opened_by_a_reader", [False, True])
def test_a_pipe_that_hangs_is_left_for_what_takes_its_place(
    writers: LogWriters, tmp_path: Path, opened_by_a_reader: bool
) -> None:
    """Whether the log waits for a reader to open it or to read: no line is lost that nobody was given."""
    path = tmp_path / "pipe.log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if opened_by_a_reader else None
    stuck = opened(writers, tmp_path, "pipe")
    lines = [b"%02d" % number + b"x" * 10_000 + b"\n" for number in range(20)]
    for line in lines:
        stuck.add(line)
    eventually(lambda: stuck.stuck)
    path.unlink()
    eventually(lambda: not stuck.stuck and not stuck.waiting)
    left = path.read_bytes()
    assert left.endswith(b"".join(lines[10:]))
    if reader is None:
        assert left == b"".join(lines)
    else:
        os.close(reader)


def test_what_waits_is_bounded(kept: tuple[FakeSink, LogWriter], monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes, of which each line has some of its own; what is lost is counted, and said in its place."""
    sink, writer = kept
    sink.going.clear()
    writer.add(b"first\n")
    eventually(lambda: writer._busy is not None and writer._waiting == [])
    writer._room = 10 * (100 + log_writer.LINE_BYTES)
    for number in range(15):
        writer.gather(b"%099d\n" % number)
    assert (writer.dropped, writer.waiting) == (5, 11)
    sink.going.set()
    eventually(lambda: sink.lines[-1:] == [b"lost 5\n"])
    assert sink.lines == [b"first\n", *[b"%099d\n" % number for number in range(10)], b"lost 5\n"]
    writer.add(b"last\n")
    writer.settle(PATIENCE)
    assert sink.lines[-1] == b"last\n"
    assert writer.dropped == 5


def test_what_fails_is_tried_again(kept: tuple[FakeSink, LogWriter]) -> None:
    """Nothing is lost by it as long as there is room; the file is opened anew; others can see that it fails."""
    sink, writer = kept
    sink.error = OSError(28, "No space left on device")
    writer.add(b"one\n")
    eventually(lambda: writer.stuck)
    assert writer.trouble == "a.log cannot be written: No space left on device"
    writer.add(b"two\n")
    sink.error = None
    writer.settle(PATIENCE)
    eventually(lambda: not writer.stuck)
    assert (sink.lines, writer.dropped, writer.trouble) == ([b"one\n", b"two\n"], 0, "")
    assert sink.opened


def test_what_is_left_at_the_end_is_counted(kept: tuple[FakeSink, LogWriter]) -> None:
    """It will never be written."""
    sink, writer = kept
    sink.error = OSError(28, "No space left on device")
    for _ in range(3):
        writer.add(b"line\n")
    writer.close(PATIENCE)
    assert (writer.dropped, sink.lines) == (3, [])
    writer.add(b"late\n")
    assert (writer.dropped, writer.waiting) == (4, 3)


def test_a_full_disk(writers: LogWriters, tmp_path: Path) -> None:
    """A device that takes nothing: said, counted as waiting, and the end comes all the same."""
    (tmp_path / "a.log").symlink_to("/dev/full")
    log = opened(writers, tmp_path)
    log.add(b"one\n")
    eventually(lambda: log.stuck)
    assert log.trouble == "a.log cannot be written: No space left on device"
    log.close()
    assert log.dropped == 1


def test_all_are_opened_anew(writers: LogWriters, tmp_path: Path) -> None:
    """At once, also those to which nothing is written."""
    opened(writers, tmp_path, "a")
    opened(writers, tmp_path, "b")
    for name in ("a", "b"):
        os.rename(tmp_path / f"{name}.log", tmp_path / f"{name}.old")
    writers.reopen()
    eventually(lambda: {"a.log", "b.log"} <= set(os.listdir(tmp_path)))


def test_threads_lose_no_line(writers: LogWriters, tmp_path: Path) -> None:
    """Lines added by several threads while another writes, rotates and reopens are all there, once."""
    log = opened(writers, tmp_path, max_bytes=100_000)
    each = 5_000

    def add(name: int) -> None:
        for number in range(each):
            (log.add if number % 2 else log.gather)(b"%d %d\n" % (name, number))

    threads = [threading.Thread(target=add, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.reopen()
        time.sleep(0.001)
    log.close(PATIENCE)
    lines = [line for path in tmp_path.iterdir() for line in path.read_bytes().splitlines()]
    assert len(lines) + log.dropped == 3 * each
    assert len(set(lines)) == len(lines)
