"""Requests that come too slowly, answers that are not read, and how the connections with either are followed."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from kvtwisted.http.channel import LINGER_TIMEOUT, MAX_FRAMING
from kvtwisted.http.deadlines import LOOK_SECONDS, MIN_BODY_RATE, ByteLimits, Deadlines
from kvtwisted.reactor.twisted_internals import unsent_bytes

from .slow import GET, NONE_CUT_OFF, PATIENCE, SlowTransport, pass_time, world_of
from .support import Wire, World, problem, request_bytes

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

SET = request_bytes("POST", "/api/v1/set", b'{"key":"k","value":"v"}')
HEAD = SET[:-23]
POST_HEAD = b"POST /api/v1/set HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def refused(wire: Wire, status: int) -> str:
    """The code of the one answer, after which the connection must be half closed."""
    (reply,) = wire.replies()
    assert reply.headers["connection"] == "close"
    assert wire.transport.half_closed
    assert reply.status == status
    return problem(reply)[1]


def trickle(world: World, wire: Wire, data: bytes, seconds: float) -> int:
    """Send byte by byte, each after so many seconds, until the server has had enough; how many it took."""
    for count in range(len(data)):
        if wire.transport.half_closed:
            return count
        wire.send(data[count : count + 1])
        pass_time(world, seconds)
    return len(data)


# Requests that come too slowly.


@pytest.mark.parametrize("start", [b"G", b"GET /api/v1/get/k HTTP/1.1\r\n", b"\r\nGET / HTTP/1.1\r\nHost: a\r\nX"])
def test_a_head_has_a_deadline(start: bytes) -> None:
    """From its first byte; a byte now and then does not move it."""
    world = world_of()
    wire = world.wire()
    pass_time(world, 100)
    wire.send(start)
    assert trickle(world, wire, b"x" * 100, 1) <= PATIENCE.head + 1
    assert refused(wire, 408) == "request_timeout"
    assert world.site.deadlines.cut_off == {**NONE_CUT_OFF, "slow_head": 1}
    pass_time(world, LINGER_TIMEOUT)
    assert not wire.open
    assert world.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("head", [HEAD, CHUNKED, SET[:-22]])
def test_a_body_has_a_deadline(head: bytes) -> None:
    """From the end of its head, with a length or in chunks, begun in one piece with the head or not."""
    world = world_of()
    wire = world.wire()
    wire.send(head)
    drops = b"1\r\nx\r\n" * 10 if head is CHUNKED else b"x" * 20
    assert 8 <= trickle(world, wire, drops, 1) <= PATIENCE.body + 1
    assert refused(wire, 408) == "request_timeout"
    assert world.site.deadlines.cut_off == {**NONE_CUT_OFF, "slow_body": 1}
    assert world.stored() == {}


def test_the_time_of_the_head_is_not_the_bodys() -> None:
    """A head that came just in time leaves the body all of its own."""
    world = world_of()
    wire = world.wire()
    wire.send(HEAD[:-1])
    pass_time(world, PATIENCE.head - 0.5)
    wire.send(HEAD[-1:])
    pass_time(world, PATIENCE.body - 0.5)
    wire.send(SET[len(HEAD) :])
    assert [reply.status for reply in wire.replies()] == [200]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_slow_honest_body(chunked: bool) -> None:
    """At MIN_BODY_RATE it may take as long as it needs; below that it is given up, however it is framed."""
    for rate, good in ((MIN_BODY_RATE, True), (MIN_BODY_RATE // 2, False)):
        world = world_of()
        wire = world.wire()
        body = b'{"key":"k","value":"v"}'.ljust(60 * MIN_BODY_RATE)
        wire.send(CHUNKED if chunked else POST_HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), rate):
            if wire.transport.half_closed:
                break
            pass_time(world, 1)
            part = body[at : at + rate]
            wire.send(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
        if good:
            wire.send(b"0\r\n\r\n" if chunked else b"")
            assert [reply.status for reply in wire.replies()] == [200]
        else:
            assert refused(wire, 408) == "request_timeout"


@pytest.mark.parametrize("first", [GET, SET, request_bytes("GET", "/api/v1/scan")])
@pytest.mark.parametrize("rest", [GET[:30], HEAD, HEAD + b"{", b"P"])
def test_what_follows_an_answer_has_deadlines_too(first: bytes, rest: bytes) -> None:
    """The beginning of the next request that came together with one that took its time, on either lane."""
    world = world_of()
    wire = world.wire()
    world.held = True
    wire.send(first + rest)
    pass_time(world, 25)
    assert wire.replies() == []
    world.held = False
    world.work()
    assert len(wire.replies()) == 1
    pass_time(world, PATIENCE.body + LOOK_SECONDS)
    assert refused(wire, 408) == "request_timeout"


@pytest.mark.parametrize("part", [GET[:30], HEAD + b"{"])
def test_each_request_has_its_own_time(part: bytes) -> None:
    """A client may be in the middle of a request whenever it is looked at, if it is a new one each time."""
    world = world_of()
    wire = world.wire()
    whole = GET if part == GET[:30] else SET
    for _ in range(40):
        wire.send(part)
        pass_time(world, 1)
        wire.send(whole[len(part) :])
        assert len(wire.replies()) == 1


def test_lanes_do_not_take_over_each_others_time() -> None:
    """A body that the fast lane waited for, and later one that twisted.web waits for."""
    world = world_of()
    wire = world.wire()
    wire.send(HEAD)
    pass_time(world, PATIENCE.body - 1)
    # Complete, and behind it, in the same piece, a request for the other lane with a part of its body.
    other = POST_HEAD.replace(b"/set", b"/mdelete") + b"Content-Length: 12\r\n\r\n"
    wire.send(SET[len(HEAD) :] + other + b"{")
    pass_time(world, PATIENCE.body - 1)
    wire.send(b'"keys":["k"]}'[:11])
    assert len(wire.replies()) == 2


def test_nothing_is_armed_for_whole_requests() -> None:
    """A deadline that would not be missed would fall within the time that nothing is done in."""
    world = world_of()
    wire = world.wire()
    for _ in range(3):
        wire.send(GET + SET)
        assert min(call.getTime() for call in world.reactor.getDelayedCalls()) > LOOK_SECONDS


@pytest.mark.local_backend
def test_deadlines_end_with_their_cause() -> None:
    """Complete requests and closed connections are not looked at again."""
    world = world_of()
    # What needs no thread leaves no timer.
    world.engine.slow = False
    done, gone = world.wire(), world.wire()
    done.send(GET[:20])
    gone.send(HEAD)
    gone.transport.disconnect()
    done.send(GET[20:])
    pass_time(world, 2 * LOOK_SECONDS)
    assert len(world.reactor.getDelayedCalls()) == 1
    pass_time(world, 100)
    assert done.open


# Bodies without an end.


@pytest.mark.parametrize(
    ("piece", "status"),
    [
        (b"1;" + b"x" * 500 + b"\r\nx\r\n", 400),
        (b"1;" + b"x" * 2000, 400),
        (b"0" * 2000, 400),
        (b"1\r\nx\r\n", 400),
        (b"8000\r\n" + b"x" * 0x8000 + b"\r\n", 413),
        (b"0\r\n" + b"X: y\r\n" * 20_000, 400),
        (b"0\r\nX: " + b"y" * 100_000, 400),
    ],
    ids=["extensions", "an extension", "a size", "tiny chunks", "content", "trailers", "a trailer"],
)
def test_endless_bodies(piece: bytes, status: int) -> None:
    """Whatever a chunked body is endless in, it ends with an answer before it has taken much more than the limit."""
    limit = 1_000_000
    world = World(max_body_bytes=limit)
    wire = world.wire()
    wire.send(CHUNKED)
    sent = 0
    while not wire.transport.half_closed:
        wire.send(piece)
        sent += len(piece)
        assert sent < 2 * (limit + MAX_FRAMING)
    refused(wire, status)


def test_small_chunks_are_no_attack() -> None:
    """A body in chunks of five bytes, and a small one in chunks of one, each with an extension."""
    world = World()
    for body, size, extension in (
        (b'{"key":"k","value":"v"}'.ljust(200_000), 5, b""),
        (SET[-23:], 1, b";a=" + b"b" * 500),
    ):
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        wire = world.wire()
        wire.send(CHUNKED + b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts))
        wire.send(b"0\r\nTrailer: x\r\n\r\n")
        assert [reply.status for reply in wire.replies()] == [200]


# Many large bodies.


@pytest.mark.parametrize("chunked", [False, True])
def test_all_unfinished_bodies_together(chunked: bool) -> None:
    """When they take too much, those that came most slowly are refused; quick ones are not, nor what takes little."""
    world = world_of(byte_limits=ByteLimits(unfinished=1_000_000))
    small, slow, quick = world.wire(), [world.wire() for _ in range(8)], world.wire()
    head = CHUNKED if chunked else POST_HEAD + b"Content-Length: 200000\r\n\r\n"

    def part(size: int) -> bytes:
        data = b" " * size
        return b"%x\r\n%s\r\n" % (size, data) if chunked else data

    small.send(head + part(1000))
    for wire in slow:
        wire.send(head + part(100_000))
    pass_time(world, 5)
    quick.send(head + part(199_000))
    assert world.site.deadlines.unfinished == 1_000_000
    assert not any(wire.transport.half_closed for wire in slow)
    quick.send(part(977))
    gone = [wire for wire in slow if wire.transport.half_closed]
    assert len(gone) == 3
    for wire in gone:
        assert refused(wire, 429) == "overloaded"
        # What it still sends is not kept.
        wire.send(part(50_000))
    assert world.site.deadlines.unfinished == 700_977
    quick.send(part(23)[:-25] + b'{"key":"k","value":"v"}' + (b"\r\n0\r\n\r\n" if chunked else b""))
    assert [reply.status for reply in quick.replies()] == [200]
    for wire in slow:
        wire.transport.disconnect()
    assert world.site.deadlines.unfinished == 1000
    small.transport.disconnect()
    assert world.site.deadlines.unfinished == 0
    assert world.site.deadlines.refused == 3
    assert world.site.deadlines.cut_off == NONE_CUT_OFF


def test_a_lower_limit_of_unfinished_bodies_holds_at_once() -> None:
    """The slowest are told which limit it was; those that are left go on."""
    world = world_of(byte_limits=ByteLimits(unfinished=1_000_000))
    wires = [world.wire() for _ in range(4)]
    for wire in wires:
        wire.send(POST_HEAD + b"Content-Length: 200000\r\n\r\n")
        pass_time(world, 1)
    for number, wire in enumerate(wires):
        wire.send(b" " * (100_000 + number))
    world.site.deadlines.retune(ByteLimits(unfinished=400_000))
    assert [wire.transport.half_closed for wire in wires] == [True, True, False, False]
    (reply,) = wires[0].replies()
    assert problem(reply)[:2] == (429, "overloaded")
    assert "limits.max_unfinished_bytes is 400000 bytes" in problem(reply)[2]
    assert reply.headers["retry-after"] == "1"
    assert world.site.deadlines.refused == 2
    wires[3].send(b'{"key":"k","value":"v"}'.rjust(200_000 - 100_003))
    assert [reply.status for reply in wires[3].replies()] == [200]


# The list.


class Item:
    """A connection that has so much to send."""

    moved_at = 0.0

    def __init__(self, unsent: int | None) -> None:
        self.unsent = unsent
        self.looks = 0
        self.aborted = False

    def look(self, now: float) -> int | None:
        """Count."""
        self.looks += 1
        if self.unsent == -1:
            raise ZeroDivisionError
        return self.unsent

    def is_known(self) -> bool:
        """It is."""
        return True

    def make_room(self, rate: float, *, known: bool) -> None:
        """There is nothing to give up."""

    def abort(self) -> None:
        """Remember."""
        self.aborted = True


def test_the_list_is_looked_at_while_there_is_something_on_it() -> None:
    """Each LOOK_SECONDS, and one that fails does not keep the others from it."""
    clock = Clock()
    deadlines = Deadlines(clock, clock.seconds, PATIENCE, ByteLimits())
    items = [Item(5), Item(-1), Item(None), Item(0)]
    for item in items:
        deadlines.follow(item, 1)
    assert deadlines.unsent == 4
    clock.pump([LOOK_SECONDS] * 3)
    assert [item.looks for item in items] == [3, 1, 1, 3]
    assert [item.aborted for item in items] == [False, True, False, False]
    assert deadlines.unsent == 5
    for item in items:
        deadlines.forget(item)
    assert (deadlines.unsent, clock.getDelayedCalls()) == (0, [])


def test_unsent_bytes() -> None:
    """Of the transport, and with TLS of both layers."""
    inner = SlowTransport()
    inner.dataBuffer, inner.offset = b"12345", 2

    class Outer:
        transport = inner
        _appSendBuffer = (b"12", b"3")
        _tempDataLen = 4

    assert unsent_bytes(inner) == 3
    assert unsent_bytes(Outer()) == 10
