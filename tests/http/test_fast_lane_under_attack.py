"""The fast lane with clients that mean harm, threads that are stuck, and defects of its own."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kvtwisted.http import fast_requests
from kvtwisted.http.answers import Answer
from kvtwisted.http.fast_lane import FastLane
from kvtwisted.http.fast_requests import POST, RequestReader
from kvtwisted.http.lanes import EAGER, TURN, TWISTED_TURN
from kvtwisted.sessions.threads import LAST_RESORT

from .support import World, parse_replies, problem, request_bytes
from .test_fast_lane import GET_K, SCAN, SET_K

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

# Heads.


def test_a_header_is_read_once() -> None:
    """Spaces are not tried in each way that they can be shared out: that took half a second for 8,000 of them."""
    head = b"GET /api/v1/get/k HTTP/1.1\r\nHost: a\r\nX:"

    def seconds(spaces: int) -> float:
        data = head + b" " * spaces + b"\0\r\n\r\n"
        tries = []
        for _ in range(20):
            started = time.perf_counter()
            assert RequestReader(100).read(data, 0) is None
            tries.append(time.perf_counter() - started)
        return min(tries)

    # 16 times as many, which would be 256 times as long.
    assert seconds(8000) < 100 * seconds(500)


@pytest.mark.parametrize(
    "value", [b"application/json", b" \tapplication/json", b"application/json \t ", b"\tapplication/json\t"]
)
def test_spaces_around_a_value(value: bytes) -> None:
    """They are no part of it."""
    head = b"POST /api/v1/set HTTP/1.1\r\nHost:a\r\nContent-Length:\t1 \r\nContent-Type:" + value + b"\r\n\r\n"
    assert RequestReader(100).read(head, 0) == (POST, b"set", "application/json", len(head), len(head) + 1, None)


def test_more_headers_than_are_plain() -> None:
    """They are twisted.web's to count."""
    line = b"GET /api/v1/get/k HTTP/1.1\r\nHost: a\r\n"
    more = fast_requests.MAX_FIELDS - 1
    assert RequestReader(0).read(line + b"X:\r\n" * more + b"\r\n", 0) is not None
    assert RequestReader(0).read(line + b"X:\r\n" * (more + 1) + b"\r\n", 0) is None


# Waiting.


def test_a_client_that_goes_on_behind_a_stuck_write() -> None:
    """The next write has its own time, and no timer is left behind."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(SET_K * 3)
    for answered in (1, 2):
        world.reactor.advance(world.request_timeout + LAST_RESORT)
        assert len(parse_replies(wire.transport.value())) == answered
    wire.transport.disconnect()
    assert world.reactor.getDelayedCalls() == []


def test_a_write_that_ends_late_takes_no_time_from_the_next() -> None:
    """One that was given up is done at last, and the one behind it gets stuck, too."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(SET_K * 2)
    world.reactor.advance(world.request_timeout + LAST_RESORT)
    world.pool.run_one()
    world.reactor.advance(world.request_timeout + LAST_RESORT)
    assert [problem(reply)[1] for reply in wire.replies()] == ["deadline_exceeded"] * 2
    world.work()
    assert (wire.replies(), world.admission.in_flight) == ([], 0)


def test_a_shorter_time_holds_for_the_next_write() -> None:
    """Also when it ends before that of one that came earlier."""
    world = World()
    world.held = True
    first, second = world.wire(), world.wire()
    first.send(SET_K)
    world.request_timeout = 2.0
    second.send(SET_K)
    world.reactor.advance(2 + LAST_RESORT)
    assert [len(wire.replies()) for wire in (first, second)] == [0, 1]
    world.reactor.advance(28)
    assert len(first.replies()) == 1


