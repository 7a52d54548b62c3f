"""TLS: the same calls on every transport, and what is refused."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable

import grpc
import pytest
from grpc import StatusCode

from kvtwisted.core.errors import Unavailable
from kvtwisted.rpc.http2 import server
from kvtwisted.rpc.http2.server import NativeGrpcServer
from tests.support.certificates import Pair
from tests.support.reactors import on

from ..support import MIB, PATIENCE, Client, World, logged


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A certificate and its key."""
    return Pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure(make_world: Callable[..., World], pair: Pair) -> World:
    """A server with TLS, on each transport."""
    return make_world(certificate=pair.certificate, private_key=pair.private_key)


@pytest.fixture
def native(pair: Pair) -> Iterator[World]:
    """A native server with TLS."""
    world = World(transport="native", certificate=pair.certificate, private_key=pair.private_key)
    world.start()
    yield world
    world.stop()


@contextmanager
def connected(world: World, pair: Pair) -> Iterator[grpc.Channel]:
    """A channel that trusts the certificate."""
    options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    credentials = grpc.ssl_channel_credentials(pair.chain)
    with grpc.secure_channel(world.address, credentials, options=options) as channel:
        yield channel


def open_socket(world: World) -> socket.socket:
    """A connection without TLS."""
    host, _, port = world.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def listens(world: World) -> bool:
    """Whether the server still takes connections."""
    try:
        open_socket(world).close()
    except ConnectionError:
        return False
    return True


def context(pair: Pair, *protocols: str) -> ssl.SSLContext:
    """A client's context that trusts the certificate and offers these protocols by ALPN; none: no ALPN."""
    made = ssl.create_default_context(cafile=pair.certificate)
    if protocols:
        made.set_alpn_protocols(protocols)
    return made


def read_to_end(connection: socket.socket) -> bytes:
    """What the server sends until it closes."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


def test_calls(secure: World, pair: Pair) -> None:
    """Small and large requests and answers, and many at once."""
    large = "é" * (MIB // 2)
    with connected(secure, pair) as channel:
        client = Client(channel)
        assert client.call("Set", key="ключ", value=large).success
        assert client.call("Get", key="ключ").value == large
        calls = [client.start("Get", key="ключ") for _ in range(20)]
        assert all(call.result().value == large for call in calls)
        secure.fill([f"k{number:04}" for number in range(1000)], "v" * 1000)
        assert len(client.call("ScanKeyValues", prefix="k").key_values) == 1000


def test_compressed_calls(secure: World, pair: Pair) -> None:
    """gzip within TLS."""
    with connected(secure, pair) as channel:
        client = Client(channel)
        assert client.call("Set", key="a", value="a" * MIB, compression=grpc.Compression.Gzip).success
        assert client.call("Get", key="a").value == "a" * MIB


def test_running_calls_finish(secure: World, pair: Pair) -> None:
    """A call that runs when the server is stopped gets its answer."""
    hold = secure.hold("write")
    with connected(secure, pair) as channel:
        call = Client(channel).start("Set", key="a", value="1")
        hold.reached()
        stopping = threading.Thread(target=secure.server.stop, args=(PATIENCE,))
        stopping.start()
        while listens(secure):
            pass
        hold.release()
        assert call.result().success
    stopping.join(PATIENCE)
    assert not stopping.is_alive()


def test_a_client_without_tls(secure: World, pair: Pair) -> None:
    """It gets UNAVAILABLE; others go on, and nothing is logged as an error."""
    with logged() as events:
        assert secure.client.error("Get", key="a").code() is StatusCode.UNAVAILABLE
        with connected(secure, pair) as channel:
            assert Client(channel).call("Set", key="a", value="1").success
    assert not [event for event in events if event.get("isError") or "log_failure" in event]


def test_a_client_that_does_not_trust(secure: World, pair: Pair, tmp_path: Path) -> None:
    """It gets UNAVAILABLE; nothing is logged as an error."""
    with logged() as events, connected(secure, Pair(tmp_path)) as channel:
        assert Client(channel).error("Get", key="a").code() is StatusCode.UNAVAILABLE
    assert not [event for event in events if event.get("isError") or "log_failure" in event]


def test_old_versions(secure: World, pair: Pair) -> None:
    """TLS 1.1 is refused, TLS 1.2 is not."""
    old = context(pair, "h2")
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with open_socket(secure) as plain, pytest.raises((ssl.SSLError, ConnectionError)) as refused:
        old.wrap_socket(plain, server_hostname="localhost")
    assert getattr(refused.value, "reason", "") != "NO_PROTOCOLS_AVAILABLE", "this client has no TLS 1.1 to offer"
    newer = context(pair, "h2")
    newer.maximum_version = ssl.TLSVersion.TLSv1_2
    with open_socket(secure) as plain, newer.wrap_socket(plain, server_hostname="localhost") as connection:
        assert (connection.version(), connection.selected_alpn_protocol()) == ("TLSv1.2", "h2")


def test_without_alpn(native: World, pair: Pair) -> None:
    """A client that asks for no protocol is told what to ask for, and the connection is closed."""
    with open_socket(native) as plain, context(pair).wrap_socket(plain, server_hostname="localhost") as connection:
        assert b"ask for h2 by ALPN" in read_to_end(connection)


def test_goodbyes(native: World, pair: Pair) -> None:
    """A client that answers the server's closing alert with its own before it closes: nothing is logged."""
    with logged() as events:
        with open_socket(native) as plain:
            connection = context(pair).wrap_socket(plain, server_hostname="localhost")
            assert read_to_end(connection)
            with suppress(OSError):
                connection.unwrap().close()
        while on(native.server.reactor, lambda: native.server.native.connections > 0):  # type: ignore[union-attr]
            pass
    assert not [event for event in events if event.get("isError") or "log_failure" in event]


