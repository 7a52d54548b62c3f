"""What the tests do to a server's disk: failing system calls, mounts, damaged files."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.harness import Server, eventually


@contextmanager
def failing_calls(server: Server, calls: str, error: str = "EIO", files: list[Path] | None = None) -> Iterator[None]:
    """Within the block the server's system calls of these names fail, on those files where given."""
    if not can_trace():
        pytest.skip("strace is not installed, or this machine does not let it attach to a process")
    command = ["strace", "-f", "-p", str(server.pid), "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
    for file in files or ():
        command += ["-P", str(file)]
    tracer = subprocess.Popen([*command, "-o", os.devnull], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: all(_tracer(thread) == tracer.pid for thread in _threads(server.pid)))
        yield
    finally:
        tracer.terminate()
        tracer.wait()
        eventually(lambda: not any(map(_tracer, _threads(server.pid))))


def _threads(pid: int) -> list[Path]:
    with suppress(FileNotFoundError):
        return list(Path(f"/proc/{pid}/task").iterdir())
    return []


def _tracer(thread: Path) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in (thread / "status").read_text().splitlines():
            if line.startswith("TracerPid:"):
                return int(line.split()[1])
    return 0


@functools.cache
def can_trace() -> bool:
    """Whether strace is here, and may attach to a process."""
    if shutil.which("strace") is None:
        return False
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as idle:
        tracer = subprocess.Popen(["strace", "-p", str(idle.pid), "-o", os.devnull], stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        attached = "attached" in tracer.stderr.readline()
        tracer.terminate()
        tracer.communicate()
        idle.communicate()
    return attached


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[None]:
    """Within the block `mount ARGUMENTS folder` is in force."""
    if not _can_mount():
        pytest.skip("this user may not mount: that takes root")
    subprocess.run(["mount", *arguments, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def read_only(*folders: Path) -> Iterator[None]:
    """Within the block everything in the folders is read-only for whoever opens it anew.

    The kernel refuses to remount while files are open for writing, as RocksDB's always are. What it does by itself when
    a disk fails cannot be undone under a running server: so this, which can.
    """
    with ExitStack() as mounts:
        for folder in folders:
            mounts.enter_context(mounted(folder, "--bind", str(folder)))
            subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield


@functools.cache
def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "kvtwisted", folder]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", "--lazy", folder], check=True)
    return True


def fill(path: Path) -> None:
    """Write to `path` until the disk is full."""
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65_536))


def overwrite(file: Path, position: int, length: int = 64) -> None:
    """Damage some bytes."""
    with file.open("r+b") as stream:
        stream.seek(position)
        stream.write((b"\xde\xad\xbe\xef" * length)[:length])
