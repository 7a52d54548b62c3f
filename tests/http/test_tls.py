"""HTTP over TLS, on real sockets: the same answers, and connections that end as they do without."""

from __future__ import annotations

import contextlib
import gc
import json
import re
import socket
import ssl
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.threadpool import ThreadPool

from kvtwisted.config.manager import ConfigManager
from kvtwisted.http import site
from kvtwisted.sessions.certificates import CertificateFiles
from kvtwisted.tls.connections import TlsFactory
from kvtwisted.tls.renewal import Certificates

from ..support.certificates import Pair
from .live import MAX_BODY_BYTES, LiveSite
from .support import Reply, parse_replies, problem, request_bytes

#: Seconds after which something that should have happened has not.
PATIENCE = 30.0
#: Seconds of grace that no test waits for.
LONG = 3600.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A certificate and its key."""
    return Pair(tmp_path_factory.mktemp("tls"))


@pytest_twisted.async_yield_fixture
async def secure(tmp_path: Path, lane: str, pair: Pair) -> Any:
    """A site that listens with TLS."""
    pool = ThreadPool(minthreads=0, maxthreads=4, name="test")
    pool.start()
    certificates = Certificates(CertificateFiles("http", pair.certificate, pair.private_key), b"http/1.1")
    configuration = ConfigManager.load(None, {}, {}, str(tmp_path / "runtime.json"))
    site = LiveSite(reactor, pool, configuration, fast_lane=lane == "fast", certificates=certificates)
    yield site
    await site.stop()
    pool.stop()


def context(pair: Pair, *protocols: str) -> ssl.SSLContext:
    """A client's context that trusts the certificate and offers these protocols by ALPN; none: no ALPN."""
    made = ssl.create_default_context(cafile=pair.certificate)
    if protocols:
        made.set_alpn_protocols(protocols)
    return made


def open_socket(site: LiveSite) -> socket.socket:
    """A connection without TLS."""
    return socket.create_connection(("127.0.0.1", site.port), timeout=PATIENCE)


@contextlib.contextmanager
def connected(site: LiveSite, trust: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """A connection with TLS, whose end counts only when the server has said it (close_notify)."""
    with (
        open_socket(site) as plain,
        trust.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as connection,
    ):
        yield connection


def read_to_end(connection: ssl.SSLSocket) -> bytes:
    """What the server sends until it says that it has ended."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


def read_answers(connection: ssl.SSLSocket, count: int) -> list[Reply]:
    """So many answers, and the connection stays open."""
    replies: list[Reply] = []
    received = bytearray()
    while len(replies) < count:
        head, separator, rest = bytes(received).partition(b"\r\n\r\n")
        length = int(re.search(rb"Content-Length: ([0-9]+)", head)[1]) if separator else 0  # type: ignore[index]
        if separator and len(rest) >= length:
            whole = len(head) + 4 + length
            replies += parse_replies(bytes(received[:whole]))
            del received[:whole]
            continue
        wanted = len(head) + 4 + length if separator else len(received) + 1
        while len(received) < wanted:
            data = connection.recv(1 << 20)
            assert data, "the server has ended"
            received += data
    return replies


@contextlib.contextmanager
def no_errors() -> Iterator[None]:
    """Nothing is logged as an error."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert not [event for event in events if event.get("isError") or "log_failure" in event]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it does not come true")


