"""The site as a whole: its connections and its end, over real sockets where the kernel matters."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutput

from kvtwisted.http import site
from kvtwisted.http.channel import EXPIRED_TIMEOUT, LINGER_TIMEOUT
from kvtwisted.http.site import PARTING_SECONDS
from kvtwisted.sessions.gate import Visitor

from .live import CLIENT_ENVIRONMENT, MAX_BODY_BYTES, LiveSite
from .support import Wire, World, parse_replies, problem, request_bytes

GET = b"GET /api/v1/get/k HTTP/1.1\r\nHost: localhost\r\n\r\n"
SET = request_bytes("POST", "/api/v1/set", b'{"key":"k","value":"v"}')


def drain(world: World, grace: float) -> list[None]:
    """Start to drain; the list is no longer empty once it is done."""
    done: list[None] = []
    world.site.drain(grace).addCallback(done.append)
    return done


def test_connections_are_counted() -> None:
    """Open ones only."""
    world = World()
    first, second = world.wire(), world.wire()
    assert world.site.connections == 2
    first.transport.disconnect()
    second.send(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert world.site.connections == 0


def test_drain_without_connections_is_done_at_once() -> None:
    """And it leaves no timer behind."""
    world = World()
    assert drain(world, 10) == [None]
    assert world.reactor.getDelayedCalls() == []


def test_drain_closes_idle_connections_soon() -> None:
    """Fresh ones, kept-alive ones, and such that have sent a part of a request line; long before the grace ends."""
    world = World()
    fresh, kept, begun = world.wire(), world.wire(), world.wire()
    kept.send(GET)
    begun.send(b"GET /api")
    done = drain(world, 10)
    world.reactor.advance(PARTING_SECONDS - 0.1)
    assert [wire.open for wire in (fresh, kept, begun)] == [True] * 3
    world.reactor.advance(0.1)
    assert [wire.open for wire in (fresh, kept, begun)] == [False] * 3
    assert done == [None]
    assert world.reactor.getDelayedCalls() == []


def test_drain_answers_one_request_more() -> None:
    """On a connection that was kept, on one that is new, and to what comes at once behind it; none is then open."""
    world = World()
    fresh, kept, pipelining = world.wire(), world.wire(), world.wire()
    kept.send(GET)
    kept.replies()
    done = drain(world, 10)
    fresh.send(GET)
    kept.send(SET)
    pipelining.send(SET + GET + SET)
    for wire, statuses in ((fresh, [404]), (kept, [200]), (pipelining, [200, 200, 200])):
        replies = wire.replies()
        assert [reply.status for reply in replies] == statuses
        assert [reply.headers.get("connection") for reply in replies] == [None] * (len(statuses) - 1) + ["close"]
        assert not wire.open
    assert done == [None]


def test_drain_closes_at_once_with_less_grace() -> None:
    """No grace: no time for a request more."""
    world = World()
    wire = world.wire()
    done = drain(world, 0)
    world.reactor.advance(0)
    assert (wire.open, done) == (False, [None])


def test_who_never_stops_to_ask_is_told_to() -> None:
    """When those that say nothing are closed, the next answer is the last one to those that pipeline without an end."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(SET + GET)
    done = drain(world, 10)
    world.reactor.advance(PARTING_SECONDS)
    assert wire.open
    world.work()
    (reply,) = wire.replies()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert (wire.open, done) == (False, [None])


def test_drain_lets_a_running_request_finish() -> None:
    """And what was pipelined behind it; the last answer says that the connection ends, and then it does."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(SET + GET)
    done = drain(world, 10)
    assert (wire.open, done) == (True, [])
    world.work()
    first, last = wire.replies()
    assert (first.status, "connection" in first.headers) == (200, False)
    assert (last.status, last.headers["connection"]) == (200, "close")
    assert (wire.open, done) == (False, [None])
    assert world.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("sent", [20, len(SET) - 5])
def test_drain_lets_a_half_sent_request_finish(sent: int) -> None:
    """Whether it is in its head or in its body."""
    world = World()
    wire = world.wire()
    # The request line at least: before that there is no request.
    split = max(sent, SET.index(b"\r\n") + 2)
    wire.send(SET[:split])
    done = drain(world, 10)
    wire.send(SET[split:])
    (reply,) = wire.replies()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert done == [None]
    assert world.stored() == {b"k": b"v"}


def test_drain_aborts_what_is_left_after_the_grace() -> None:
    """Requests that hang and clients that do not read."""
    world = World()
    stalled, hanging = world.wire(), world.wire()
    stalled.transport.stalled = True
    stalled.send(GET)
    world.held = True
    hanging.send(GET)
    done = drain(world, 10)
    world.reactor.advance(9)
    assert (stalled.open, hanging.open, done) == (True, True, [])
    world.reactor.advance(1)
    assert (stalled.transport.aborted, hanging.transport.aborted, done) == (True, True, [None])


def test_drain_lets_a_refused_client_read_its_refusal() -> None:
    """No longer than it would without."""
    world = World(max_body_bytes=100)
    wire = world.wire()
    wire.send(b"POST /api/v1/set HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n")
    done = drain(world, 10)
    assert wire.open
    world.reactor.advance(LINGER_TIMEOUT)
    assert (wire.open, done) == (False, [None])


def test_drain_refuses_connections_that_come_too_late() -> None:
    """Those that the kernel had accepted before the port was closed."""
    world = World()
    drain(world, 10)
    assert world.site.buildProtocol(None) is None


def test_the_factory_does_nothing_in_the_background() -> None:
    """Twisted's would keep a timer for its access log; starting and stopping ours leaves the reactor idle."""
    world = World()
    world.site.doStart()
    Wire(world).request("GET", "/api/v1/health")
    world.site.doStop()
    assert len(world.reactor.getDelayedCalls()) == 1  # the idle timeout of the connection


