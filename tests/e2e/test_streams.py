"""Exports and imports with curl, between real servers."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.certificates import Pair

from .harness import PATIENCE, Launcher, Server, connect
from .moving import SMALL_CACHE, export_of, import_into, last_line, move

#: Bytes that a server may take for a move, whatever is moved: far less than the moved keys.
MOST = 300 << 20


def run(command: str) -> str:
    """What a shell command writes."""
    return subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout


def test_moving_keeps_ttls_and_bytes(launch: Launcher) -> None:
    """Export piped into import: values as they are, large ones too, and ttls that go on and do not begin anew."""
    source, target = launch(name="source"), launch(name="target")
    large = "l" * 600_000
    with source.http() as client:
        client.post("/api/v1/mset", {"key_values": {"a": "1", 'q"\\\n': "\u00fc", "large": large}})
        client.post("/api/v1/set", {"key": "ends", "value": "2", "ttl": 1000})
        client.post("/api/v1/set", {"key": "bytes", "value": "/wD+", "encoding": "base64"})
    answer = import_into(target, export_of(source)).communicate(timeout=PATIENCE)[0]
    assert last_line(answer)["imported"] == 5
    assert json.loads(answer.splitlines()[-1])["end"] is True
    first, second = run(export_of(source)).splitlines(), run(export_of(target)).splitlines()
    assert first[:-1] == second[:-1]
    assert json.loads(second[-1])["count"] == 5
    with target.http() as client:
        assert client.get("/api/v1/get/large").body["value"] == large
        assert 900 < client.get("/api/v1/get/ends").body["ttl"] <= 1000


def test_many_keys_take_little_memory(launch: Launcher) -> None:
    """The short form of `python -m tests.e2e.moving 5000000`."""
    moved = move(launch, 50_000)
    assert max(moved.source, moved.target) < MOST


def test_an_import_that_stops_tells_curl(server: Server) -> None:
    """Also amid a body that goes on: curl gets the last line, and ends."""
    lines = 'yes \'{"key": "stop/a", "value": "1"}\' | head -n 100; echo nonsense; yes \'{}\' | head -c 50000000'
    answer = import_into(server, f"({lines})").communicate(timeout=PATIENCE)[0]
    *_, bad, last = map(json.loads, answer.splitlines())
    assert (bad["line"], bad["code"]) == (101, "invalid_json")
    assert last == {"end": False, "line": 100, "imported": 100, "skipped": 0, "failed": 1, "bytes": last["bytes"]}
    run(f"curl -sS -X DELETE http://{server.http_address}/api/v1/delete/stop/a")


@pytest.mark.parametrize("options", ["-X POST --data-binary @{file}", "-X POST -T {file}"])
def test_a_file_is_sent_with_its_length(server: Server, tmp_path: Path, options: str) -> None:
    """For which curl waits for 100 Continue, if it is large."""
    file = tmp_path / "lines"
    file.write_text(
        "".join(json.dumps({"key": f"file/{number:04}", "value": "v" * 1000}) + "\n" for number in range(3000))
    )
    url = f"http://{server.http_address}/api/v1/import"
    shown = run(f"curl -sS {options.format(file=file)} -H 'Content-Type: application/x-ndjson' {url}")
    assert last_line(shown)["imported"] == 3000
    refused = run(f"curl -sS {options.format(file=file)} -H 'Content-Type: text/csv' {url}")
    assert json.loads(refused)["code"] == "unsupported_media_type"
    exported = run(export_of(server, "?prefix=file/")).splitlines()
    assert len(exported) == 3001
    keys = json.dumps({"keys": [json.loads(line)["key"] for line in exported[:-1]]})
    run(f"curl -sS --json '{keys}' http://{server.http_address}/api/v1/mdelete")


def test_a_stop_is_no_end(launch: Launcher) -> None:
    """An export that is being read when the server stops does not seem to be whole, and the server stops."""
    server = launch("--limits-shutdown-grace", "1")
    filling = import_into(server, 'yes \'{"key": "k", "value": "v"}\' | head -n 1')
    filling.communicate(timeout=PATIENCE)
    with server.http() as client:
        for number in range(40):
            client.post("/api/v1/set", {"key": f"k{number}", "value": "v" * 1_000_000})
    connection = connect(server.http_address, receive_buffer=4096)
    connection.sendall(b"GET /api/v1/export HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = connection.recv(4096)
    assert received.startswith(b"HTTP/1.1 200")
    server.stop()
    received += _rest(connection)
    assert b'"end":true' not in received
    assert not received.endswith(b"0\r\n\r\n") or b'"error"' in received


def _rest(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(1 << 20):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


@pytest.mark.long
def test_over_tls_as_without(launch: Launcher, tmp_path: Path) -> None:
    """An export that is read slowly does not pile up in the server, and comes whole; an import is held up likewise."""
    pair = Pair(tmp_path)
    options = ("--http-tls-certificate", str(pair.certificate), "--http-tls-private-key", str(pair.private_key))
    server = launch(*options, env=SMALL_CACHE)
    url = f"https://{server.http_address}/api/v1"
    sending = f"curl -ksSN -X POST -T - -H 'Content-Type: application/x-ndjson' {url}/import"
    file = tmp_path / "lines"
    file.write_text(
        "".join(json.dumps({"key": f"k{number:02}", "value": "v" * 1_000_000}) + "\n" for number in range(120))
    )
    assert last_line(run(f"{sending} < {file}"))["imported"] == 120
    before = server.resident
    reading = subprocess.Popen(["curl", "-ksSN", "--limit-rate", "60M", f"{url}/export"], stdout=subprocess.PIPE)
    assert reading.stdout is not None
    count, most = 0, before
    for line in reading.stdout:
        count += b'"key"' in line
        most = max(most, server.resident)
    assert b'"end":true' in line
    assert count == 120
    assert most - before < 60 << 20
