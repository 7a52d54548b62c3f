"""Many keys are moved from one server to another with two curls and a pipe, and the memory of both is looked at.

By itself: `python -m tests.e2e.moving 5000000`, which prints figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from .harness import Launcher, Server

#: Seconds for a hundred thousand keys.
SECONDS = 60.0
VALUE = "x" * 100
#: What would hide how much else is taken: RocksDB's cache has 256 MiB by itself.
SMALL_CACHE = {"KV_ROCKSDB_OPTIONS_BLOCK_CACHE_SIZE": str(8 << 20)}
_IMPORT = "curl -sSN -X POST -T - -H 'Content-Type: application/x-ndjson' http://{}/api/v1/import"


class Moved(NamedTuple):
    """What came of it: keys, seconds for the fill and for the move, and the most memory in bytes of either server."""

    keys: int
    filling: float
    moving: float
    source: int
    target: int


def import_into(server: Server, producer: str) -> subprocess.Popen[str]:
    """Import what a shell command writes; the answer is in its output."""
    command = f"{producer} | {_IMPORT.format(server.http_address)}"
    return subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, text=True)


def export_of(server: Server, query: str = "") -> str:
    """The shell command that exports."""
    return f"curl -sSN 'http://{server.http_address}/api/v1/export{query}'"


def last_line(output: str) -> Any:
    """Of an answer in lines."""
    return json.loads(output.splitlines()[-1])


def move(launch: Launcher, count: int) -> Moved:
    """Fill one server with so many keys, and move them to another."""
    source, target = launch(name="source", env=SMALL_CACHE), launch(name="target", env=SMALL_CACHE)
    lines = (
        f"import sys; out = sys.stdout.write\n"
        f'for n in range({count}): out(\'{{"key":"key/%09d","value":"{VALUE}"}}\\n\' % n)'
    )
    began = time.monotonic()
    filling, _ = _watched([source], import_into(source, f"{sys.executable} -c {_quoted(lines)}"), count)
    filled = time.monotonic()
    moving, most = _watched([source, target], import_into(target, export_of(source)), count)
    moved = time.monotonic()
    assert last_line(filling)["imported"] == count, filling
    last = last_line(moving)
    assert (last["end"], last["imported"]) == (True, count), moving
    return Moved(count, filled - began, moved - filled, *most)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"


def _watched(servers: list[Server], process: subprocess.Popen[str], count: int) -> tuple[str, list[int]]:
    """The output of a process, and the most memory of each server meanwhile."""
    most = [0 for _ in servers]
    until = time.monotonic() + SECONDS * max(1, count / 100_000)
    while process.poll() is None:
        most = [max(before, server.resident) for before, server in zip(most, servers)]
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.05)
    output, _ = process.communicate()
    return output, most


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        launcher = Launcher(Path(folder))
        try:
            print(move(launcher, int(sys.argv[1])))
        finally:
            launcher.end()
