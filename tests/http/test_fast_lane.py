"""The fast lane by itself: what it takes, waiting, slow readers, the end of a connection."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import deferLater

from kvtwisted.core.errors import KvError
from kvtwisted.http import bodies, fast_requests
from kvtwisted.http.deadlines import Patience
from kvtwisted.http.fast_requests import DELETE, GET, POST, RequestReader
from kvtwisted.http.lanes import BURST, EAGER
from kvtwisted.sessions.threads import LAST_RESORT

from ..support.properties import repeatable
from .live import LiveSite
from .support import WireTransport, World, parse_replies, problem, request_bytes

GET_K = request_bytes("GET", "/api/v1/get/k")
SET_K = request_bytes("POST", "/api/v1/set", b'{"key":"k","value":"v"}')
SCAN = request_bytes("GET", "/api/v1/scan")


# What it takes.


def test_what_is_read() -> None:
    """Method and route, the key, the query or the route's word, Content-Type, and the places of body and end."""
    read = RequestReader(100).read
    head = len(SET_K) - 23
    assert read(SET_K, 0) == (POST, b"set", "application/json", head, len(SET_K), None)
    assert read(b"xx" + GET_K, 2) == (GET, b"k", None, 2 + len(GET_K), 2 + len(GET_K), None)
    delete = request_bytes("DELETE", "/api/v1/delete/a/b%20c")
    assert read(delete, 0) == (DELETE, b"a/b%20c", None, len(delete), len(delete), None)
    scan = request_bytes("GET", "/api/v1/scan?prefix=a%20&limit=5")
    assert read(scan, 0) == (fast_requests.SCAN, b"prefix=a%20&limit=5", None, len(scan), len(scan), None)
    # The body need not be there.
    assert read(SET_K[:head], 0) == (POST, b"set", "application/json", head, len(SET_K), None)


def test_what_is_too_large_is_left() -> None:
    """A body over the limit, and a head over MAX_HEAD."""
    assert RequestReader(22).read(SET_K, 0) is None
    line = b"GET /api/v1/get/k HTTP/1.1\r\nHost: a\r\nX: "
    room = fast_requests.MAX_HEAD - len(line) - 4
    assert RequestReader(0).read(line + b"x" * room + b"\r\n\r\n", 0) is not None
    assert RequestReader(0).read(line + b"x" * (room + 1) + b"\r\n\r\n", 0) is None


def test_a_cut_head_is_left() -> None:
    """At any byte: a head is read whole or not at all."""
    read = RequestReader(100).read
    assert [read(GET_K[:end], 0) for end in range(len(GET_K))] == [None] * len(GET_K)


