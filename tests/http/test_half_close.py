"""Clients that send no more: what came whole is answered, and then the connection closes. Note [The end of input]."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.python.threadpool import ThreadPool

from kvtwisted.config.manager import ConfigManager
from kvtwisted.sessions.certificates import CertificateFiles
from kvtwisted.tls.renewal import Certificates

from ..support.certificates import Pair
from .live import LiveSite
from .slow import SlowWire, pass_time, world_of
from .support import Wire, World, parse_replies, request_bytes

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

GET = request_bytes("GET", "/api/v1/get/k")
SET = request_bytes("POST", "/api/v1/set", b'{"key":"k","value":"v"}')
LARGE_SET = request_bytes("POST", "/api/v1/set", json.dumps({"key": "k", "value": "v" * 100_000}).encode())
REQUESTS = {
    "set": SET, "large set": LARGE_SET, "get": GET, "scan": request_bytes("GET", "/api/v1/scan"),
    "mget": request_bytes("POST", "/api/v1/mget", b'{"keys":["k"]}'), "health": request_bytes("GET", "/api/v1/health"),
    "config": request_bytes("GET", "/api/v1/config"), "metrics": request_bytes("GET", "/metrics"),
    "mdelete": request_bytes("POST", "/api/v1/mdelete", b'{"keys":["k"]}'),
    "delete": request_bytes("DELETE", "/api/v1/delete/k"),
}  # fmt: skip
#: Seconds that no wait takes.
PATIENCE = 30.0


def end_input(wire: Wire) -> None:
    """The client closes its sending side."""
    wire.channel.readConnectionLost()


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("count", [1, 3])
def test_requests_before_the_end_are_answered(request_: bytes, count: int) -> None:
    """One, or several in a row, whatever has to be waited for; then the connection closes, and no timer is left."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(SET + request_ * count)
    end_input(wire)
    assert wire.open
    world.work()
    # What is deleted once is not found any more.
    statuses = [reply.status for reply in wire.replies()]
    assert (len(statuses), set(statuses) <= {200, 404}) == (1 + count, True)
    assert not wire.open
    assert world.reactor.getDelayedCalls() == []


def test_an_idle_connection_closes() -> None:
    """At once, new or kept."""
    world = World()
    new, kept = world.wire(), world.wire()
    kept.send(GET)
    end_input(new)
    end_input(kept)
    assert (new.open, kept.open) == (False, False)


@pytest.mark.parametrize("sent", [3, 30, len(SET) - 1])
def test_what_is_not_whole_is_dropped(sent: int) -> None:
    """In its first line, its head or its body; what came whole before is answered."""
    world = World()
    wire = world.wire()
    wire.send(GET + SET[:sent])
    end_input(wire)
    assert [reply.status for reply in wire.replies()] == [404]
    assert not wire.open
    assert world.stored() == {}


def test_a_refused_client_that_sends_no_more_is_not_waited_for() -> None:
    """It cannot lose its refusal any more."""
    world = World(max_body_bytes=100)
    wire = world.wire()
    wire.send(b"POST /api/v1/set HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n")
    assert wire.open
    end_input(wire)
    assert [reply.status for reply in wire.replies()] == [413]
    assert not wire.open


def test_answers_that_are_not_read() -> None:
    """A client that sends no more and reads slowly has as long as any other; one that reads nothing is cut off."""
    world = world_of()
    world.engine.slow = False
    world.storage.store.set(b"k", b"x" * 100_000)
    slow, gone = SlowWire(world), SlowWire(world)
    for wire in (slow, gone):
        wire.send(GET * 5)
        end_input(wire)
        assert wire.open
    received = b""
    for _ in range(8):
        pass_time(world, 5)
        received += slow.read(60_000)
    assert not gone.open
    assert slow.open
    received += slow.read()
    assert [len(reply.body) > 100_000 for reply in parse_replies(received)] == [True] * 5
    assert not slow.open


# Real sockets.


async def in_thread(call: Any, *arguments: Any) -> Any:
    """Run what blocks."""
    return await deferToThread(call, *arguments)


def read_to_end(connection: Any) -> bytes:
    """All that comes."""
    received = b""
    while piece := connection.recv(65_536):
        received += piece
    return received


