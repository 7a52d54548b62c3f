"""Nothing but the configured folders is written, whatever the server does: what a read-only root asks for."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import FREE_PORTS, TWISTD, UNMEASURED, Launcher, engine, environment, eventually, transport

from .causes import can_trace

#: Calls that change a file system, with the path or paths that they name; of open those that may write.
_CHANGES = re.compile(
    r'\b(?:open|openat|creat)\((?:[^",]*, )?"(?P<opened>[^"]*)".*\b(?:O_WRONLY|O_RDWR|O_CREAT)\b.*(?: = \d|<unf)'
    r'|\b(?:mkdir|mkdirat|unlink|unlinkat|rmdir|truncate|mknod|chmod|chown)\((?:[^",]*, )?"(?P<changed>[^"]*)".* = 0'
    r'|\b(?:rename|renameat2?|link|linkat|symlink)\((?:[^",]*, )?"(?P<old>[^"]*)", (?:[^",]*, )?"(?P<new>[^"]*)"'
    r".*(?: = 0|<unf)"  # unfinished, while another thread is shown
)
#: A name in a folder that is open, as when a tree of files is removed: the folder was named before.
_BELOW = re.compile(r'\(\d+, "[^/]')
#: What the kernel offers to write to; no file system.
_DEVICES = ("/dev/", "/proc/self/")
#: The fsync of each thread that fails: one behind those of the start.
_FAILING = 25


def changed_paths(trace: Path) -> set[str]:
    """The paths that a trace by strace says were written, made, renamed or removed."""
    lines = [line for line in trace.read_text(errors="replace").splitlines() if not _BELOW.search(line)]
    return {path for match in map(_CHANGES.search, lines) if match for path in match.groups() if path}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nothing_but_the_configured_folders(tmp_path: Path) -> None:
    """From the start to the stop, with large values, a backup, a change of the configuration, and a recovery."""
    if not can_trace():
        pytest.skip("this machine does not let strace attach to a process")
    # What twistd writes into its installation is written by whoever installs it, as docs/operations.md says.
    subprocess.run([*TWISTD, "--help"], check=True, capture_output=True, env=environment(), cwd=tmp_path)
    ours, elsewhere, trace = tmp_path / "ours", tmp_path / "elsewhere", tmp_path / "trace"
    ours.mkdir()
    elsewhere.mkdir()
    fails = f"inject=fsync,fdatasync:error=EIO:when={_FAILING}"
    command = [
        *UNMEASURED,
        *("strace", "-f", "-qq", "--seccomp-bpf", "-s", "300", "-o", str(trace)),
        *("-e", "trace=%file,fsync,fdatasync", "-e", fails),
        *TWISTD, "-n", "--pidfile=", "kvtwisted", *FREE_PORTS,
        "--storage-engine", engine(), "--grpc-transport", transport(), "--monitoring-sample-interval", "1",
        "--rocksdb-options-sync", "true", "--value-disk-threshold", "100000",
        "--rocksdb-path", str(ours / "data"), "--value-disk-path", str(ours / "values"),
        "--logging-directory", str(ours / "logs"), "--logging-access", "true",
        "--backup-path", str(ours / "backups"), "--runtime-config", str(ours / "runtime.json"),
    ]  # fmt: skip
    launcher = Launcher(tmp_path)
    # Of Python's own compiled modules there may be some that nobody has used yet.
    env = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(elsewhere), "TMPDIR": str(elsewhere)}
    server = launcher.run(command, name="elsewhere", env=env)
    try:
        with server.http() as http:
            answers = (http.post("/api/v1/set", {"key": f"key{number}", "value": "v"}) for number in range(2000))
            assert next(answer.status for answer in answers if answer.status != 200) == 500
            eventually(lambda: "writes work again" in server.output)
            eventually(lambda: http.post("/api/v1/set", {"key": "large", "value": "x" * 200_000}).status == 200)
            assert http.post("/api/v1/config", {"eviction": {"batch_size": 5}}).status == 200
            eventually(lambda: http.post("/api/v1/admin/backup", {"name": "b"}).status == 200)
    finally:
        (child,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        server.wait()
    changed = changed_paths(trace)
    assert {str(ours / "runtime.json"), str(ours / "data" / "LOCK"), str(ours / "values" / "00")} <= changed
    outside = {path for path in changed if not path.startswith((str(ours), *_DEVICES))}
    assert outside == set()
    assert [path.name for path in elsewhere.iterdir()] == ["output-0.txt"]
    assert sys.prefix not in "".join(changed)
