"""Clients in Node (@grpc/grpc-js) and Go (grpc-go) do each of the operations that came after the first ten."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .harness import PATIENCE, REPOSITORY, Launcher

#: `make test-all` puts them there.
FOREIGN = Path(os.environ.get("KVTWISTED_FOREIGN_CLIENTS", REPOSITORY / ".foreign"))
NODE, GO = FOREIGN / "node", FOREIGN / "go" / "client"


def _expected(prefix: str) -> dict[str, Any]:
    """What both print; their keys begin so."""
    four = [["a", "a"], ["b/1", "b/1"], ["b/2", "b/2"], ["c", "c"]]
    pairs = [[f"{prefix}/r/{name}", value] for name, value in four]
    return {
        "made": True,
        "again": [False, True],
        "bytes": [True, True],
        "not_text": 9,
        "touched": [True, True, True, False],
        "order": True,
        "batch": [True, [f"{prefix}/t", f"{prefix}/u"], [f"{prefix}/u"]],
        "numbers": ["9007199254740993", True, "9007199254740991", False],
        "not_a_number": False,
        "moved": [
            True,
            [[True, "0", False], [False, "0", False], [True, "9007199254740992", False], [True, "0", False]],
        ],
        "refused": 2,
        "pipeline": {"1": "increment", "2": "touch", "3": "set"},
        "reverse": [f"{prefix}/r/c", f"{prefix}/r/b/2"],
        "range": [f"{prefix}/r/b/1", f"{prefix}/r/b/2"],
        "count": "4",
        "folders": [[f"{prefix}/r/a", f"{prefix}/r/c"], [f"{prefix}/r/b/"]],
        "entries": pairs[::-1],
        "stream": pairs,
        "gone": "2",
        "watched": [
            ["SET", f"{prefix}/r/d", "", "d"],
            ["DELETE_RANGE", f"{prefix}/r/b/", f"{prefix}/r/b0", ""],
        ],
        "resumed": ["DELETE_RANGE"],
        "compacted": [True],
        "all": "7",
    }


@pytest.mark.long
@pytest.mark.parametrize("transport", ["native", "threaded"])
@pytest.mark.parametrize("language", ["js", "go"])
def test_each_operation(launch: Launcher, language: str, transport: str) -> None:
    """Conditions, bytes, numbers, transactions, a pipeline, ranges, streams, and a Watch that is resumed."""
    if language == "js" and not (NODE.exists() and shutil.which("node")):
        pytest.skip("Node's packages are not installed (scripts/foreign-clients)")
    if language == "go" and not GO.exists():
        pytest.skip("the client in Go is not built (scripts/foreign-clients)")
    server = launch("--grpc-transport", transport)
    proto = str(REPOSITORY / "proto" / "keyvalue.proto")
    command = ["node", str(NODE / "client.js"), proto] if language == "js" else [str(GO)]
    done = subprocess.run(
        [*command, server.grpc_address], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == _expected(language)
