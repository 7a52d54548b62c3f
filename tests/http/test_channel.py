"""One connection: body limits, malformed requests, pipelining, timeouts, clients that go away."""

from __future__ import annotations

from io import BytesIO

import pytest
from twisted.logger import LogLevel, globalLogPublisher
from twisted.web.resource import Resource

from kvtwisted.http.channel import LINGER_TIMEOUT
from kvtwisted.http.deadlines import Patience

from .support import Wire, World, problem, request_bytes

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

SET = b'{"key":"k","value":"v"}'
GET = b"GET /api/v1/get/k HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST_HEAD = b"POST /api/v1/set HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def chunk(data: bytes) -> bytes:
    """`data` as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def refused(wire: Wire) -> tuple[int, str]:
    """Status and code of the one answer, after which the connection must be half closed."""
    (reply,) = wire.replies()
    assert reply.headers["connection"] == "close"
    assert reply.headers["server"] == "kvtwisted"
    assert wire.transport.half_closed
    return problem(reply)[:2]


# Bodies.


def test_a_body_of_the_limit_is_read() -> None:
    """The limit itself is allowed, in one piece or in chunks."""
    body = SET.ljust(100)
    world = World(max_body_bytes=100)
    assert world.request("POST", "/api/v1/set", body).status == 200
    wire = world.wire()
    wire.send(POST_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(body[:60]) + chunk(body[60:]) + chunk(b""))
    assert [reply.status for reply in wire.replies()] == [200]
    assert wire.open


def test_an_announced_body_over_the_limit_is_refused_unread() -> None:
    """413 comes on the head alone."""
    world = World(max_body_bytes=100)
    wire = world.wire()
    wire.send(POST_HEAD + b"Content-Length: 101\r\n\r\n")
    assert refused(wire) == (413, "too_large")


def test_a_length_of_thousands_of_digits() -> None:
    """It is refused like any other that is no number, and logged by nobody."""
    wire = World().wire()
    wire.send(POST_HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n")
    assert refused(wire)[0] in (400, 413)


def test_continue_is_not_sent_for_a_body_over_the_limit() -> None:
    """A client that asks before it sends is told no; one within the limit is told to go on."""
    expect = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    world = World(max_body_bytes=100)
    wire = world.wire()
    wire.send(POST_HEAD + expect % 101)
    assert refused(wire) == (413, "too_large")
    wire = world.wire()
    wire.send(POST_HEAD + expect % len(SET))
    assert wire.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.transport.clear()
    wire.send(SET)
    assert [reply.status for reply in wire.replies()] == [200]


@pytest.mark.parametrize("together", [True, False])
def test_a_chunked_body_is_counted(together: bool) -> None:
    """The chunk that crosses the limit ends it, even when the whole request is there already."""
    world = World(max_body_bytes=100)
    wire = world.wire()
    pieces = [
        POST_HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        chunk(SET.ljust(60)), chunk(b" " * 41), chunk(b" " * 41), chunk(b""), GET,
    ]  # fmt: skip
    for piece in [b"".join(pieces)] if together else pieces:
        wire.send(piece)
    assert refused(wire) == (413, "too_large")
    assert world.stored() == {}


def test_what_follows_a_refusal_is_never_looked_at() -> None:
    """Neither the rest of the body nor a request hidden in it is carried out."""
    world = World(max_body_bytes=100)
    wire = world.wire()
    hidden = request_bytes("POST", "/api/v1/set", SET)
    wire.send(POST_HEAD + b"Content-Length: 101\r\n\r\n" + hidden)
    wire.send(hidden)
    assert refused(wire) == (413, "too_large")
    assert world.stored() == {}


def test_a_refused_client_gets_time_to_read() -> None:
    """Our side is closed at once, the rest when the client closes or, at the latest, after the linger timeout."""
    world = World(max_body_bytes=100)
    wire = world.wire()
    wire.send(POST_HEAD + b"Content-Length: 101\r\n\r\n")
    world.reactor.advance(LINGER_TIMEOUT - 1)
    wire.send(b"more of it")  # does not buy more time
    assert wire.open
    world.reactor.advance(1)
    assert (wire.open, wire.transport.aborted) == (False, True)
    assert world.site.connections == 0


def test_bodies_stay_in_memory() -> None:
    """Twisted would write a body of this size to a temporary file."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(request_bytes("POST", "/api/v1/set", SET.ljust(200_000)))
    assert isinstance(wire.channel.requests[0].content, BytesIO)


def test_forms_are_not_parsed() -> None:
    """A body or query that looks like a form stays what it is."""
    world = World()
    world.held = True
    wire = world.wire()
    form = "application/x-www-form-urlencoded"
    wire.send(request_bytes("POST", "/api/v1/config?a=b", b"c=d", content_type=form))
    assert [problem(reply)[1] for reply in wire.replies()] == ["unsupported_media_type"]
    wire.send(b"GET /api/v1/get/k?a=b HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [problem(reply)[1] for reply in wire.replies()] == ["invalid_key"]


# Requests that are none.


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n",
        b"GET /api/v1/get/k HTTP/2.0\r\n\r\n",
        b"GET /api/v1/get/\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /api/v1/get/a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n" + GET,
        b"GET / HTTP/1.1\r\nBad\x00Name: x\r\nMore: y\r\n\r\n" + GET,
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n" + GET,
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n" + GET,
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n" + GET,
        POST_HEAD + b"Content-Length: x\r\n\r\n" + GET,
        POST_HEAD + b"Content-Length: -1\r\n\r\n" + GET,
        POST_HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + GET,
        POST_HEAD + b"Content-Length: 23\r\nTransfer-Encoding: chunked\r\n\r\n" + SET,
        POST_HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + SET,
        POST_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + GET,
        b"GET /" + b"k" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n" + GET,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 600 + b"\r\n" + GET,
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 15_000 + b"\r\nY: " + b"y" * 5_000 + b"\r\n\r\n" + GET,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    ],
)
def test_malformed_requests(data: bytes) -> None:
    """One 400 in JSON, then the connection ends; what comes behind is not carried out."""
    world = World()
    wire = world.wire()
    wire.send(data)
    assert refused(wire) == (400, "malformed_request")
    assert world.recorder.operations == []