@pytest.mark.parametrize("request_", [GET_K, request_bytes("POST", "/api/v1/mget", b'{"keys":["k"]}'), SCAN])
def test_a_client_that_has_gone_is_not_waited_for(request_: bytes) -> None:
    """No timer runs for it, though the thread has still to do the work."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(request_)
    wire.transport.disconnect()
    assert world.reactor.getDelayedCalls() == []
    assert world.admission.in_flight == 1
    world.work()
    assert world.admission.in_flight == 0


@pytest.mark.parametrize("first", [GET_K, SET_K, SCAN])
def test_the_idle_time_begins_with_the_answer(first: bytes) -> None:
    """Not with the request, whose answer may have taken most of it."""
    world = World(idle_timeout=20)
    world.held = True
    wire = world.wire()
    wire.send(first)
    world.reactor.advance(19)
    world.work()
    assert len(wire.replies()) == 1
    world.reactor.advance(19)
    assert wire.open
    world.reactor.advance(1)
    assert not wire.open


# Turns.


@pytest.mark.local_backend
def test_connections_take_turns() -> None:
    """One that pipelines is answered some requests of, then others are served; all are answered, in order."""
    world = World(fast_lane=True)
    world.engine.slow = False
    wire = world.wire()
    gets = b"".join([request_bytes("GET", f"/api/v1/get/{number}") for number in range(3 * TURN)])
    answered: list[int] = []

    def look() -> None:
        answered.append(wire.transport.value().count(b"HTTP/1.1 "))
        if len(answered) < 5:
            world.reactor.callLater(0, look)

    wire.channel.dataReceived(SET_K + GET_K + gets + SET_K + SCAN)
    look()
    world.reactor.advance(0)
    assert answered[:5] == [0, 1 + TURN, 1 + 2 * TURN, 1 + 3 * TURN, 2 + 3 * TURN]
    wire.send(GET_K)
    world.work()
    statuses = [reply.status for reply in wire.replies()]
    assert statuses == [200, 200, *[404] * (3 * TURN), 200, 200, 200]


def test_requests_that_take_long_take_fewer_turns() -> None:
    """Those that twisted.web answers at once."""
    world = World(fast_lane=True)
    world.engine.slow = False
    wire = world.wire()
    answered: list[int] = []

    def look() -> None:
        answered.append(wire.transport.value().count(b"HTTP/1.1 "))
        if len(answered) < 4:
            world.reactor.callLater(0, look)

    wire.channel.dataReceived(request_bytes("GET", "/nowhere") * (3 * TWISTED_TURN + 1))
    look()
    world.reactor.advance(0)
    assert answered == [TWISTED_TURN, 2 * TWISTED_TURN, 3 * TWISTED_TURN, 3 * TWISTED_TURN + 1]
    wire.send(GET_K)
    assert [reply.status for reply in wire.replies()] == [404] * (3 * TWISTED_TURN + 2)


def test_bytes_that_come_while_others_have_their_turn_are_bounded() -> None:
    """No more are read while many wait."""
    world = World(fast_lane=True)
    world.engine.slow = False
    wire = world.wire()
    count = TURN + EAGER // len(GET_K) + 1
    wire.channel.dataReceived(GET_K * count)
    assert wire.transport.producerState == "paused"
    wire.send(GET_K)
    assert wire.transport.producerState == "producing"
    while world.reactor.getDelayedCalls()[0].getTime() <= world.reactor.seconds():
        world.reactor.advance(0)
    assert len(wire.replies()) == count + 1


@pytest.mark.local_backend
@pytest.mark.parametrize("disconnect", [True, False])
def test_the_end_while_others_have_their_turn(disconnect: bool) -> None:
    """When the client goes, what has not been begun is not begun; when the server drains, it is answered."""
    world = World(fast_lane=True)
    world.engine.slow = False
    wire = world.wire()
    wire.channel.dataReceived(GET_K * (TURN + 1))
    if disconnect:
        wire.transport.disconnect()
    world.site.drain(10)
    world.reactor.advance(0)
    assert not wire.open
    assert len(wire.replies()) == TURN + (not disconnect)
    assert world.reactor.getDelayedCalls() == []


# Defects.


def lane_of(wire: Any) -> FastLane:
    """What answers a connection's plain requests."""
    lane: FastLane | None = wire.channel._lanes._lane or wire.channel._lanes._enter(None)
    assert lane is not None
    return lane


def broken(*args: object) -> Any:
    """What no code of ours does."""
    raise ZeroDivisionError("secret")


def test_a_defect_in_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered as an incident, in its place, and what comes behind is served."""
    world = World(fast_lane=True)
    wire = world.wire()
    world.engine.slow = False
    monkeypatch.setattr(lane_of(wire), "_get_now", broken)
    wire.send(SET_K + GET_K)
    monkeypatch.setattr(lane_of(wire), "answer", broken)
    wire.send(GET_K)
    monkeypatch.undo()
    wire.send(GET_K)
    replies = wire.replies()
    assert [reply.status for reply in replies] == [200, 500, 500, 200]
    assert all(problem(reply)[1] == "internal_error" for reply in replies[1:3])
    assert b"secret" not in replies[1].body + replies[2].body


def test_a_defect_behind_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The write goes in, the client is not left waiting, and its answer is not taken for another's."""
    world = World(fast_lane=True)
    wire = world.wire()
    world.held = True
    monkeypatch.setattr(lane_of(wire)._dispatch._requests, "look_at", broken)
    wire.send(SET_K)
    monkeypatch.undo()
    wire.send(SCAN)
    assert [reply.status for reply in wire.replies()] == [500]
    world.held = False
    world.work()
    assert [list(reply.json()) for reply in wire.replies()] == [["prefix", "limit", "count", "results", "next_cursor"]]
    assert world.stored() == {b"k": b"v"}


def test_a_defect_in_writing_an_answer_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a handler's answer: the client is told."""
    world = World(fast_lane=True)
    wire = world.wire()
    encode = lane_of(wire).encode

    def encode_some(answer: Answer) -> bytes:
        return broken() if b'"value"' in answer.body else encode(answer)

    monkeypatch.setattr(lane_of(wire), "encode", encode_some)
    wire.send(SET_K + GET_K + SET_K)
    assert [reply.status for reply in wire.replies()] == [200, 500, 200]


@pytest.mark.local_backend
def test_a_defect_ends_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream that nobody can go on with; those whose writes went in together with its own are answered."""
    world = World(fast_lane=True)
    world.engine.slow = False
    wires = [world.wire() for _ in range(3)]
    for wire in wires:
        wire.channel.dataReceived(SET_K + (b"" if wire is wires[1] else GET_K))
    monkeypatch.setattr(wires[0].channel._lanes, "_read", broken)
    world.reactor.advance(0)
    assert [wire.open for wire in wires] == [False, True, True]
    assert wires[0].transport.aborted
    assert [[reply.status for reply in wire.replies()] for wire in wires[1:]] == [[200], [200, 200]]
    wires[1].send(GET_K)
    assert [reply.status for reply in wires[1].replies()] == [200]
