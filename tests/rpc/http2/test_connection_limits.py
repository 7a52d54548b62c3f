"""Connections that are one too many are closed, with TLS and without, and those that are open go on."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from kvtwisted.sessions.connections import PER_ADDRESS, Connections
from tests.support.certificates import Pair
from tests.support.reactors import on

from ..support import PATIENCE, World


class Counted(World):
    """A native server that takes two connections from one address: the client's, and one more."""

    def __init__(self, certificate: str = "", private_key: str = "") -> None:
        self.refused: list[tuple[str, str]] = []
        self.connections = Connections(lambda: 10, lambda: 2, 0, lambda *what: self.refused.append(what))
        super().__init__(
            transport="native", certificate=certificate, private_key=private_key, connections=self.connections
        )

    def open_socket(self) -> socket.socket:
        """A connection, without a word said."""
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), PATIENCE)

    def wait_for(self, count: int) -> None:
        """Wait until so many connections are open."""
        deadline = time.monotonic() + PATIENCE
        native = self.server.native  # type: ignore[union-attr]  # it is the native one
        while (is_open := on(self.server.reactor, lambda: (native.connections, self.connections.open))) != (
            count,
            count,
        ):
            assert time.monotonic() < deadline, is_open
            time.sleep(0.01)


@pytest.fixture(params=["plain", "TLS"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    """A started server."""
    pair = Pair(tmp_path_factory.mktemp("tls"))
    world = Counted(pair.certificate, pair.private_key) if request.param == "TLS" else Counted()
    world.start()
    yield world
    world.stop()


def closed(connection: socket.socket) -> bool:
    """Whether the server closes the connection without a word."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_one_too_many_is_closed(world: Counted) -> None:
    """And one that leaves makes room."""
    with world.open_socket() as first, world.open_socket() as second, world.open_socket() as third:
        # In the order in which the kernel was asked.
        assert closed(third)
        assert world.refused == [("grpc", PER_ADDRESS)]
        assert (first.fileno() > 0, world.connections.open) == (True, 2)
        second.close()
        world.wait_for(1)
        with world.open_socket():
            world.wait_for(2)
    assert world.refused == [("grpc", PER_ADDRESS)]


def test_all_that_leave_are_counted_out(world: Counted) -> None:
    """Those that speak no HTTP/2, or no TLS, too."""
    for _ in range(5):
        with world.open_socket() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            connection.settimeout(PATIENCE)
            try:
                while connection.recv(10_000):
                    pass
            except (ConnectionResetError, ssl.SSLError):
                pass
    world.wait_for(0)
