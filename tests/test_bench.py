"""The measurements run; what they measure is nobody's promise here."""

from __future__ import annotations

import json
import subprocess
import sys


def _run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, "--keys", "1000", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_service() -> None:
    """Every case has a rate of ours and of the binding, in the table and as JSON."""
    lines = json.loads(_run("bench.service", "--rounds", "1", "--json"))
    assert len(lines) >= 9
    assert all(line["ours"] > 0 and line["bare"] > 0 for line in lines)
    table = _run("bench.service", "--rounds", "1", "--only", "mget")
    assert [line.split(",")[0] for line in table.splitlines()[2:]] == ["mget of 100"] * 2


def test_grpc() -> None:
    """Every case has a rate and a latency on both transports, and an idle connection has its price."""
    short = ("--rounds", "1", "--seconds", "0.2", "--idle", "20")
    measured = json.loads(_run("bench.grpc", *short, "--json"))
    assert {case["transport"] for case in measured["cases"]} == {"native", "threaded"}
    assert len(measured["cases"]) >= 10
    assert all(case["rate"] > 0 and case["latency"] > 0 for case in measured["cases"])
    assert isinstance(measured["idle_kib"], float)
    table = _run("bench.grpc", *short, "--only", "Get, 4 x 16").splitlines()
    assert [line.split("  ")[0] for line in table[2:4]] == ["Get, 4 x 16"] * 2


def test_layers() -> None:
    """Every layer of every call has a figure."""
    lines = _run("bench.layers", "--runs", "1").splitlines()
    assert {line.split("  ")[0] for line in lines} == {
        "get, cache off", "get, hot", "set", "mget, a key", "mset, a key",
    }  # fmt: skip
    assert all(line.endswith(" ns") for line in lines)
