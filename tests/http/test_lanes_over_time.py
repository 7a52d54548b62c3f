"""Whatever happens on a connection, and whenever: each request is answered once, in order, or not at all at the end."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.http.lanes import EAGER

from ..support.properties import sampled
from .support import Reply, Wire, World, parse_replies, request_bytes

#: Says that these tests run over every backend at every change.
BACKENDS_DIFFER = True

#: Says that these tests need not run once for each lane.
COMPARES_LANES = True
#: A value over what a transport keeps without telling the writer to stop.
LARGE = "x" * 70_000


def _chunked(number: int) -> bytes:
    body = b'{"key":"k","value":"v","%d":1}' % number
    head = (
        b"POST /api/v1/set HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


#: Requests whose answers name their number, for both lanes: answered at once, by the pool, with a group of writes.
REQUESTS: list[Callable[[int], bytes]] = [
    lambda number: request_bytes("GET", f"/api/v1/get/{number}"),
    lambda number: request_bytes("GET", f"/api/v1/get/{number}"),
    lambda number: request_bytes("GET", f"/api/v1/get/large{number}"),
    lambda number: request_bytes("GET", f"/api/v1/get/%zz{number}"),
    lambda number: request_bytes("GET", f"/api/v1/scan?prefix={number}"),
    lambda number: request_bytes("POST", "/api/v1/mget", b'{"keys":["%d"]}' % number),
    lambda number: request_bytes("POST", "/api/v1/set", b'{"key":"k","value":"v","%d":1}' % number),
    lambda number: request_bytes("POST", "/api/v1/set", b'{"key":"new%d","value":"%d"}' % (number, number)),
    lambda number: request_bytes("DELETE", f"/api/v1/delete/new{number}"),
    _chunked,
]
_EVENT = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 400)),
    st.tuples(st.just("send"), st.just(100_000)),
    st.tuples(st.sampled_from(["turn", "work", "one", "full", "read"]), st.just(0)),
)


class Course:
    """One connection of a client that sends as much as the server takes."""

    def __init__(self, kinds: list[int], slow: bool, fast: bool) -> None:
        self.world = World(fast_lane=fast)
        self.world.engine.slow = slow
        for number in range(len(kinds)):
            self.world.storage.store.set(str(number).encode(), str(number).encode())
            self.world.storage.store.set(b"large%d" % number, LARGE.encode())
        self.wire: Wire = self.world.wire()
        self.requests = [REQUESTS[kind](number) for number, kind in enumerate(kinds)]
        self.unsent = b"".join(self.requests)
        self.full = False

    def happen(self, event: str, size: int) -> None:
        """One event; those that cannot be now are none."""
        wire, world = self.wire, self.world
        if not wire.open:
            return
        if event == "send" and wire.transport.producerState == "producing":
            data, self.unsent = self.unsent[:size], self.unsent[size:]
            if data:
                wire.channel.dataReceived(data)
            assert len(wire.channel._lanes._held if wire.channel._lanes is not None else b"") <= EAGER + 100_000
        elif event == "turn":
            world.reactor.advance(0)
        elif event == "work":
            world.work()
        elif event == "one" and world.pool.waiting:
            world.pool.run_one()
        elif event == "full" and not self.full and wire.transport.producer is not None:
            self.full = True
            wire.channel.pauseProducing()
        elif event == "read" and self.full and wire.transport.producer is not None:
            self.full = False
            wire.channel.resumeProducing()

    def finish(self) -> None:
        """Let all come to its end."""
        before = None
        while self.wire.open and before != (before := (len(self.unsent), len(self.wire.transport.value()))):
            self.happen("read", 0)
            for _ in range(2):
                self.happen("send", 100_000)
                self.world.reactor.advance(0)
                self.world.work()
        # What has begun goes on without its client.
        self.world.reactor.advance(0)
        self.world.work()

    def replies(self) -> list[Reply]:
        """What has been answered, each to its own request."""
        replies = parse_replies(self.wire.transport.value())
        assert len(replies) <= len(self.requests)
        for number, (request, reply) in enumerate(zip(self.requests, replies)):
            if b"get/large" in request:
                assert reply.json()["key"] == f"large{number}"
            elif b'"new' in request or b"DELETE" in request:
                assert (reply.status, set(reply.json())) == (200, {"success", "message"})
            elif b"%zz" in request:
                assert reply.status == 400
            else:
                assert f'"{number}"'.encode() in reply.body.replace(b'\\"', b'"')
        return replies


_KINDS = st.lists(st.integers(0, len(REQUESTS) - 1), min_size=1, max_size=12)


@sampled(50, 150, given(_KINDS, st.lists(_EVENT, max_size=30), st.booleans()))
def test_every_request_is_answered(kinds: list[int], events: list[tuple[str, int]], slow: bool) -> None:
    """However sending, threads, turns of the reactor and a client that reads now and then mix."""
    course = Course(kinds, slow, fast=True)
    for event in events:
        course.happen(*event)
    course.finish()
    assert len(course.replies()) == len(kinds)
    assert course.wire.open
    assert course.world.admission.in_flight == 0


@sampled(
    50, 150, given(_KINDS, st.lists(_EVENT, max_size=20), st.lists(_EVENT, max_size=10), st.booleans(), st.booleans())
)
def test_the_end_may_come_at_any_time(
    kinds: list[int], before: list[tuple[str, int]], after: list[tuple[str, int]], slow: bool, client: bool
) -> None:
    """The server drains, or the client goes: what was answered is in order, the rest is not; nothing is left behind."""
    course = Course(kinds, slow, fast=True)
    for event in before:
        course.happen(*event)
    if client:
        course.wire.transport.disconnect()
    course.world.site.drain(10)
    for event in after:
        course.happen(*event)
    course.finish()
    replies = course.replies()
    if client:
        assert not course.wire.open
    else:
        assert all("connection" not in reply.headers for reply in replies[:-1])
        # One that is not complete is waited for.
        assert not course.wire.open or not course.unsent
    course.world.reactor.advance(10)
    assert not course.wire.open
    assert course.world.admission.in_flight == 0
    assert course.world.site.connections == 0
    assert course.world.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("slow", [False, True])
def test_all_of_them_at_once(slow: bool) -> None:
    """Many of each, in one packet; as twisted.web answers them."""
    kinds = list(range(len(REQUESTS))) * 30
    sent: list[Any] = []
    for fast in (True, False):
        course = Course(kinds, slow, fast)
        course.finish()
        sent.append([(reply.status, reply.body) for reply in course.replies()])
    assert sent[0] == sent[1]
    assert len(sent[0]) == len(kinds)
