"""The access log: a line for each answer, on both lanes."""

from __future__ import annotations

import json
from typing import Any

from kvtwisted.http.access_log import AccessLog, peer_text

from .support import World, request_bytes

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True


class Lines(list[bytes]):
    """What the log was given."""

    @property
    def facts(self) -> list[dict[str, Any]]:
        """Without what differs from run to run."""
        return [
            {name: value for name, value in json.loads(line).items() if name not in ("time", "us", "bytes", "peer")}
            for line in self
        ]


def _line(method: str, target: str, status: int) -> dict[str, Any]:
    return {"method": method, "target": target, "status": status}


def test_every_answer_has_its_line() -> None:
    """In the order of the answers, whichever lane gave them."""
    lines = Lines()
    world = World(access_log=lines.append)
    world.post("/api/v1/set", {"key": "a", "value": "1"})
    world.request("GET", "/api/v1/get/a")
    world.request("GET", "/api/v1/get/b%20c")
    world.request("GET", "/api/v1/scan?limit=5")
    world.request("DELETE", "/api/v1/delete/a")
    world.post("/api/v1/mget", {"keys": ["a"]})
    world.request("GET", "/api/v1/get/%")
    world.request("BREW", "/coffee")
    assert lines.facts == [
        _line("POST", "/api/v1/set", 200),
        _line("GET", "/api/v1/get/a", 200),
        _line("GET", "/api/v1/get/b%20c", 404),
        _line("GET", "/api/v1/scan?limit=5", 200),
        _line("DELETE", "/api/v1/delete/a", 200),
        _line("POST", "/api/v1/mget", 200),
        _line("GET", "/api/v1/get/%", 400),
        _line("BREW", "/coffee", 404),
    ]


def test_a_stream_has_its_line_however_it_ends() -> None:
    """Once: when all has come, or when its client has gone, as those of watches do."""
    lines = Lines()
    world = World(access_log=lines.append)
    wire = world.wire()
    wire.send(request_bytes("GET", "/api/v1/export"))
    world.work()
    wire.transport.disconnect()
    wire = world.wire()
    wire.send(request_bytes("GET", "/api/v1/watch?prefix=a"))
    world.work()
    assert lines.facts == [_line("GET", "/api/v1/export", 200)]
    wire.transport.disconnect()
    world.work()
    assert lines.facts == [_line("GET", "/api/v1/export", 200), _line("GET", "/api/v1/watch?prefix=a", 200)]


def test_what_is_refused_before_it_is_whole_has_its_line() -> None:
    """Without method and target, which may be missing or wrong."""
    lines = Lines()
    world = World(access_log=lines.append, max_body_bytes=10)
    world.wire().send(b"not HTTP\r\n\r\n")
    world.wire().send(request_bytes("POST", "/api/v1/set", b"x" * 11))
    assert lines.facts == [_line("", "", 400), _line("", "", 413)]


def test_a_line_cannot_be_broken_by_a_client() -> None:
    """Quotes, backslashes and bytes over 127 in a target are escaped."""
    lines = Lines()
    AccessLog(lines.append, lambda: 1_700_000_000.5).other(b"p", b"GET", b'/"\\\x00\xff', 200, 3, 0.25)
    assert [json.loads(line) for line in lines] == [
        {
            "time": "2023-11-14T22:13:20.500Z",
            "peer": "p",
            "method": "GET",
            "target": '/"\\\x00\xff',
            "status": 200,
            "bytes": 3,
            "us": 250000,
        }
    ]


def test_peers() -> None:
    """As URLs have them."""
    assert peer_text("127.0.0.1", 80) == b"127.0.0.1:80"
    assert peer_text("::1", 80) == b"[::1]:80"