def test_other_protocols(native: World, pair: Pair) -> None:
    """A client of HTTP/1.1 alone is refused within the handshake."""
    with open_socket(native) as plain, pytest.raises(ssl.SSLError, match="alert"):
        context(pair, "http/1.1").wrap_socket(plain, server_hostname="localhost").recv(1)
    both = context(pair, "http/1.1", "h2")
    with open_socket(native) as plain, both.wrap_socket(plain, server_hostname="localhost") as connection:
        assert connection.selected_alpn_protocol() == "h2"


def test_an_unfinished_handshake(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not finish it is cut off at the deadline."""
    passed = [0.0]
    monkeypatch.setattr(NativeGrpcServer, "seconds", staticmethod(lambda: time.monotonic() + passed[0]))
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.01)
    world = World(transport="native", certificate=pair.certificate, private_key=pair.private_key)
    world.start()
    with open_socket(world) as silent, open_socket(world) as halfway:
        halfway.sendall(b"\x16\x03\x01\x02\x00\x01")
        with connected(world, pair) as channel:
            # Its answer says that the server has accepted those before it.
            assert Client(channel).call("Set", key="a", value="1").success
            passed[0] = 60.0
            for cut_off in (silent, halfway):
                with pytest.raises(ConnectionResetError):
                    cut_off.recv(1)
            assert Client(channel).call("Get", key="a").value == "1"
    world.stop()


def test_stop_during_a_handshake(native: World, pair: Pair) -> None:
    """A client in the middle of it does not hold up the server's end."""
    with open_socket(native) as silent:
        with connected(native, pair) as channel:
            assert Client(channel).call("Set", key="a", value="1").success
        native.server.stop(PATIENCE)
        with pytest.raises(ConnectionResetError):
            silent.recv(1)
    assert on(native.server.reactor, lambda: native.server.native.connections) == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["tls_certificate", "tls_private_key", "tls_client_ca"])
def test_bad_files(transport: str, pair: Pair, name: str) -> None:
    """The server does not start, and one line names the setting and the file."""
    paths = {"certificate": pair.certificate, "private_key": pair.private_key, name[4:]: "/no/file"}
    with pytest.raises(Unavailable) as failure:
        World(transport=transport, **paths)
    assert str(failure.value) == f"grpc.{name}: /no/file: No such file or directory"