def test_a_path_that_is_not_ascii() -> None:
    """Twisted lets some such bytes through; no path of ours has them."""
    wire = World().wire()
    wire.send(b"GET /api/v1/get/\x80 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [problem(reply)[:2] for reply in wire.replies()] == [(404, "not_found")]


def test_a_defect_outside_of_the_handlers() -> None:
    """Even then the answer is JSON with an incident."""

    class Broken(Resource):
        isLeaf = True

        def render(self, request: object) -> bytes:
            raise ZeroDivisionError("secret")

    world = World()
    world.site.resource = Broken()
    reply = world.request("GET", "/")
    assert problem(reply)[:2] == (500, "internal_error")
    assert len(reply.json()["incident"]) == 16


# Several requests.


def test_pipelined_requests_are_answered_in_order() -> None:
    """Each sees what the one before did."""
    world = World()
    wire = world.wire()
    wire.send(request_bytes("POST", "/api/v1/set", SET) + GET + request_bytes("DELETE", "/api/v1/delete/k") + GET)
    assert [reply.status for reply in wire.replies()] == [200, 200, 200, 404]
    assert wire.open


def test_a_request_byte_by_byte() -> None:
    """However the network cuts it."""
    world = World()
    wire = world.wire()
    for byte in request_bytes("POST", "/api/v1/set", SET):
        wire.send(bytes((byte,)))
    assert [reply.status for reply in wire.replies()] == [200]


@pytest.mark.parametrize("head", [b"HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"HTTP/1.0\r\n\r\n"])
def test_connections_that_are_not_kept(head: bytes) -> None:
    """They end after the first answer, and a second request is ignored."""
    wire = World().wire()
    wire.send(b"GET /api/v1/get/k " + head + GET)
    assert [reply.status for reply in wire.replies()] == [404]
    assert not wire.open


# Time.


def test_idle_connections_are_closed() -> None:
    """After the idle timeout, counted from the last byte."""
    world = World(idle_timeout=60)
    wire = world.wire()
    world.reactor.advance(59)
    wire.send(GET)
    world.reactor.advance(59)
    assert wire.open
    world.reactor.advance(1)
    assert not wire.open
    assert not wire.transport.aborted


@pytest.mark.parametrize("step", [0.1, 1 / 3, 7.3, 19.99])
def test_idleness_counts_from_the_last_of_many_requests(step: float) -> None:
    """To the millisecond, however the times add up; a connection that is used has no end, and one timer."""
    world = World(idle_timeout=20)
    wire = world.wire()
    for _ in range(50):
        wire.send(GET)
        world.reactor.advance(step)
        assert wire.open
        assert len(world.reactor.getDelayedCalls()) <= 2  # the other is that of the request
    wire.send(GET)
    world.reactor.advance(19.998)
    assert wire.open
    assert wire.channel.idle_seconds() == pytest.approx(19.998)
    world.reactor.advance(0.003)
    assert not wire.open


def test_a_half_sent_request_is_not_waited_for_for_ever() -> None:
    """The idle timeout holds within a request, also when that may take longer."""
    world = World(idle_timeout=60, patience=Patience(body=100))
    wire = world.wire()
    wire.send(POST_HEAD + b"Content-Length: 23\r\n\r\n" + SET[:-1])
    world.reactor.advance(60)
    assert not wire.open


def test_the_server_taking_its_time_is_not_idleness() -> None:
    """While a request is worked on, the idle timeout rests."""
    world = World(idle_timeout=5)
    world.held = True
    wire = world.wire()
    wire.send(GET)
    world.reactor.advance(20)
    assert wire.open
    world.work()
    assert [reply.status for reply in wire.replies()] == [404]


@pytest.mark.parametrize("head", [b"HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"])
def test_a_client_that_does_not_read_is_cut_off(head: bytes) -> None:
    """One idle timeout to read, one more to take the rest when closing."""
    world = World(idle_timeout=60)
    wire = world.wire()
    wire.transport.stalled = True
    wire.send(b"GET /api/v1/get/k " + head)
    world.reactor.pump([60, 60])
    assert (wire.open, wire.transport.aborted) == (False, True)
    assert world.reactor.getDelayedCalls() == []


# Clients that go away.


def test_a_write_goes_on_without_its_client() -> None:
    """It counts as in flight until it is done, it is done, and nothing is logged."""
    events: list[object] = []

    def observe(event: dict[str, object]) -> None:
        if event["log_level"] >= LogLevel.warn:  # type: ignore[operator]
            events.append(event)

    world = World()
    world.held = True
    wire = world.wire()
    globalLogPublisher.addObserver(observe)
    try:
        wire.send(request_bytes("POST", "/api/v1/set", SET))
        wire.transport.disconnect()
        assert (world.site.connections, world.admission.in_flight) == (0, 1)
        world.work()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert (world.stored(), world.admission.in_flight) == ({b"k": b"v"}, 0)
    assert events == []
    assert world.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("target", ["/api/v1/health", "/api/v1/scan", "/api/v1/get/k"])
def test_an_answer_without_a_client_is_dropped(target: str) -> None:
    """Nothing is written to a connection that is gone."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    wire.transport.disconnect()
    world.work()
    assert wire.transport.value() == b""
    assert world.reactor.getDelayedCalls() == []
