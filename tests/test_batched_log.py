"""The logs that are written by the batch."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from kvtwisted import batched_log
from kvtwisted.batched_log import BatchedLog
from kvtwisted.config.settings import LoggingSettings


def _log(folder: Path, **settings: int) -> BatchedLog:
    log = BatchedLog("access", LoggingSettings(directory=str(folder), **settings))  # type: ignore[arg-type]
    log.open()
    return log


def test_lines_are_written_in_order_when_told_to(tmp_path: Path) -> None:
    """Nothing before `write`, everything after it, and nothing twice."""
    log = _log(tmp_path)
    log.add(b"one\n")
    log.add(b"two\n")
    assert (tmp_path / "access.log").read_bytes() == b""
    log.write()
    log.write()
    assert (tmp_path / "access.log").read_bytes() == b"one\ntwo\n"
    log.add(b"three\n")
    log.close()
    assert (tmp_path / "access.log").read_bytes() == b"one\ntwo\nthree\n"
    assert log.dropped == 0


def test_a_log_that_is_not_open_keeps_nothing(tmp_path: Path) -> None:
    """Neither before it is opened nor after it was closed."""
    log = BatchedLog("access", LoggingSettings(directory=str(tmp_path)))
    log.add(b"early\n")
    log.open()
    log.close()
    log.add(b"late\n")
    log.write()
    assert (tmp_path / "access.log").read_bytes() == b""
    assert log.dropped == 0


def test_rotation(tmp_path: Path) -> None:
    """The file is rotated by size, and so many old ones are kept."""
    log = _log(tmp_path, max_bytes=1000, max_files=2)
    for number in range(10):
        log.add(b"%0999d\n" % number)
        log.write()
    log.close()
    assert sorted(os.listdir(tmp_path)) == ["access.log", "access.log.1", "access.log.2"]


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines over the limit are dropped and counted; those within it are written."""
    monkeypatch.setattr(batched_log, "MAX_WAITING", 3)
    log = _log(tmp_path)
    for number in range(5):
        log.add(b"%d\n" % number)
    log.close()
    assert (tmp_path / "access.log").read_bytes() == b"0\n1\n2\n"
    assert log.dropped == 2


def test_a_full_disk_drops_lines_and_no_more(tmp_path: Path) -> None:
    """A batch that cannot be written is counted, and the next is tried all the same."""
    log = _log(tmp_path)
    with open("/dev/full", "wb", buffering=0) as full:
        log._file = full  # type: ignore[assignment]
        log.add(b"a\n")
        log.add(b"b\n")
        log.write()
        assert log.dropped == 2
        log.add(b"c\n")
        log.write()
        assert log.dropped == 3


def test_threads_lose_no_line(tmp_path: Path) -> None:
    """Lines added by several threads while another writes are all there, once."""
    log = _log(tmp_path, max_bytes=10_000_000)
    each = 5_000

    def add(name: int) -> None:
        for number in range(each):
            log.add(b"%d %d\n" % (name, number))

    threads = [threading.Thread(target=add, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.write()
        time.sleep(0.001)
    log.close()
    lines = (tmp_path / "access.log").read_bytes().splitlines()
    assert len(lines) + log.dropped == 3 * each
    assert len(set(lines)) == len(lines)
