"""docs/operations.md: its tables of metrics, logs and policies are those of a running server."""

from __future__ import annotations

import json
import re
from datetime import datetime

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from twisted.logger import capturedLogs

from kvtwisted.backends.local.maintenance.eviction import Batch
from kvtwisted.background.eviction import report_batch
from kvtwisted.config.schema import KEYS
from kvtwisted.http import deadlines
from kvtwisted.observability import catalogue
from kvtwisted.observability.logs import as_json, as_text
from kvtwisted.observability.metrics import Metrics
from kvtwisted.rpc.http2 import lifetime
from kvtwisted.sessions.audit import Audit
from kvtwisted.tls.connections import HANDSHAKE_SECONDS
from tests.e2e.harness import FREE_PORTS, Server, engine, eventually, run_twistd

from .pages import ROOT, blocks, prose, tables

PAGE = ROOT / "docs" / "operations.md"


def metrics(server: Server) -> str:
    """What Prometheus would see, with the storage's first sample."""
    with server.http() as http:
        return eventually(lambda: text if "kv_rocksdb_" in (text := http.get("/metrics").body) else "")


def test_a_running_server_shows_each_metric(server: Server) -> None:
    """Those of the catalogue, with type, help and labels, and those of the engine that the page lists; no other."""
    text = metrics(server)
    families = [family for family in text_string_to_metric_families(text) if not family.name.endswith("_created")]
    shown = {f"{family.name}_total" if family.type == "counter" else family.name: family for family in families}
    expected = {entry.name: entry for entry in catalogue.entries() if entry is not catalogue.CERTIFICATE_EXPIRY}
    listed = [row[0].strip("`") for row in tables(PAGE, "metric") if "`kv_rocksdb_" in row[0]]
    assert set(shown) == {*expected, *listed}
    for name, entry in expected.items():
        family = shown[name]
        assert (family.type, family.documentation) == (entry.type, entry.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(entry.labels), sample


def test_reasons_of_cut_off_connections() -> None:
    """Each with its transports, and the seconds that no key sets."""
    rows = {row[0].strip("`"): row for row in tables(PAGE, "reason")}
    transports = {
        reason: [
            name for name, reasons in (("http", deadlines.REASONS), ("grpc", lifetime.REASONS)) if reason in reasons
        ]
        for reason in (*deadlines.REASONS, *lifetime.REASONS)
    }
    assert {reason: ["http", "grpc"] if row[1] == "both" else [row[1]] for reason, row in rows.items()} == transports
    assert HANDSHAKE_SECONDS == lifetime.HANDSHAKE_SECONDS
    for reason, sentence in (
        ("handshake", f"in {HANDSHAKE_SECONDS:.0f} s"),
        ("slow_reader", f"over gRPC in {lifetime.STALL_SECONDS:.0f} s"),
        ("silent", f"in {lifetime.KEEPALIVE_ANSWER_SECONDS:.0f} s"),
        ("goodbye", f"in {lifetime.CLOSE_SECONDS:.0f} s"),
    ):
        assert sentence in rows[reason][2]


def test_limits_of_bytes() -> None:
    """The defaults that the page reckons with."""
    limits = {row[0].partition("`")[2].partition("`")[0]: row[0] for row in tables(PAGE, "key") if "bytes" in row[0]}
    for name in ("limits.max_unfinished_bytes", "limits.max_unsent_bytes"):
        assert f"({KEYS[name].default >> 20} MiB)" in limits[name]
    unknown = "security.unauthenticated_body_bytes"
    assert f"({KEYS[unknown].default >> 10} KiB)" in limits[unknown]


def test_policies_are_the_configured_ones() -> None:
    """The table of policies has each that `eviction.policy` takes, and the default is marked."""
    policy = KEYS["eviction.policy"]
    words = [row[0] for row in tables(PAGE, "policy")]
    assert words == [f"`{word}`" + (" (default)" if word == policy.default else "") for word in policy.choices]


def test_log_files_are_the_servers(server: Server) -> None:
    """The table of logs names the files that a server makes."""
    made = {path.name for path in (server.folder / "logs").iterdir()}
    assert {row[0].strip("`") for row in tables(PAGE, "file")} == made


def test_log_lines_look_as_shown() -> None:
    """The example of the text form and of the JSON form is one and the same event."""
    (example,) = blocks(PAGE, "json")
    shown = json.loads(example)
    with capturedLogs() as events:
        batch = Batch(shown["reason"], shown["keys"], shown["freed"])
        report_batch(Metrics(CollectorRegistry()), Audit(lambda line: None), batch)
    (event,) = events
    event["log_time"] = datetime.fromisoformat(shown["time"]).timestamp()
    assert as_json(event) == example.rstrip("\n")
    text = blocks(PAGE, "text")[-1].rstrip("\n")
    # The text form is in local time.
    assert as_text(event).partition(" ")[2] == text.partition(" ")[2]


OTHER = ("--rocksdb-path", "other", "--value-disk-path", "other_values")


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (FREE_PORTS, "a second server on the same folder"),
        ((*OTHER, "--http-port", "{http}", "--grpc-port", "0"), "the HTTP port is taken"),
        ((*OTHER, "--http-port", "0", "--grpc-port", "{grpc}"), "the gRPC port is taken"),
        (("--rocksdb-path", "another", *FREE_PORTS), "another database's `value.disk_path`"),
        (("--config", "kv.toml"), "a wrong `--config`"),
        (("--http-port", "x"), "a value that is not allowed"),
    ],
)
def test_refusals_to_start_read_as_shown(server: Server, options: tuple[str, ...], cause: str) -> None:
    """The line in the table is the line that twistd ends with."""
    ports = {"http": server.http_address.rpartition(":")[2], "grpc": server.grpc_address.rpartition(":")[2]}
    arguments = [option.format(**ports) for option in options]
    done = run_twistd("-n", "--pidfile=", "kvtwisted", "--storage-engine", engine(), *arguments, folder=server.folder)
    (line,) = re.findall(r"kvtwisted: .*", done.stdout + done.stderr)
    (shown,) = (row[0].strip("`") for row in tables(PAGE, "line") if row[1] == cause)
    assert done.returncode == 1
    line = line.replace(str(server.folder), "/srv/kv")
    # What follows names the values that are to blame.
    assert line.replace(ports["http"], "8080").replace(ports["grpc"], "50051").partition("; ")[0] == shown


@pytest.mark.parametrize("key", ["storage.threads", "grpc.threads"])
def test_numbers_of_threads(key: str) -> None:
    """The table of threads has the defaults."""
    assert f"`{key}` ({KEYS[key].default})" in prose(PAGE)