def test_remembered_blocks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many different ones come, and those of bad requests are not among them."""
    monkeypatch.setattr(fast_requests, "_REMEMBERED", 10)
    reader = RequestReader(100)
    for number in range(100):
        assert reader.read(request_bytes("GET", "/api/v1/get/k", x=str(number)), 0) is not None
        assert reader.read(request_bytes("GET", "/api/v1/get/k", te=str(number)), 0) is None
        assert len(reader._remembered) <= 10
    assert all(b"te:" not in block for block in reader._remembered)


_NAMES = st.sampled_from(["key", "value", "ttl", "x"])
_SPACES = st.text(" \t\r\n\x0b", max_size=1)
_VALUES = st.one_of(
    st.text(max_size=8).map(lambda text: f'"{text}"'),
    st.sampled_from(["5", "-5", "0", "05", "5.0", "1e3", "null", "true", '"a\\nb"', "[]", "{}", "9" * 20]),
)
_FIELD = st.tuples(_SPACES, _NAMES, _SPACES, _SPACES, _VALUES, _SPACES).map(
    lambda parts: f'{parts[0]}"{parts[1]}"{parts[2]}:{parts[3]}{parts[4]}{parts[5]}'
)
_BODIES = st.lists(_FIELD, max_size=4).map(
    lambda fields: ("{" + ",".join(fields) + "}").encode("utf-8", "surrogatepass")
)


@repeatable
@given(_BODIES, st.integers(0, 60), st.binary(max_size=2))
def test_bodies_of_set_are_read_as_ever(body: bytes, at: int, noise: bytes) -> None:
    """The short way reads what the JSON parser reads, and refuses it in the same words."""

    def outcome(read: Any, text: bytes) -> object:
        try:
            return read(text)
        except KvError as error:
            return type(error), str(error)

    def quickly(text: bytes) -> object:
        plain = fast_requests.set_arguments(text)
        return bodies.set_arguments(text) if plain is None else (plain, None)

    for text in (body, body[:at] + noise + body[at:], body[:at] + body[at + 1 :]):
        assert outcome(quickly, text) == outcome(bodies.set_arguments, text)


@pytest.mark.parametrize(
    "body",
    [
        b'{"key":"\x01","value":"v"}',
        b'{"key":"k","value":"\x1f"}',
        b'{"key":"\xff","value":"v"}',
        b'{"key":"k","value":"\xc3"}',
    ],
)
def test_what_is_no_json_is_not_read_quickly(body: bytes) -> None:
    """Control characters and what is not UTF-8, in the key as in the value, are for those who say what is wrong."""
    assert fast_requests.set_arguments(body) is None
    world = World()
    wire = world.wire()
    wire.send(request_bytes("POST", "/api/v1/set", body))
    assert [reply.status for reply in wire.replies()] == [400]


@pytest.mark.parametrize("value", ["\\", '"', "\n", "\x1f", "\x7f", "é", "\\u0041", "plain"])
def test_values_are_json_text(value: str) -> None:
    """What JSON must escape comes out escaped, whatever else is in the value."""
    world = World()
    world.engine.slow = False
    wire = world.wire()
    wire.send(request_bytes("POST", "/api/v1/set", json.dumps({"key": "k", "value": f"a{value}b"}).encode()))
    world.work()
    wire.send(GET_K)
    world.work()
    assert wire.replies()[-1].json() == {"key": "k", "value": f"a{value}b"}


# Waiting.


@pytest.mark.parametrize("first", [GET_K, SET_K, SCAN])
def test_what_comes_behind_an_unanswered_request_waits(first: bytes) -> None:
    """Nothing of it is begun, and at some length no more is read; it goes on by itself."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(first)
    wire.send(SCAN + GET_K + SET_K)
    assert world.admission.in_flight == 1
    assert wire.transport.producerState == "producing"
    count = EAGER // len(GET_K) + 1
    wire.send(GET_K * count)
    assert wire.transport.producerState == "paused"
    world.held = False
    world.work()
    replies = wire.replies()
    assert len(replies) == 1 + 3 + count
    assert all(reply.status in (200, 404) for reply in replies)
    assert wire.transport.producerState == "producing"


def test_a_stuck_thread_is_not_waited_for() -> None:
    """A while past the request's time the client is told, and can go on; what comes of the write later is not sent."""
    world = World()
    world.held = True
    wire = world.wire()
    world.reactor.advance(7)
    wire.send(SET_K + GET_K)
    world.reactor.advance(world.request_timeout + LAST_RESORT - 0.5)
    assert wire.transport.value() == b""
    world.reactor.advance(0.5)
    (reply,) = wire.replies()
    assert problem(reply)[:2] == (503, "deadline_exceeded")
    world.held = False
    world.work()
    # The Get's answer, not the write's.
    assert [reply.json() for reply in wire.replies()] == [{"key": "k", "value": "v"}]
    assert world.admission.in_flight == 0


def test_each_stuck_write_has_its_time() -> None:
    """The second one's ends later than the first one's."""
    world = World()
    world.held = True
    first, second = world.wire(), world.wire()
    first.send(SET_K)
    world.reactor.advance(10)
    second.send(SET_K)
    world.reactor.advance(world.request_timeout + LAST_RESORT - 10)
    assert [len(wire.replies()) for wire in (first, second)] == [1, 0]
    world.reactor.advance(10)
    assert len(second.replies()) == 1
    first.transport.disconnect()
    second.transport.disconnect()
    assert world.reactor.getDelayedCalls() == []


