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
from bench import client, messages
from bench.cases import (
    BESIDE,
    GROUPS,
    batches,
    beside,
    conditions,
    deleted,
    grpc,
    http,
    pipeline,
    ranges,
    security,
    streams,
    watch,
)  # fmt: skip
from bench.cases.connections import greet, kib_each
from bench.load import LoadError
from bench.others import Other, free_port
from bench.plan import Plan
from bench.rounds import Sample
from bench.server import Server
from bench.trees import NOW, NotInTree

needs_client = pytest.mark.skipif(bool(client.missing()), reason="libnghttp2 or the compiler is not installed")
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
    loads = set() if client.missing() else {("Get, 4 x 16", form) for form in grpc.TRANSPORTS}
    assert forms == loads | {("HTTP", form) for form in http.LANES}
    assert bool(found["left_out"]) is (not loads)


@pytest.mark.long
@needs_client
def test_pipelines(tmp_path: Path) -> None:
    """On one stream and on four, with the ratio to calls of their own, and what server and client needed."""
    _, found = run("--only", "pipeline", folder=tmp_path)
    lines = {(line["case"], line["form"]): line for line in found["results"]}
    assert lines.keys() == {(case, form) for case in pipeline.CASES for form in (*pipeline.PIPELINES, pipeline.CALLS)}
    for (_, form), line in lines.items():
        assert ("ratio" in line) is (form != pipeline.CALLS)
        assert line["samples"][0]["client"] > 0
        assert line["samples"][0]["server"] > 0


@needs_client
def test_batches(tmp_path: Path) -> None:
    """A batch, and a small Get beside it and alone, whose figure is its 99th percentile: less is better."""
    printed, found = run("--only", "batches mget", folder=tmp_path)
    lines = {line["form"]: line for line in found["results"]}
    assert list(lines) == [batches.CALLS, batches.BESIDE, batches.ALONE]
    for form in (batches.BESIDE, batches.ALONE):
        (sample,) = lines[form]["samples"]
        assert sample["figure"] == sample["p99"] >= sample["p50"] > 0
        assert not lines[form]["more_is_better"]
    assert lines[batches.CALLS]["more_is_better"]
    assert "server us" in printed


@pytest.mark.long
@needs_client
def test_other_batches_and_large_values(tmp_path: Path) -> None:
    """Every case has its load and the small Get beside it; the large values are those of all rounds."""
    _, found = run("--only", "batches mset", "--only", "batches scan", "--only", "large", folder=tmp_path)
    counted = [(line["group"], line["form"]) for line in found["results"]]
    assert counted.count(("batches", batches.BESIDE)) == counted.count(("large", batches.BESIDE)) == 2
    assert counted.count(("batches", batches.ALONE)) == counted.count(("large", batches.ALONE)) == 1


@pytest.mark.long
@needs_client
def test_conditions_and_ranges(tmp_path: Path) -> None:
    """Writes that decide beside plain ones; Gets beside the removal of a range, and beside scans over deleted keys."""
    printed, found = run("--only", "conditions", "--only", "ranges", folder=tmp_path)
    lines = {(line["group"], line["case"], line["form"]): line for line in found["results"]}
    for case in conditions.CASES:
        assert lines["conditions", case, conditions.DECIDING]["ratio"]["to"] == conditions.PLAIN
    assert lines["conditions", conditions.TRANSACTION, conditions.DECIDING]["median"] > 0
    assert not lines["ranges", ranges.DELETE_RANGE, ranges.BESIDE]["more_is_better"]
    assert {lines["ranges", ranges.SCANS, form]["ratio"]["to"] for form in (ranges.FORWARD, ranges.REVERSE)} == {
        ranges.QUIET
    }
    assert "ms of the DeleteRange" in printed


@pytest.mark.long
@needs_client
def test_streams_and_watchers(tmp_path: Path) -> None:
    """All pairs in one stream beside pages and the binding; Sets beside watchers, and what those are told."""
    _, found = run("--only", "streams", "--only", "watch", folder=tmp_path)
    lines = {(line["group"], line["case"], line["form"]): line for line in found["results"]}
    for case, other in streams.CASES.items():
        assert lines["streams", case, streams.STREAM]["ratio"]["to"] == other
    assert all(("watch", watch.SETS, form) in lines for form in watch.FORMS)
    assert lines["watch", watch.EVENTS, f"{watch.FAN_OUT} watchers"]["median"] > 0


