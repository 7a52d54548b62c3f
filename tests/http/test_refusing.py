"""Connections that are one too many, and requests whose Host is none."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address

from kvtwisted.http.refusing import LINGER_TIMEOUT, MAX_LINGERING
from kvtwisted.http.site import PARTING_SECONDS
from kvtwisted.sessions.connections import Connections

from .support import Wire, WireTransport, World, parse_replies, problem

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

GET = b"GET /api/v1/get/k HTTP/1.1\r\nHost: localhost\r\n\r\n"


def world_of(in_all: int, per_address: int | None = None) -> tuple[World, Connections]:
    """A site with a limit, and what counts its connections."""
    connections = Connections(lambda: in_all, lambda: in_all if per_address is None else per_address, 0)
    return World(connections=connections), connections


def refused(world: World) -> WireTransport:
    """A connection that was refused."""
    transport = WireTransport()
    transport.protocol = world.site.buildProtocol(IPv4Address("TCP", "10.0.0.1", 1))
    transport.protocol.makeConnection(transport)
    (reply,) = parse_replies(transport.value())
    assert problem(reply)[:2] == (503, "too_many_connections")
    assert (reply.headers["connection"], reply.headers["retry-after"]) == ("close", "1")
    return transport


def test_one_too_many_is_told_so() -> None:
    """Before it has said anything; what it says is not looked at, and the others are served."""
    world, connections = world_of(2)
    first, second = world.wire(), world.wire()
    transport = refused(world)
    transport.protocol.dataReceived(GET)
    assert transport.half_closed
    first.send(GET)
    assert [reply.status for reply in first.replies()] == [404]
    second.transport.disconnect()
    assert (connections.open, world.site.connections) == (1, 1)
    assert world.request("GET", "/api/v1/health").status == 200


def test_the_limit_is_named() -> None:
    """The key and the number in force, also where that is made from another: 0 is three quarters of all."""
    for in_all, per_address, sentence in (
        (1, 1, "too many connections: limits.max_connections allows 1; try again"),
        (2, 1, "too many connections from this address: limits.max_connections_per_address allows 1; try again"),
        (3, 0, "too many connections from this address: limits.max_connections_per_address allows 2; try again"),
    ):
        world, connections = world_of(in_all, per_address)
        for _ in range(per_address or 2):
            connections.enter("http", "10.0.0.1")
        (reply,) = parse_replies(refused(world).value())
        assert problem(reply)[2] == sentence


def test_a_refused_client_gets_time_to_read() -> None:
    """But not much, and not many of them."""
    world, _ = world_of(0 + 1)
    world.wire()
    transports = [refused(world) for _ in range(MAX_LINGERING + 1)]
    assert [transport.connected for transport in transports] == [True] * MAX_LINGERING + [False]
    transports[0].disconnect()
    assert refused(world).connected
    world.reactor.advance(LINGER_TIMEOUT)
    assert not any(transport.connected for transport in transports)


def test_drain_does_not_wait_for_refused_ones() -> None:
    """They are closed at once."""
    world, _ = world_of(1)
    world.wire()
    transport = refused(world)
    done: list[None] = []
    world.site.drain(10).addCallback(done.append)
    assert not transport.connected
    world.reactor.advance(PARTING_SECONDS)
    assert (transport.connected, done) == (False, [None])
    assert world.reactor.getDelayedCalls() == []


# Hosts, folded headers, spaces before the colon.


def malformed(wire: Wire) -> None:
    """It got 400, and the connection is half closed."""
    (reply,) = wire.replies()
    assert problem(reply)[:2] == (400, "malformed_request")
    assert reply.headers["connection"] == "close"
    assert wire.transport.half_closed


@pytest.mark.parametrize("route", [b"get/k", b"scan"])
@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Host: a\r\nHost: a\r\n",
        b"Host: a\r\nX: y\r\nhost: b\r\n",
        b"Host: a b\r\n",
        b"Host: a/b\r\n",
        b"Host: a@b\r\n",
        b"Host: a,b\r\n",
        b"Host: a:b\r\n",
        b"Host: a:80:80\r\n",
        b"Host: a:123456\r\n",
        b"Host: [::1\r\n",
        b"Host: ::1\r\n",
        b"Host: [a]\xe4\r\n",
        b"Host: a\r\n b\r\n",
        b"Host: a\r\nX: y\r\n\tz\r\n",
        b" Host: a\r\n",
        b"Host : a\r\n",
        b"Host: a\r\nX : y\r\n",
        b"Host: a\r\nX\t: y\r\n",
        b"Host: a\r\n: y\r\n",
        b"Host: a\r\nX(: y\r\n",
    ],
)
def test_heads_that_two_readers_could_read_in_two_ways(route: bytes, fields: bytes) -> None:
    """They are refused on either lane, and what follows is not looked at."""
    world = World()
    wire = world.wire()
    wire.send(b"GET /api/v1/" + route + b" HTTP/1.1\r\n" + fields + b"\r\n" + GET)
    malformed(wire)
    assert world.recorder.operations == []


def test_without_a_host_in_http_1_0() -> None:
    """There it need not be given; two are still too many."""
    wire = World().wire()
    wire.send(b"GET /api/v1/get/k HTTP/1.0\r\n\r\n")
    assert [reply.status for reply in wire.replies()] == [404]
    wire = World().wire()
    wire.send(b"GET /api/v1/get/k HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n")
    malformed(wire)