@pytest_twisted.ensureDeferred
async def test_over_sockets(live: LiveSite) -> None:
    """Every route, by a real end of input."""

    def ask(request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return read_to_end(connection)

    for name, request in REQUESTS.items():
        statuses = [reply.status for reply in parse_replies(await in_thread(ask, request))]
        assert (name, statuses) == (name, [200])


@pytest_twisted.ensureDeferred
async def test_a_reset_is_the_end(live: LiveSite) -> None:
    """A client that is truly gone is not waited for: its connection is forgotten while a thread still works for it."""
    taken, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        taken.set()
        go_on.wait(PATIENCE)

    live.engine.before("get", hold)
    try:
        with socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE) as connection:
            connection.sendall(GET)
            assert await in_thread(taken.wait, PATIENCE)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for _ in range(1000):
            if not live.site.connections:
                break
            await in_thread(threading.Event().wait, 0.01)
        assert live.site.connections == 0
    finally:
        go_on.set()


# TLS.


@pytest_twisted.async_yield_fixture
async def secure(tmp_path: Path, lane: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A site that listens with TLS, and the context of its clients."""
    pool = ThreadPool(minthreads=0, maxthreads=4, name="test")
    pool.start()
    pair = Pair(tmp_path_factory.mktemp("tls"))
    certificates = Certificates(CertificateFiles("http", pair.certificate, pair.private_key), b"http/1.1")
    configuration = ConfigManager.load(None, {}, {}, str(tmp_path / "runtime.json"))
    site = LiveSite(reactor, pool, configuration, fast_lane=lane == "fast", certificates=certificates)
    yield site, ssl.create_default_context(cafile=pair.certificate)
    await site.stop()
    pool.stop()


class _TlsClient:
    """TLS by hand, so that its end and TCP's can be sent one by one."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send()
                self._in.write(self.socket.recv(65_536))
        self._send()

    def _send(self) -> None:
        self.socket.sendall(self._out.read())

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._tls.write(data)
        self._send()

    def say_that_all_was_sent(self) -> None:
        """Send close_notify."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._send()

    def read_to_end(self) -> bytes:
        """All that comes before the server's close_notify."""
        received = b""
        while True:
            try:
                piece = self._tls.read(65_536)
            except ssl.SSLWantReadError:
                data = self.socket.recv(65_536)
                assert data, f"closed without close_notify after {received!r}"
                self._in.write(data)
            except ssl.SSLZeroReturnError:
                return received
            else:
                if not piece:
                    return received
                received += piece


@pytest.mark.parametrize("how", ["alert", "tcp", "both"])
@pytest_twisted.ensureDeferred
async def test_over_tls(secure: Any, how: str) -> None:
    """Whether the client says it by close_notify, by TCP's end, or by both; also with much to answer."""
    site, context = secure

    def ask() -> bytes:
        client = _TlsClient(site.port, context)
        with client.socket:
            client.send(LARGE_SET + GET * 3 + REQUESTS["scan"] + SET[:-1])
            if how != "tcp":
                client.say_that_all_was_sent()
            if how != "alert":
                client.socket.shutdown(socket.SHUT_WR)
            return client.read_to_end()

    replies = parse_replies(await in_thread(ask))
    assert [(reply.status, len(reply.body) > 100_000) for reply in replies] == [(200, False)] + [(200, True)] * 4


@pytest_twisted.ensureDeferred
async def test_nothing_is_kept_of_what_comes_after_the_alert(secure: Any) -> None:
    """Bytes behind a close_notify are not read, and the answer still goes out."""
    site, context = secure
    taken, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        taken.set()
        go_on.wait(PATIENCE)

    site.engine.before("get", hold)
    client = await in_thread(_TlsClient, site.port, context)
    with client.socket:
        client.send(GET)
        assert await in_thread(taken.wait, PATIENCE)
        client.say_that_all_was_sent()
        client.socket.settimeout(1)
        with pytest.raises(OSError, match="timed out"):
            await in_thread(client.socket.sendall, b"x" * (32 << 20))
        client.socket.settimeout(PATIENCE)
        go_on.set()
        assert [reply.status for reply in parse_replies(await in_thread(client.read_to_end))] == [404]
