"""Clients that take too long, and too many of them, against a real server: a good client beside them is served."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from .clients import Http
from .harness import FREE_PORTS, TWISTD, Launcher, Server, connect, engine, eventually, transport

#: Small limits: seconds for head, body and answer.
SMALL = ("--http-header-timeout", "2", "--http-body-timeout", "2", "--http-send-timeout", "2")
POST = (
    b"POST /api/v1/set HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    b'{"key":'
)
GET = b"GET /api/v1/get/large HTTP/1.1\r\nHost: localhost\r\n\r\n"
needs_native = pytest.mark.skipif(transport() != "native", reason="the limits are the native transport's")


@pytest.fixture(params=["true", pytest.param("false", marks=pytest.mark.long)], ids=["fast lane", "Klein"])
def lane(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The options for one lane or the other."""
    return ("--http-fast-lane", request.param)


class Good:
    """A client that sets and gets all the time, on one connection and on new ones."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.answers = 0
        self.failures: list[object] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        kept = Http(self._address)
        with closing(kept):
            while not self._ended.wait(0.01):
                try:
                    with Http(self._address) as fresh:
                        for http in (kept, fresh):
                            stored = http.post("/api/v1/set", {"key": "good", "value": "v"})
                            read = http.get("/api/v1/get/good")
                            if (stored.status, read.status) == (200, 200):
                                self.answers += 1
                            else:
                                self.failures.append((stored, read))
                except OSError as error:
                    self.failures.append(error)

    def end(self) -> None:
        """Stop, and check that all went well."""
        self._ended.set()
        self._thread.join()
        assert self.failures == []
        assert self.answers > 0


@contextmanager
def good_client(server: Server) -> Iterator[Good]:
    """One that works beside the block, and must have been served all the time."""
    good = Good(server.http_address)
    try:
        yield good
    finally:
        good.end()


def is_cut(connection: socket.socket, wait: float = 0) -> bool:
    """Whether the server has closed the connection; takes what it said before."""
    while select.select([connection], [], [], wait)[0]:
        try:
            if not connection.recv(65_536):
                return True
        except OSError:
            return True
    return False


@pytest.mark.parametrize(
    "begin", [b"GET /api/v1/get/k HTTP/1.1\r\nX: ", pytest.param(POST, marks=pytest.mark.long)], ids=["head", "body"]
)
def test_slow_requests(launch: Launcher, lane: tuple[str, str], begin: bytes) -> None:
    """A hundred clients with a byte now and then are told so and closed."""
    server = launch(*lane, *SMALL)
    base = server.descriptors
    with good_client(server), ExitStack() as stack:
        slow = [stack.enter_context(connect(server.http_address)) for _ in range(100)]
        for connection in slow:
            connection.sendall(begin)
        answers: dict[socket.socket, bytes] = dict.fromkeys(slow, b"")

        def all_are_closed() -> bool:
            for connection in select.select([*answers], [], [], 0.2)[0]:
                data = connection.recv(65_536)
                answers[connection] += data
                if not data:
                    assert answers.pop(connection).startswith(b"HTTP/1.1 408 ")
            for connection in answers:
                connection.send(b"x")
            return not answers

        eventually(all_are_closed)
    eventually(lambda: server.descriptors <= base + 2)
    with server.http() as http:
        reason = "slow_body" if begin is POST else "slow_head"
        assert http.metric("kv_cut_off_total", transport="http", reason=reason) == 100


def test_slow_readers(launch: Launcher, lane: tuple[str, str]) -> None:
    """Clients that ask for far more than the server could hold, and read a byte now and then, are cut off."""
    server = launch(*lane, *SMALL)
    with server.http() as http:
        assert http.post("/api/v1/set", {"key": "large", "value": "x" * 1_000_000}).status == 200
    base, memory = server.descriptors, server.resident
    most = memory
    with good_client(server), ExitStack() as stack:
        slow = [stack.enter_context(connect(server.http_address, 4096)) for _ in range(20)]
        for connection in slow:
            connection.sendall(GET * 300)

        def all_are_cut() -> bool:
            nonlocal most
            most = max(most, server.resident)
            for connection in list(slow):
                try:
                    connection.send(b"G")
                    connection.recv(1)
                except OSError:
                    slow.remove(connection)
            time.sleep(0.1)
            return not slow

        eventually(all_are_cut)
    # They asked for 6 GB; two answers wait on each at most, and what the kernel holds is not counted.
    assert most - memory < 200 << 20
    eventually(lambda: server.descriptors <= base + 2)
    with server.http() as http:
        assert http.metric("kv_cut_off_total", transport="http", reason="slow_reader") == 20
        assert http.metric("kv_unsent_answer_bytes", transport="http") == 0


@pytest.mark.long
def test_a_slow_reader_that_goes_on_is_served(launch: Launcher, lane: tuple[str, str]) -> None:
    """All that it asked for, in more time than either deadline would leave it for one answer."""
    server = launch(*lane, "--http-send-timeout", "5", "--http-idle-timeout", "2")
    with server.http() as http:
        assert http.post("/api/v1/set", {"key": "large", "value": "x" * 1_000_000}).status == 200
    with closing(connect(server.http_address, 4096)) as connection:
        connection.sendall(GET * 8)
        taken = 0
        while taken < 8_000_000:
            data = connection.recv(200_000)
            assert data, taken
            taken += len(data)
            # On the whole about a second for each MB.
            time.sleep(len(data) / 1_000_000)


@needs_native
def test_one_address_cannot_take_all(launch: Launcher) -> None:
    """The ones that are too many get 503 over HTTP, and are closed over gRPC; both count together."""
    server = launch("--limits-max-connections", "300", "--limits-max-connections-per-address", "100")
    base = server.descriptors
    # Another address of this machine.
    with good_client_from(server, "127.0.0.2"), ExitStack() as stack:
        flood = [stack.enter_context(connect(server.http_address)) for _ in range(80)]
        flood += [stack.enter_context(connect(server.grpc_address)) for _ in range(20)]
        # Accepted in the order in which they came, each port by itself.
        eventually(lambda: connections(server) >= 100)
        for _ in range(50):
            with connect(server.http_address) as one_more:
                answer = one_more.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in answer
            assert b'"code":"too_many_connections"' in answer
            assert b"limits.max_connections_per_address allows 100" in answer
        with connect(server.grpc_address) as one_more:
            assert is_cut(one_more, 30)
        assert not any(is_cut(connection) for connection in flood[:80])
    eventually(lambda: server.descriptors <= base + 2)
    with server.http() as http:
        refused = "kv_connections_refused_total"
        assert http.metric(refused, transport="http", reason="address") == 50
        assert http.metric(refused, transport="grpc", reason="address") == 1


def connections(server: Server) -> float:
    """How many are open, asked from another address."""
    with good_http(server, "127.0.0.2") as http:
        return sum(http.metric("kv_connections", transport=name) for name in ("http", "grpc"))


def good_http(server: Server, address: str) -> Http:
    """A client that connects from that address."""
    http = Http(server.http_address)
    http._connection.source_address = (address, 0)
    return http


@contextmanager
def good_client_from(server: Server, address: str) -> Iterator[None]:
    """A client from another address that must be served before, in the middle of, and after the block."""
    with good_http(server, address) as http:
        assert http.post("/api/v1/set", {"key": "good", "value": "v"}).status == 200
        yield
        assert http.get("/api/v1/get/good").status == 200
    with good_http(server, address) as http:
        assert http.get("/api/v1/get/good").status == 200


def launch_with_few_descriptors(launch: Launcher, *options: str) -> Server:
    """A server that may open 256 files."""
    chosen = ("--storage-engine", engine(), "--grpc-transport", transport())
    limited = ("/bin/sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    return launch.run([*limited, *TWISTD, "-n", "--pidfile=", "kvtwisted", *FREE_PORTS, *chosen, *options])


@needs_native
def test_few_descriptors(launch: Launcher) -> None:
    """With 256 the server keeps some for itself: a flood is refused, writes go on, and it says what it lowered."""
    server = launch_with_few_descriptors(launch, "--limits-max-connections-per-address", "60")
    server.wait_for("rocksdb.options.max_open_files lowered to 64: 256 descriptors")
    base = server.descriptors
    with good_client_from(server, "127.0.0.2"), good_http(server, "127.0.0.2") as http, ExitStack() as stack:
        # Connected before the flood: in its first moment there may be no descriptor for a new connection.
        assert http.get("/api/v1/health").status == 200
        for _ in range(400):
            stack.enter_context(connect(server.http_address))
        for number in range(200):
            assert http.post("/api/v1/set", {"key": f"k{number}", "value": "x" * 100_000}).status == 200
        assert http.get("/api/v1/health").body == {"status": "ok"}
        assert server.descriptors < 250
    eventually(lambda: server.descriptors <= base + 20)


@pytest.mark.long
def test_no_descriptors(launch: Launcher) -> None:
    """Limits that are too high get a warning. When accept() finds no descriptor, the server neither spins nor ends."""
    limits = ("--limits-max-connections", "10000", "--limits-max-connections-per-address", "10000")
    server = launch_with_few_descriptors(launch, "--http-idle-timeout", "600", *limits)
    server.wait_for("limits.max_connections is 10000, but of 256 file descriptors")
    with server.http() as http:
        assert http.post("/api/v1/set", {"key": "k", "value": "v"}).status == 200
        with ExitStack() as stack:
            flood = [stack.enter_context(connect(server.http_address)) for _ in range(400)]
            eventually(lambda: sum(map(is_cut, flood)) > 100)
            before = processor_seconds(server)
            time.sleep(2)
            assert processor_seconds(server) - before < 1
            # Who is connected is served.
            assert http.get("/api/v1/get/k").body["value"] == "v"
        eventually(lambda: server.descriptors < 128)
    with server.http() as http:
        assert http.post("/api/v1/set", {"key": "k", "value": "w"}).status == 200
        assert http.get("/api/v1/health").status == 200


def processor_seconds(server: Server) -> float:
    """Seconds of processor time that the process has used."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
