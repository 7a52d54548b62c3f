"""When all connections are taken: idle ones of unknown clients are closed, and administrators always get one."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack

import pytest

from .clients import Http
from .harness import PATIENCE, Launcher, eventually
from .test_authentication import Tokens
from .test_slow_clients import needs_native


def connect_from(address: str, source: str) -> socket.socket:
    """A connection on which nothing is said, from another address of this machine."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE, source_address=(source, 0))


@pytest.mark.long
@needs_native
def test_idle_connections_do_not_shut_others_out(launch: Launcher) -> None:
    """Two addresses fill all slots, on both listeners, and say nothing: an honest client is served all the same."""
    tokens = Tokens(launch.folder / "server")
    token = tokens.create("app", "get,set")
    server = launch("--security-tokens", str(tokens.path), "--limits-max-connections", "20")
    with ExitStack() as stack:
        for source in ("127.0.0.2", "127.0.0.3"):
            for address in (server.http_address, server.grpc_address):
                for _ in range(8):
                    stack.enter_context(connect_from(address, source))
        time.sleep(1.5)  # what idles for less than a second may be about to say something
        with server.http(token) as http, server.grpc(token) as client:
            assert http.post("/api/v1/set", {"key": "a", "value": "1"}).status == 200
            assert client.call("Get", key="a").value == "1"


@needs_native
def test_an_administrator_always_finds_a_slot(launch: Launcher) -> None:
    """Also when he has set the limit too low himself, and after a restart; for others it holds."""
    tokens = Tokens(launch.folder / "server")
    token, root = tokens.create("app", "get,set"), tokens.create("root", "get,config_read,config_write,admin")
    server = launch("--security-tokens", str(tokens.path))
    with server.http(root) as http:
        assert http.post("/api/v1/config", {"limits.max_connections": 1}).status == 200
        # His own connection is not the one that is closed.
        with Http(server.http_address, token) as other:
            answer = other.post("/api/v1/set", {"key": "a", "value": "1"})
            assert (answer.status, answer.body["code"]) == (503, "too_many_connections")
        with server.grpc(root) as client:
            assert not client.call("Get", key="a").found
    server.stop()
    server = launch("--security-tokens", str(tokens.path))
    with connect_from(server.http_address, "127.0.0.2") as taken:
        taken.sendall(b"POST /api/v1/set HTTP/1.1\r\nHost: a\r\n")  # it has the one slot, and keeps it
        with server.http(root) as http:
            assert eventually(lambda: http.post("/api/v1/config", {"limits.max_connections": 0}).status == 200)
        with server.http(token) as http:
            assert http.post("/api/v1/set", {"key": "a", "value": "1"}).status == 200


@pytest.mark.long
@needs_native
@pytest.mark.parametrize(
    "sends",
    [b"", b"POST /api/v1/set HTTP/1.1\r\nHost: a\r\n"],
    ids=["silent", "half"],
)
def test_a_crowd_does_not_keep_an_administrator_out(launch: Launcher, sends: bytes) -> None:
    """Three addresses have all slots, those for administrators too, and come again at once whenever one is closed."""
    tokens = Tokens(launch.folder / "server")
    root = tokens.create("root", "get,config_read,admin")
    server = launch("--security-tokens", str(tokens.path), "--limits-max-connections", "12")
    over = threading.Event()

    def crowd(source: str) -> None:
        while not over.is_set():
            try:
                with connect_from(server.http_address, source) as connection:
                    connection.settimeout(0.5)
                    connection.sendall(sends)
                    while not over.is_set():
                        try:
                            if not connection.recv(65_536):
                                break
                        except socket.timeout:
                            pass
            except OSError:
                pass
            over.wait(0.05)

    crowds = [threading.Thread(target=crowd, args=(f"127.0.0.{2 + number % 3}",)) for number in range(30)]
    for thread in crowds:
        thread.start()
    try:
        time.sleep(1.5)
        for _ in range(5):
            with server.http(root) as http:
                assert http.get("/api/v1/config").status == 200
    finally:
        over.set()
        for thread in crowds:
            thread.join()
    server.stop()
    assert "Traceback" not in server.output
