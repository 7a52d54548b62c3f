"""docs/logging.md: its examples of logrotate, run by the real program."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from ..docs.pages import ROOT, blocks
from .harness import Launcher, Server, eventually

EXAMPLES = [text for text in blocks(ROOT / "docs" / "logging.md", "text") if "{" in text]


def rotated(example: str, server: Server) -> None:
    """Run logrotate once with that configuration, for this server."""
    folder = server.folder / "rotation"
    folder.mkdir(exist_ok=True)
    (server.folder / "kv.pid").write_text(str(server.pid))
    configuration = example.replace("/var/lib/kvtwisted/logs", str(server.folder / "logs"))
    configuration = configuration.replace("/run/kvtwisted/kv.pid", str(server.folder / "kv.pid"))
    # Nobody has made those users here.
    configuration = configuration.replace("create 0640 kvtwisted adm", "create 0640")
    path = folder / "configuration"
    path.write_text(configuration)
    path.chmod(0o644)
    command = ["logrotate", "--force", "--state", str(folder / "state"), str(path)]
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def lines(server: Server) -> list[str]:
    """Of the access log, in all its files, which must be whole."""
    found = [path.read_bytes() for path in (server.folder / "logs").glob("access.log*")]
    assert all(b"\0" not in text and text[-1:] in (b"", b"\n") for text in found)
    return [line for text in found for line in text.decode().splitlines()]


def test_both_are_examples() -> None:
    """One that moves, and one that copies."""
    assert ["postrotate" in EXAMPLES[0], "copytruncate" in EXAMPLES[1], len(EXAMPLES)] == [True, True, 2]


@pytest.mark.parametrize("moves", [True, pytest.param(False, marks=pytest.mark.long)], ids=["create", "copytruncate"])
def test_logrotate(launch: Launcher, moves: bool) -> None:
    """Twice, with requests all the time: no hole, no broken line, a small file afterwards; moved ones lose none."""
    server = launch("--logging-access", "true")
    log = server.folder / "logs" / "access.log"
    with server.http() as http:
        numbers = itertools.count(1)

        def ask(times: int) -> int:
            for _ in range(times):
                number = next(numbers)
                http.get(f"/api/v1/get/{number}")
            return number

        for _ in range(2):
            ask(200)
            eventually(log.read_bytes)
            rotated(EXAMPLES[0 if moves else 1], server)
        last = ask(200)
        eventually(lambda: f"/api/v1/get/{last}" in log.read_text() if log.exists() else "")
        names = {"access.log.1", "access.log.2.gz" if moves else "access.log.2"}
        assert {path.name for path in log.parent.glob("access.log.*")} == names
        if moves:
            assert log.stat().st_mode & 0o777 == 0o640
    server.stop()
    subprocess.run(["gunzip", "-f", *map(str, Path(log.parent).glob("access.log.*.gz"))], check=True)
    asked = [line for line in lines(server) if "/api/v1/get/" in line]
    assert len(set(asked)) == len(asked) > 0
    if moves:
        assert len(asked) == last