def test_a_half_sent_body_is_waited_for() -> None:
    """By either lane, until its deadline; and then it is carried out."""
    world = World(patience=Patience(body=50))
    wire = world.wire()
    wire.send(SET_K[:-1])
    world.reactor.advance(49)
    wire.send(SET_K[-1:] + GET_K)
    assert [reply.status for reply in wire.replies()] == [200, 200]


@pytest.mark.parametrize("part", [SET_K[:-1], SET_K[:40]])
def test_drain_waits_for_a_half_sent_request(part: bytes) -> None:
    """As for any request that has begun; the answer says that it is the last."""
    world = World()
    wire = world.wire()
    wire.send(part)
    world.site.drain(10)
    assert wire.open
    wire.send(SET_K[len(part) :] + GET_K)
    first, last = wire.replies()
    assert (first.status, "connection" in first.headers) == (200, False)
    assert (last.status, last.headers["connection"]) == (200, "close")
    assert not wire.open


# Slow readers.


class FullTransport(WireTransport):
    """A client that does not read: what is written stays, and over 64 KiB the writer is told to stop."""

    def write(self, data: bytes) -> None:
        """Keep it."""
        super().write(data)
        if len(self.value()) > 65_536:
            self.protocol.pauseProducing()


@pytest.mark.local_backend
def test_a_client_that_does_not_read_is_not_answered() -> None:
    """What is made at once is bounded, and the rest waits until there is room."""
    world = World()
    world.engine.slow = False
    world.request("POST", "/api/v1/set", b'{"key":"k","value":"%b"}' % (b"x" * 50_000))
    wire = world.wire()
    wire.transport.__class__ = FullTransport
    wire.send(GET_K * 100)
    sent = len(wire.transport.value())
    if world.fast_lane:
        assert BURST <= sent < BURST + 60_000
    wire.send(GET_K)
    if world.fast_lane:
        assert len(wire.transport.value()) == sent
    wire.transport.__class__ = WireTransport
    wire.channel.resumeProducing()
    world.reactor.advance(0)
    assert [reply.status for reply in wire.replies()] == [200] * 101


@pytest_twisted.ensureDeferred
async def test_a_client_that_reads_late(live: LiveSite, lane: str) -> None:
    """Over a real connection: all answers come, whole and in order, once it reads."""
    live.engine.slow = False
    client = await live.connect()
    for key in ("a", "b"):
        live.storage.store.set(key.encode(), key.encode() * 1_000_000)
    client.transport.pauseProducing()
    requests = [request_bytes("GET", f"/api/v1/get/{key}") for key in "abba" * 2]
    client.send(b"".join(requests) + SCAN)
    await deferLater(reactor, 0.2)
    (channel,) = live.site.channels
    if lane == "fast":
        assert len(channel.transport.dataBuffer) + channel.transport._tempDataLen < 2_000_000
    client.transport.resumeProducing()
    await client.until(b'"next_cursor":""}')
    replies = parse_replies(client.received)
    assert [reply.json()["value"][0] for reply in replies[:-1]] == list("abba" * 2)
    assert {len(reply.json()["value"]) for reply in replies[:-1]} == {1_000_000}
    client.transport.loseConnection()
    await client.closed()


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_away_in_the_middle(live: LiveSite) -> None:
    """The connection ends, nothing else."""
    client = await live.connect()
    client.send((SET_K + GET_K) * 1000)
    client.transport.abortConnection()
    await client.closed()
    while live.site.connections:
        await deferLater(reactor, 0.01)
    other = await live.connect()
    other.send(SET_K + GET_K)
    await other.until(b'"value":"v"}')
    other.transport.loseConnection()
    await other.closed()


# Clients that have gone.


@pytest.mark.parametrize("request_", [SET_K, SCAN, request_bytes("POST", "/api/v1/mget", b'{"keys":["k"]}')])
def test_what_nobody_waits_for(request_: bytes) -> None:
    """A write goes in all the same; a read that has not begun is not begun."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(request_)
    wire.transport.disconnect()
    before = len(world.engine.calls)
    world.work()
    assert {call.method for call in world.engine.calls[before:]} <= {"write"}
    assert world.stored() == ({b"k": b"v"} if request_ is SET_K else {})
    assert world.admission.in_flight == 0