def in_thread(call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """A blocking client, beside the site."""
    return deferToThread(call, *arguments)


@pytest_twisted.ensureDeferred
async def test_requests(secure: LiveSite, pair: Pair) -> None:
    """Plain ones and others, large ones, several on a connection, several at once."""

    def client() -> None:
        with connected(secure, context(pair, "http/1.1")) as connection:
            large = "é" * (1 << 19)
            connection.sendall(request_bytes("POST", "/api/v1/set", json.dumps({"key": "k", "value": large}).encode()))
            assert read_answers(connection, 1)[0].status == 200
            connection.sendall(request_bytes("GET", "/api/v1/get/k") * 3)
            assert [reply.json()["value"] for reply in read_answers(connection, 3)] == [large] * 3
            connection.sendall(request_bytes("GET", "/api/v1/health") + request_bytes("DELETE", "/api/v1/delete/k"))
            assert [reply.status for reply in read_answers(connection, 2)] == [200, 200]
            connection.sendall(request_bytes("GET", "/api/v1/get/k", connection="close"))
            (reply,) = parse_replies(read_to_end(connection))
            assert problem(reply)[:2] == (404, "key_not_found")

    await in_thread(client)
    await until(lambda: secure.site.connections == 0)


@pytest_twisted.ensureDeferred
async def test_protocols(secure: LiveSite, pair: Pair) -> None:
    """HTTP/1.1 is agreed on when it is offered; a client of HTTP/2 alone is refused within the handshake."""

    def client() -> None:
        for offered in (("http/1.1",), ("h2", "http/1.1")):
            with connected(secure, context(pair, *offered)) as connection:
                assert connection.selected_alpn_protocol() == "http/1.1"
        with connected(secure, context(pair)) as connection:
            assert connection.selected_alpn_protocol() is None
            connection.sendall(request_bytes("GET", "/api/v1/health"))
            assert read_answers(connection, 1)[0].status == 200
        with pytest.raises(ssl.SSLError, match=r"ALERT|alert"), connected(secure, context(pair, "h2")) as connection:
            connection.recv(1)

    with no_errors():
        await in_thread(client)


@pytest_twisted.ensureDeferred
async def test_versions_and_ciphers(secure: LiveSite, pair: Pair) -> None:
    """TLS 1.1 is refused; so is, in TLS 1.2, all that has no ephemeral keys or no authenticated encryption."""

    def refused(trust: ssl.SSLContext) -> str:
        with pytest.raises((ssl.SSLError, ConnectionError)) as failure, connected(secure, trust):
            pass
        return str(getattr(failure.value, "reason", ""))

    def client() -> None:
        old = context(pair)
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        assert refused(old) != "NO_PROTOCOLS_AVAILABLE", "this client has no TLS 1.1 to offer"
        for weak in ("ECDHE+AES+SHA1", "ECDHE+SHA256:!AESGCM:!CHACHA20", "AESCCM"):
            trust = context(pair)
            trust.maximum_version = ssl.TLSVersion.TLSv1_2
            trust.set_ciphers(weak)
            assert "FAILURE" in refused(trust)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            trust = context(pair)
            trust.minimum_version = trust.maximum_version = version
            # The client would rather have the longest; the server's order is what counts.
            trust.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256")
            with connected(secure, trust) as connection:
                assert connection.version() == version.name.replace("v1_", "v1.")
                assert connection.compression() is None
                if version is ssl.TLSVersion.TLSv1_2:
                    assert connection.cipher()[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"  # type: ignore[index]

    await in_thread(client)


@pytest_twisted.ensureDeferred
async def test_nothing_is_resumed(secure: LiveSite, pair: Pair) -> None:
    """Each handshake is a whole one, so that the pair and the authorities in force are used."""

    def client(version: ssl.TLSVersion) -> None:
        trust = context(pair)
        trust.minimum_version = trust.maximum_version = version
        with connected(secure, trust) as connection:
            connection.sendall(request_bytes("GET", "/api/v1/health"))
            read_answers(connection, 1)
            session = connection.session
        with open_socket(secure) as plain:
            again = trust.wrap_socket(plain, server_hostname="localhost", session=session)
            assert not again.session_reused
            again.close()

    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        await in_thread(client, version)


@pytest_twisted.ensureDeferred
async def test_clients_without_tls(secure: LiveSite) -> None:
    """They are cut off, and nothing is logged."""

    def client(sent: bytes) -> None:
        with open_socket(secure) as plain:
            plain.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                while plain.recv(65536):
                    pass

    with no_errors():
        for sent in (request_bytes("GET", "/api/v1/health"), b"\x16\x03\x01\x00\x05hello", b"\0" * 1000):
            await in_thread(client, sent)
        await until(lambda: secure.site.connections == 0)


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_read(secure: LiveSite, pair: Pair) -> None:
    """A client that is still sending gets the answer, and the server's word that this was all."""

    def client() -> None:
        with connected(secure, context(pair)) as connection:
            head = request_bytes("POST", "/api/v1/set", content_type="application/json", content_length="99999999")
            connection.sendall(head)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                for _ in range(64):
                    connection.sendall(b"x" * 65536)
            (reply,) = parse_replies(read_to_end(connection))
            assert problem(reply)[:2] == (413, "too_large")

    await in_thread(client)
    await until(lambda: secure.site.connections == 0)


@pytest_twisted.ensureDeferred
async def test_a_refused_client_says_goodbye(secure: LiveSite, pair: Pair) -> None:
    """It answers the server's closing alert with its own, before it closes; nothing is logged."""

    def client() -> None:
        with open_socket(secure) as plain:
            connection = context(pair).wrap_socket(plain, server_hostname="localhost")
            connection.sendall(b"nonsense\r\n\r\n")
            assert [reply.status for reply in parse_replies(read_to_end(connection))] == [400]
            with contextlib.suppress(OSError):
                connection.unwrap().close()

    with no_errors():
        await in_thread(client)
        await until(lambda: secure.site.connections == 0)


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read(secure: LiveSite, pair: Pair) -> None:
    """Its requests wait, instead of their answers; once it reads, it gets all of them."""
    count, value = 100, "v" * (1 << 20)
    secure.storage.store.set(b"k", value.encode(), 0)
    asked = request_bytes("GET", "/api/v1/get/k")

    def send() -> ssl.SSLSocket:
        plain = open_socket(secure)
        connection = context(pair).wrap_socket(plain, server_hostname="localhost")
        connection.sendall(asked * count)
        return connection

    connection = await in_thread(send)
    (channel,) = secure.site.channels
    await until(lambda: channel.is_blocked)
    served = len(secure.engine.called("get"))
    assert 0 < served < count
    replies = await in_thread(read_answers, connection, count)
    assert all(reply.json()["value"] == value for reply in replies)
    connection.close()


@pytest_twisted.ensureDeferred
async def test_a_client_that_sends_without_end(secure: LiveSite, pair: Pair) -> None:
    """While the server works on a request it does not go on reading for ever."""
    reached, released = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        assert released.wait(PATIENCE)

    def flood(connection: ssl.SSLSocket) -> int:
        asked = request_bytes("GET", "/api/v1/get/k")
        connection.sendall(asked)
        assert reached.wait(PATIENCE)
        connection.settimeout(2.0)
        sent = 0
        with contextlib.suppress(socket.timeout):
            while sent < 64 << 20:
                sent += connection.send(asked * 1000)
        return sent

    with connected_later(secure, pair) as (start, connections):
        await in_thread(start)
        (connection,) = connections
        (channel,) = secure.site.channels
        assert IPushProducer.providedBy(channel.transport)
        secure.engine.before("get", hold)
        try:
            assert await in_thread(flood, connection) < 64 << 20
        finally:
            released.set()


@contextlib.contextmanager
def connected_later(site: LiveSite, pair: Pair) -> Iterator[Any]:
    """A function that connects, and the list that it puts the connection into; closed at the end."""
    connections: list[ssl.SSLSocket] = []

    def start() -> None:
        connections.append(context(pair).wrap_socket(open_socket(site), server_hostname="localhost"))

    try:
        yield start, connections
    finally:
        for connection in connections:
            connection.close()


@pytest_twisted.ensureDeferred
async def test_drain_does_not_wait_for_idle_clients(
    secure: LiveSite, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for those that do not look, nor for those within the handshake; a request is still answered."""
    monkeypatch.setattr(site, "PARTING_SECONDS", 0.1)
    silent = [open_socket(secure) for _ in range(2)]
    silent[1].sendall(b"\x16\x03\x01\x02\x00\x01")
    with connected_later(secure, pair) as (start, connections):
        for _ in range(2):
            await in_thread(start)
            # An answer says that the handshake has ended on the server's side too.
            await in_thread(connections[-1].sendall, request_bytes("GET", "/api/v1/health"))
            await in_thread(read_answers, connections[-1], 1)
        await until(lambda: secure.site.connections == 4)
        await secure.drain(LONG)
        assert secure.site.connections == 0
        # The last that they hear is that this was all.
        assert [await in_thread(read_to_end, connection) for connection in connections] == [b"", b""]
    for unfinished in silent:
        with pytest.raises(ConnectionResetError):
            unfinished.recv(1)
        unfinished.close()


@pytest_twisted.ensureDeferred
async def test_drain_waits_for_requests(secure: LiveSite, pair: Pair) -> None:
    """What runs is answered, and the connection then closed."""
    with connected_later(secure, pair) as (start, connections):
        await in_thread(start)
        (connection,) = connections
        secure.engine.before("get", lambda: None)
        body = json.dumps({"key": "k", "value": "v" * 100_000}).encode()
        asked = request_bytes("POST", "/api/v1/set", body)
        (channel,) = secure.site.channels
        await in_thread(connection.sendall, asked[:-10])
        await until(lambda: bool(channel.requests) or (channel._lanes is not None and channel._lanes.has_more))
        await in_thread(connection.sendall, asked[-10:] + request_bytes("GET", "/api/v1/get/k", connection="close"))
        replies = parse_replies(await in_thread(read_to_end, connection))
        assert [reply.status for reply in replies] == [200, 200]
        await secure.drain(LONG)


@pytest_twisted.ensureDeferred
async def test_unfinished_handshakes(secure: LiveSite, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are cut off at their deadline, however many there are; clients beside them are served."""
    monkeypatch.setattr(TlsFactory, "handshake_seconds", 1.0)

    def ask() -> None:
        with connected(secure, context(pair)) as connection:
            connection.sendall(request_bytes("GET", "/api/v1/health", connection="close"))
            (reply,) = parse_replies(read_to_end(connection))
            assert reply.status == 200

    def hello() -> bytes:
        """The first flight of a handshake that then does not go on."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        halfway = context(pair).wrap_bio(incoming, outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            halfway.do_handshake()
        return outgoing.read()

    flood = [await in_thread(open_socket, secure) for _ in range(150)]
    try:
        for number, unfinished in enumerate(flood):
            with contextlib.suppress(ConnectionError):  # a slow test may be late
                unfinished.sendall((b"", b"\x16\x03\x01\x02\x00\x01", hello())[number % 3])
        for _ in range(5):
            await in_thread(ask)
        await until(lambda: secure.site.connections == 0)
        await in_thread(ask)
        assert len(secure.too_late) == len(flood)
    finally:
        for unfinished in flood:
            unfinished.close()


@pytest_twisted.ensureDeferred
async def test_the_deadline_ends_with_the_handshake(
    secure: LiveSite, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is through with it may take its time."""
    monkeypatch.setattr(TlsFactory, "handshake_seconds", 0.5)
    with connected_later(secure, pair) as (start, connections):
        await in_thread(start)
        await deferLater(reactor, 1.0)
        (connection,) = connections
        await in_thread(connection.sendall, request_bytes("GET", "/api/v1/health"))
        assert (await in_thread(read_answers, connection, 1))[0].status == 200
    assert secure.too_late == []


def test_the_body_limit_is_that_of_the_site() -> None:
    """What `test_a_refusal_is_read` announces is over it."""
    assert MAX_BODY_BYTES < 99_999_999


@pytest_twisted.ensureDeferred
async def test_nothing_waits_for_the_collector(secure: LiveSite, pair: Pair, lane: str) -> None:
    """The memory of connections is free once they have ended: no cycle of references holds it.

    Klein's handling of a request is such a cycle; it has the transport, which has let go of OpenSSL's objects.
    """

    def client() -> None:
        with connected(secure, context(pair)) as connection:
            connection.sendall(request_bytes("GET", "/api/v1/get/missing"))
            read_answers(connection, 1)
            for channel in tuple(secure.site.channels):
                lost.append(weakref.ref(channel))
                lost.append(weakref.ref(channel.transport if lane == "fast" else channel.transport._tlsConnection))
        with open_socket(secure) as unfinished:
            unfinished.sendall(b"\x16")

    lost: list[weakref.ref[Any]] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await in_thread(client)
        await until(lambda: secure.site.connections == 0)
        await until(lambda: [reference for reference in lost if reference() is not None] == [])
    finally:
        gc.enable()
    assert len(lost) >= 6