def test_a_load_that_fails_beside() -> None:
    """What fails beside the small Gets ends the run, too."""

    class Failing:
        def load(self, seconds: float) -> None:
            raise LoadError("as asked")

    class Good:
        def run(self) -> Sample:
            return Sample(1, 2, 3)

    calls, small = Failing(), Good()
    with pytest.raises(LoadError, match="as asked"):
        batches.beside(calls, small, 0.01)  # type: ignore[arg-type]


@pytest.mark.long
@needs_client
def test_redis_and_etcd(tmp_path: Path) -> None:
    """Those that are installed stand beside ours on their lines, with the ratio to ours; nothing else is measured."""
    _, found = run("--beside", "redis,etcd", "--only", "beside", folder=tmp_path)
    lines = {(line["case"], line["form"]): line for line in found["results"]}
    forms = {form for case, form in lines if case == "Set, one at a time"}
    for other, (programs, _) in beside.OTHERS.items():
        installed = all(map(shutil.which, programs))
        assert any(form.lower().startswith(other) for form in forms) is installed
        assert installed or any(other in line for line in found["left_out"])
    assert {case for case, _ in lines} == set(BESIDE.cases)
    assert {line["group"] for line in lines.values()} == {"beside"}
    for (_, form), line in lines.items():
        assert ("ratio" in line) is (form != beside.OURS)


def test_unknown_form_of_an_other_is_an_error(tmp_path: Path) -> None:
    """One that does not start ends the run with what it has printed."""
    with pytest.raises(RuntimeError, match="sh did not start:\nnothing of that"):
        Other(tmp_path / "other", free_port(), ["sh", "-c", "echo nothing of that; exit 1"])


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
    assert lines.keys() == {deleted.ALONE, *deleted.SCANS}
    assert lines[deleted.BESIDE]["ratio"]["to"] == deleted.ALONE
    assert all(line["median"] > 0 for line in lines.values())


@pytest.mark.long
def test_security(tmp_path: Path) -> None:
    """Gets with and without a token, on both interfaces; the ratio is to the form without."""
    _, found = run("--only", "security", folder=tmp_path)
    there = {case for case, program in security.GROUP.cases.items() if not bench.missing(program)}
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
    get = messages.get(1, "x")
    with Server(NOW, tmp_path / "guarded", "--security-tokens", str(file), token=token) as guarded:
        guarded.fill(1, lambda _: "x")
        security.check_asked(guarded, get, "key00000000")
        with guarded.served("get") as served:
            grpc.check(guarded.grpc, get, guarded.headers)
            http.check(guarded.http, http.get(), "key00000000", guarded.headers)
        assert served.keys == 2
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
    for make in (messages.get, messages.pipeline_get):
        grpc.check(server.grpc, make(1, "x"), {})
        with pytest.raises(LoadError, match="answers "):
            grpc.check(server.grpc, make(1, "y"), {})
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
    assert served.keys == 1
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
    client.missing.cache_clear()
    assert bench.measurable(plan, pipeline.GROUP, ["Get"]) == []
    client.missing.cache_clear()
    assert beside.there(plan._replace(beside=["redis", "etcd"])) == set()
    assert plan.left_out == [
        "http GET: wrk is not installed (apt-get install wrk)",
        "pipeline Get: cc is not installed (apt-get install gcc libc6-dev)",
        "beside, redis: redis-server is not installed (apt-get install redis-server)",
        "beside, etcd: etcd is not installed (apt-get install etcd-server)",
    ]
    assert bench.measurable(plan, GROUPS[0], ["Get, hot"]) == ["Get, hot"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "nothing"), "no case contains 'nothing'; --list names them"),
        (("--into", "README.md"), "README.md: there are no lines <!-- make bench: begin -->"),
        (("--into", "no-such.md"), "--into no-such.md: "),
        (("--rounds", "0"), "0 is not 1 or more"),
        (("--seconds", "0"), "0 is not more than 0"),
        (("--beside", "redis,nobody"), "'nobody' is none of redis, etcd"),
        (("--beside", "redis", "--base", "HEAD"), "one at a time"),
        (("--only", "beside"), "no case contains 'beside'"),
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