# Real sockets and threads.


@pytest_twisted.ensureDeferred
async def test_a_client_that_is_still_sending_gets_its_refusal(live: LiveSite) -> None:
    """The answer arrives whole although megabytes are under way, chunked or not."""
    part = b"%x\r\n%s\r\n" % (65_536, b"x" * 65_536)
    for framing, body in [
        (b"Content-Length: %d" % (MAX_BODY_BYTES + 1), b"x" * (MAX_BODY_BYTES + 1)),
        (b"Transfer-Encoding: chunked", part * (MAX_BODY_BYTES // 65_536 + 8)),
    ]:
        client = await live.connect()
        client.send(
            b"POST /api/v1/set HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" + framing + b"\r\n\r\n" + body
        )
        await client.closed()
        (reply,) = parse_replies(client.received)
        assert problem(reply)[:2] == (413, "too_large")


@pytest_twisted.ensureDeferred
async def test_drain_over_sockets(live: LiveSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle client sees the end soon, one that waits for a thread its answer first."""
    monkeypatch.setattr(site, "PARTING_SECONDS", 0.1)
    taken, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        taken.set()
        go_on.wait(30)

    idle, busy = await live.connect(), await live.connect()
    live.engine.before("get", hold)
    busy.send(GET)
    assert await deferToThread(taken.wait, 30)
    drained = live.drain(30)
    await idle.closed()
    assert busy.open
    go_on.set()
    await busy.closed()
    (reply,) = parse_replies(busy.received)
    assert (reply.status, reply.headers["connection"]) == (404, "close")
    await drained
    assert live.site.connections == 0


@pytest_twisted.ensureDeferred
async def test_curl(live: LiveSite) -> None:
    """What people try first."""

    async def curl(path: str, *options: str) -> Any:
        target = f"http://127.0.0.1:{live.port}{path}"
        command = ["curl", "-sS", "--path-as-is", *options, target]
        output: bytes = await getProcessOutput("/usr/bin/env", command, env=CLIENT_ENVIRONMENT)
        return output.decode()

    json_body = ("-H", "Content-Type: application/json", "-d")
    done = '{"success":true,"message":"key set successfully"}'
    for key, tail in [("a/../b", "a/../b"), ("x y", "x%20y"), ("50%", "50%25"), ("😀", "%F0%9F%98%80")]:
        assert await curl("/api/v1/set", *json_body, f'{{"key":"{key}","value":"v"}}') == done
        assert await curl(f"/api/v1/get/{tail}") == f'{{"key":"{key}","value":"v"}}'
    keys = await curl("/api/v1/scan", "-G", "--data-urlencode", "prefix=x ", "-d", "keys_only=true")
    assert keys == '{"prefix":"x ","limit":100,"count":1,"keys":["x y"],"next_cursor":""}'
    assert await curl("/api/v1/delete/x%20y", "-X", "DELETE") == '{"success":true,"message":"key deleted successfully"}'
    assert live.storage.value(b"x y") is None


def test_a_connection_ends_with_its_client_s_certificate() -> None:
    """An idle one at once, one that is being answered after that, one that takes too long all the same."""
    world = World()
    idle, busy, stuck, other, fresh = [world.wire() for _ in range(5)]
    for wire in (idle, busy, stuck, other):
        wire.send(GET)
        wire.channel.visitor = Visitor("", (), "ann", 1000.0 if wire is not other else 2000.0)
    world.held = True
    busy.send(SET)
    stuck.send(SET)
    world.site.end_expired(999.0)
    assert all(wire.open for wire in (idle, busy, stuck, other, fresh))
    world.site.end_expired(1000.0)
    assert [wire.open for wire in (idle, busy, stuck, other, fresh)] == [False, True, True, True, True]
    world.reactor.advance(EXPIRED_TIMEOUT + 1)
    world.site.end_expired(1011.0)
    assert [wire.open for wire in (busy, stuck, other)] == [False, False, True]
