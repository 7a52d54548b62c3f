"""File descriptors and threads: how many there are, and may be."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.core import resources
from kvtwisted.core.errors import StorageError
from kvtwisted.core.resources import Use, descriptors, no_descriptors, threads


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Within the block this process can open nothing."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, limits[1]))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(
    ("used", "limit", "nearly", "no_more"),
    [
        (89, 100, False, False),
        (90, 100, True, False),
        (92, 100, True, False),
        (93, 100, True, True),
        (5, 0, False, False),
    ],
)
def test_how_much_is_left(used: int, limit: int, nearly: bool, no_more: bool) -> None:
    """From nine in ten on it is said, and a handful is as good as none; without a limit there is always more."""
    use = Use("threads", used, limit, "ulimit -u")
    assert (use.nearly_all, use.all) == (nearly, no_more)


def test_descriptors_are_counted() -> None:
    """Each open file is one; the limit is the process's own."""
    before = descriptors()
    assert before.limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with open("/dev/null"):
        assert descriptors().used == before.used + 1


def test_threads_are_counted() -> None:
    """Each running thread is one."""
    before, end = threads(), threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert threads().used >= before.used
        assert threads().used > 1
    finally:
        end.set()
        thread.join()


def test_the_tightest_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container's, where it is nearer than the user's."""
    (tmp_path / "pids.current").write_text("95\n")
    (tmp_path / "pids.max").write_text("100\n")
    monkeypatch.setattr(resources, "_CGROUP", str(tmp_path))
    assert str(threads()) == "95 of 100 threads are in use (the container's pids.max is their limit)"
    (tmp_path / "pids.max").write_text("max\n")
    assert threads().limited_by != "the container's pids.max"


def test_no_descriptor_left(tmp_path: Path) -> None:
    """That is known, named in the error of who needed one, and over when some are free again."""
    files = ValueFiles(str(tmp_path))
    files.prepare()
    with no_descriptors_left():
        assert descriptors().all
        assert no_descriptors().startswith("no file descriptor is free: ")
        with pytest.raises(StorageError, match=r"cannot write a large value: no file descriptor is free: .*ulimit -n"):
            files.store(b"value")
    files.store(b"value")
