"""The harness runs: what it measures is nobody's promise here."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as bench
from bench.cases import GROUPS, deleted, grpc, http, security
from bench.cases.connections import greet, kib_each
from bench.load import LoadError
from bench.plan import Plan
from bench.server import Server
from bench.trees import NOW, NotInTree

#: The shortest that there is.
SHORT = ("--rounds", "1", "--seconds", "0.1", "--keys", "1000", "--idle", "20", "--active", "20", "--cold-mib", "1")


def run(*arguments: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """What the harness prints, and its JSON."""
    file = folder / "figures.json"
    command = [sys.executable, "-m", "bench", *SHORT, "--json", str(file), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=NOW.folder)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text("utf-8"))


@pytest.mark.long
def test_service_and_layers(tmp_path: Path) -> None:
    """Every case has a rate of ours and of the binding, every layer its nanoseconds."""
    printed, found = run("--only", "service", "--only", "layers", folder=tmp_path)
    lines = {(line["group"], line["case"], line["form"]): line for line in found["results"]}
    assert {case for group, case, _ in lines if group == "service"} == set(GROUPS[0].cases)
    assert {case for group, case, _ in lines if group == "layers"} == set(GROUPS[1].cases)
    assert all(line["median"] > 0 for line in lines.values())
    assert lines["service", "Get, hot", "kvtwisted"]["ratio"]["to"] == "bare binding"
    assert printed.count("\n| service") == 18


@pytest.mark.long
def test_idle_grpc(tmp_path: Path) -> None:
    """The greeting of an idle gRPC connection is answered by both transports."""
    for transport, options in grpc.TRANSPORTS.items():
        with Server(NOW, tmp_path / transport, *options) as running:
            assert kib_each(running, running.grpc, 5, greet) >= 0


@pytest.mark.long
def test_servers(tmp_path: Path) -> None:
    """What needs no wrk: one case of gRPC on both transports, and idle connections."""
    _, found = run("--only", "grpc get, 4", "--only", "idle http", folder=tmp_path)
    forms = {(line["case"], line["form"]) for line in found["results"]}
    loads = {("Get, 4 x 16", form) for form in grpc.TRANSPORTS} if shutil.which("h2load") else set()
    assert forms == loads | {("HTTP", form) for form in http.LANES}
    assert bool(found["left_out"]) is (not loads)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_http(tmp_path: Path) -> None:
    """GETs on both lanes, of cold data, with what was read for them."""
    printed, found = run("--only", "cold GET, page cache dropped", folder=tmp_path)
    assert {line["form"] for line in found["results"]} == set(http.LANES)
    assert printed.count("KiB of it from the disk.") == 2


@pytest.mark.long
def test_deleted(tmp_path: Path) -> None:
    """GETs alone and beside scanners, which find nothing; the ratio is to those alone."""
    _, found = run("--only", "deleted", folder=tmp_path)
    lines = {line["form"]: line for line in found["results"]}
    assert lines.keys() == {deleted.ALONE, deleted.BESIDE}
    assert lines[deleted.BESIDE]["ratio"]["to"] == deleted.ALONE
    assert all(line["median"] > 0 for line in lines.values())


@pytest.mark.long
def test_security(tmp_path: Path) -> None:
    """Gets with and without a token, on both interfaces; the ratio is to the form without."""
    _, found = run("--only", "security", folder=tmp_path)
    programs = {security.GRPC: "h2load", security.HTTP: "wrk"}
    there = {case for case, program in programs.items() if shutil.which(program)}
    lines = {(line["case"], line["form"]): line for line in found["results"]}
    assert lines.keys() == {(case, form) for case in there for form in (security.TOKEN, security.OPEN)}
    for case in there:
        assert lines[case, security.TOKEN]["ratio"]["to"] == security.OPEN
        assert "ratio" not in lines[case, security.OPEN]


@pytest.mark.long
def test_one_token_is_in_use(tmp_path: Path, server: Server) -> None:
    """The file has the one token; a server with it refuses who does not send it, and one without refuses nobody."""
    file, token = security.make_token(tmp_path)
    (entry,) = json.loads(file.read_text("utf-8"))["tokens"]
    assert {"operations": ["get", "set"], "prefix": "key"} in entry["grants"]
    get = grpc.make_call(grpc.CASES["Get, 4 x 16"], 1, "x")
    with Server(NOW, tmp_path / "guarded", "--security-tokens", str(file), token=token) as guarded:
        guarded.fill(1, lambda _: "x")
        security.check_asked(guarded, get, "key00000000")
        with guarded.served("get") as served:
            grpc.check(guarded.grpc, get, guarded.headers)
            http.check(guarded.http, http.get(), "key00000000", guarded.headers)
        assert served.calls == 2
    with pytest.raises(LoadError, match="gRPC answers without a token"):
        security.check_asked(server, get, "key00000000")


@pytest.fixture
def server(tmp_path: Path) -> Any:
    """A server with one key."""
    with Server(NOW, tmp_path / "server") as running:
        running.fill(1, lambda _: "x")
        yield running


def test_wrong_answers_are_not_measured(server: Server) -> None:
    """The checks before every load see a missing key and a value that is not the stored one; idle ones are real."""
    call = grpc.make_call(grpc.CASES["Get, 4 x 16"], 1, "x")
    grpc.check(server.grpc, call, {})
    with pytest.raises(LoadError, match="answers b"):
        grpc.check(server.grpc, grpc.make_call(grpc.CASES["Get, 4 x 16"], 1, "y"), {})
    http.check(server.http, http.get(), "key00000000", {})
    with pytest.raises(LoadError, match="404"):
        http.check(server.http, http.get(), "missing", {})
    # Closed by the server, which takes what it is sent for a bad request.
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), 30) as peer, pytest.raises(LoadError, match="closed a connection"):
        greet(peer)


@pytest.mark.long
def test_failed_operations_are_seen(server: Server) -> None:
    """A call that the server counts as failed ends a load, whatever the load program says."""
    with server.served("get") as served:
        http.check(server.http, http.get(), "key00000000", {})
    assert served.calls == 1
    refused = pytest.raises(LoadError, match="413")
    with pytest.raises(LoadError, match="kv_set_errors_total went up by 1"), server.served("set"), refused:
        http.check(server.http, http.put("x" * 2_000_000), "key", {})


def test_unknown_option(tmp_path: Path) -> None:
    """A server that does not know an option is too old; one that cannot start for another reason is an error."""
    with pytest.raises(NotInTree, match="--no-such-option"):
        Server(NOW, tmp_path / "one", "--no-such-option", "1")
    with pytest.raises(RuntimeError, match="did not start"):
        Server(NOW, tmp_path / "two", "--storage-engine", "none-of-them")


def test_choice_of_cases() -> None:
    """--only looks at group and title, whatever their case; a program that is missing leaves its cases out."""
    groups = {group.name: group for group in GROUPS}
    assert bench.chosen_cases(groups["grpc"], ["GRPC set"]) == [case for case in grpc.CASES if case.startswith("Set")]
    assert bench.chosen_cases(groups["grpc"], []) == list(grpc.CASES)
    assert bench.chosen_cases(groups["http"], ["grpc"]) == []


def test_missing_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What needs it is left out, and the line says how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = Plan([NOW], tmp_path, left_out=[])
    assert bench.measurable(plan, http.GROUP, ["GET"]) == []
    assert plan.left_out == ["http GET: wrk is not installed (apt-get install wrk)"]
    assert bench.measurable(plan, GROUPS[0], ["Get, hot"]) == ["Get, hot"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "nothing"), "no case contains 'nothing'; --list names them"),
        (("--into", "README.md"), "README.md: there are no lines <!-- make bench: begin -->"),
        (("--into", "no-such.md"), "--into no-such.md: "),
        (("--rounds", "0"), "0 is not 1 or more"),
        (("--seconds", "0"), "0 is not more than 0"),
        (("--base", "no-such", "--only", "layers"), "there is no revision 'no-such'"),
    ],
)
def test_bad_arguments(arguments: tuple[str, ...], message: str) -> None:
    """A clear sentence and a failing status."""
    command = [sys.executable, "-m", "bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=NOW.folder)
    assert done.returncode != 0
    assert message in done.stderr
    assert done.stdout == ""
