"""Header fields that are lists, and what the server makes of them on either lane."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtwisted.http import fields

from .support import World, problem, request_bytes

GET = request_bytes("GET", "/api/v1/get/b")


@pytest.mark.parametrize(
    ("lines", "members"),
    [
        ([b"close, TE"], [b"close", b"te"]),
        ([b"a,close"], [b"a", b"close"]),
        ([b",close", b" \t, ,"], [b"close"]),
        ([b"keep-alive", b"close"], [b"keep-alive", b"close"]),
        ([b"closed"], [b"closed"]),
        ([b'a="b,c", d'], [b'a="b,c"', b"d"]),
        ([rb'a="b\",c",d'], [rb'a="b\",c"', b"d"]),
        ([b'a="b,c', b"d"], [b'a="b,c', b"d"]),
        ([b"", b" "], []),
        ([], []),
    ],
)
def test_members(lines: list[bytes], members: list[bytes]) -> None:
    """Of all lines, in lower case, without empty ones; a comma in quotes separates nothing."""
    assert fields.members(lines) == members


@settings(deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=3))
def test_members_of_anything(lines: list[bytes]) -> None:
    """Nothing is lost but separators and space, and nothing fails."""
    joined = b"".join(fields.members(lines))
    assert joined.translate(None, b", \t") == b"".join(lines).lower().translate(None, b", \t")


def test_a_long_list_of_quotes_takes_no_time() -> None:
    """As much as a head may have, in the form that is the worst for a reader that tries all ways."""
    for text in (b'"' * 16_384, b'"a' * 8192, b'\\"' * 8192, b'"\\' * 8191):
        fields.members([text])
        fields.weighted([text])


def test_weights() -> None:
    """With parameters, quoted ones too; a bad weight counts as none at all."""
    assert fields.weighted([b'Text/Plain; Version="0.0.4" ;q=0.5, */*;q=1.5', b"a/b; q=0"]) == [
        (b"text/plain", {b"version": b"0.0.4"}, 0.5),
        (b"*/*", {}, 0.0),
        (b"a/b", {}, 0.0),
    ]


CLOSE = [
    "close, TE",
    "close,TE",
    "TE,close",
    "keep-alive,close",
    "close, keep-alive",
    "x,close",
    "close,",
    ",close",
    "Close",
]
CLOSE += ["keep-alive\r\nConnection: close", "close\r\nConnection: keep-alive"]


@pytest.mark.parametrize("value", CLOSE)
@pytest.mark.parametrize("path", ["/api/v1/get/a", "/api/v1/health"])
def test_close_among_others(value: str, path: str) -> None:
    """The connection closes after the answer, which says so; what came behind is not answered."""
    wire = World().wire()
    wire.send(request_bytes("GET", path, connection=value) + GET)
    (reply,) = wire.replies()
    assert reply.headers["connection"] == "close"
    assert not wire.open


@pytest.mark.parametrize("value", ["closed", "x-close", "x,closed", "keep-alive", "keep-alive, x", ""])
@pytest.mark.parametrize("path", ["/api/v1/get/a", "/api/v1/health"])
def test_what_is_not_close(value: str, path: str) -> None:
    """The connection is kept."""
    wire = World().wire()
    wire.send(request_bytes("GET", path, connection=value) + GET)
    assert ["connection" in reply.headers for reply in wire.replies()] == [False, False]
    assert wire.open


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ("", False), ("Connection: keep-alive\r\n", True), ("Connection: x, Keep-Alive\r\n", True),
        ("Connection: keep-alive, close\r\n", False), ("Connection: close\r\n", False),
    ],
)  # fmt: skip
def test_http_1_0(headers: str, kept: bool) -> None:
    """A connection is kept when that is asked for, and the answer says so (RFC 9112, appendix C.2.2)."""
    wire = World().wire()
    for _ in range(2 if kept else 1):
        wire.send(f"GET /api/v1/get/a HTTP/1.0\r\n{headers}\r\n".encode())
        (reply,) = wire.replies()
        assert reply.headers["connection"] == ("keep-alive" if kept else "close")
    assert wire.open == kept


SET_HEAD = "POST /api/v1/set HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SET = '{"key":"k","value":"v"}'
CHUNKED = f"{len(SET):x}\r\n{SET}\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", CHUNKED),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", CHUNKED),
        (f"Transfer-Encoding: identity\r\nContent-Length: {len(SET)}\r\n", SET),
        (f"Content-Length: {len(SET)}\r\nTransfer-Encoding: identity\r\n", SET),
        ("Transfer-Encoding: identity\r\n", SET),
        ("Transfer-Encoding: chunked, identity\r\n", CHUNKED),
        ("Transfer-Encoding: gzip, chunked\r\n", CHUNKED),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CHUNKED),
        ("Transfer-Encoding:\r\n", SET),
    ],
)
def test_transfer_codings_other_than_chunked(headers: str, body: str) -> None:
    """Nobody knows where such a request ends: it is refused, and nothing is carried out (RFC 9112, section 6.1)."""
    world = World()
    wire = world.wire()
    wire.send(f"{SET_HEAD}{headers}\r\n{body}".encode())
    (reply,) = wire.replies()
    assert problem(reply)[:2] == (400, "malformed_request")
    assert wire.transport.half_closed
    assert world.stored() == {}


@pytest.mark.parametrize("name", ["Transfer-Encoding", "transfer-encoding", "TRANSFER-ENCODING"])
@pytest.mark.parametrize("value", ["chunked", "Chunked", " \tchunked \t"])
def test_chunked(name: str, value: str) -> None:
    """However it is spelled."""
    world = World()
    wire = world.wire()
    wire.send(f"{SET_HEAD}{name}:{value}\r\n\r\n{CHUNKED}".encode())
    assert [reply.status for reply in wire.replies()] == [200]
    assert (wire.open, world.stored()) == (True, {b"k": b"v"})


def test_chunked_in_http_1_0_is_the_last() -> None:
    """Whoever sent that may have meant another end (RFC 9112, section 6.1)."""
    wire = World().wire()
    head = SET_HEAD.replace("HTTP/1.1", "HTTP/1.0")
    wire.send(f"{head}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKED}".encode())
    (reply,) = wire.replies()
    assert reply.headers["connection"] == "close"
    assert not wire.open


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue, x", "x\r\nExpect: 100-continue"])
def test_expectations(expect: str) -> None:
    """One to go on is met, wherever it stands."""
    wire = World().wire()
    wire.send(f"{SET_HEAD}Expect: {expect}\r\nContent-Length: {len(SET)}\r\n\r\n".encode())
    assert wire.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.transport.clear()
    wire.send(SET.encode())
    assert [reply.status for reply in wire.replies()] == [200]


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "GZIP", "x\r\nContent-Encoding: identity"])
@pytest.mark.parametrize("path", ["set", "mget", "mset", "mdelete", "config", "admin/backup", "admin/orphans"])
def test_content_codings_are_refused(coding: str, path: str) -> None:
    """415 says what would be understood (RFC 9110, section 15.5.16); nothing is stored as if it were plain."""
    world = World()
    reply = world.request("POST", f"/api/v1/{path}", SET.encode(), content_encoding=coding)
    assert problem(reply)[:2] == (415, "unsupported_media_type")
    assert reply.headers["accept-encoding"] == "identity"
    assert world.stored() == {}


@pytest.mark.parametrize("coding", ["identity", "Identity, identity", ""])
def test_no_content_coding(coding: str) -> None:
    """What says that it has none is taken."""
    world = World()
    assert world.request("POST", "/api/v1/set", SET.encode(), content_encoding=coding).status == 200
    assert world.stored() == {b"k": b"v"}


#: What Prometheus 3 sends.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        (None, False), ("", False), ("*/*", False), ("image/png", False), ("text/html, */*;q=0.1", False),
        ("text/plain", False), ("text/plain;version=0.0.4", False), ("text/plain;version=1.0.0", False),
        (PROMETHEUS, True), ("application/openmetrics-text", True),
        ("application/OpenMetrics-Text; version=1.0.0", True),
        ("application/openmetrics-text;version=2.0.0", False), ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.3", False), ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.2, */*;q=0.3, text/plain;q=0.1", True),
        ("text/plain;q=0.2\r\nAccept: application/openmetrics-text;q=0.9", True),
    ],
)  # fmt: skip
def test_the_format_of_metrics(accept: str | None, is_open: bool) -> None:
    """OpenMetrics where it is named and not weighed less; the text format for all others, also for what is unknown."""
    world = World(metrics_text=lambda asked: ("a/b", b"open" if asked else b"text"))
    reply = world.request("GET", "/metrics", **({} if accept is None else {"accept": accept}))
    assert (reply.status, reply.body) == (200, b"open" if is_open else b"text")
