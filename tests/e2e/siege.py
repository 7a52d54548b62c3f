"""A server with tokens that is attacked while a client with a good one must be served, and its state afterwards."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Callable

import grpc

from .clients import Grpc, Http
from .harness import Server, eventually

MIB = 1 << 20
#: Seconds within which memory and descriptors must be back.
BACK_SECONDS = 10.0
#: How many times as long that may be where tests run.
BUSY = 9
#: What may stay of either: pieces of memory that others hold parts of; connections of the good client.
FEW_BYTES, FEW_DESCRIPTORS = 64 * MIB, 8


def received(connection: socket.socket) -> bytes:
    """All that the server says until it closes."""
    data = b""
    try:
        while piece := connection.recv(65_536):
            data += piece
    except ConnectionError:
        pass
    return data


def together(attack: Callable[[int], Any], number: int) -> list[Any]:
    """The results of so many attackers at once. What one of them raises is raised."""
    results: list[Any] = []
    failures: list[BaseException] = []

    def run(which: int) -> None:
        try:
            results.append(attack(which))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(which,)) for which in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


class GoodClient:
    """Sets and gets all the time with a good token, on both interfaces, on old connections and on new ones."""

    def __init__(self, server: Server, token: str) -> None:
        self._server = server
        self._token = token
        self._over = threading.Event()
        self.failures: list[str] = []
        #: Rounds that went well, of each interface.
        self.rounds = {"HTTP": 0, "gRPC": 0}
        #: Seconds of the slowest round of four calls on each of two connections, one of them new.
        self.worst = 0.0
        self._threads = [
            threading.Thread(target=self._run, args=("HTTP", self._over_http)),
            threading.Thread(target=self._run, args=("gRPC", self._over_grpc)),
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, interface: str, clients: Callable[[], Iterator[None]]) -> None:
        try:
            began = time.monotonic()
            for _ in clients():
                self.worst = max(self.worst, time.monotonic() - began)
                self.rounds[interface] += 1
                if self._over.wait(0.02):
                    return
                began = time.monotonic()
        except (OSError, grpc.RpcError, AssertionError) as failure:
            self.failures.append(f"{interface}: {failure!r}")

    def _over_http(self) -> Iterator[None]:
        with self._server.http(self._token) as kept:
            while True:
                with self._server.http(self._token) as fresh:
                    for http in (kept, fresh):
                        answers = http.post("/api/v1/set", {"key": "good", "value": "v"}), http.get("/api/v1/get/good")
                        assert [answer.status for answer in answers] == [200, 200], answers
                yield

    def _over_grpc(self) -> Iterator[None]:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        with self._server.grpc(self._token) as kept:
            while True:
                fresh = Grpc(self._server.grpc_address, self._token, options)
                with fresh:
                    for client in (kept, fresh):
                        assert client.call("Set", key="good", value="v").success
                        assert client.call("Get", key="good").value == "v"
                yield

    def goes_on(self) -> None:
        """Return when both interfaces have served it once more; raise what has failed."""
        before = dict(self.rounds)
        eventually(lambda: self.failures or all(self.rounds[name] > before[name] + 1 for name in before))
        assert not self.failures, self.failures

    def end(self) -> None:
        """Stop, and raise what has failed."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert not self.failures, self.failures
        assert all(self.rounds.values())


class Siege:
    """One process that is attacked, again and again."""

    def __init__(self, server: Server, token: str, limited: str) -> None:
        self.server = server
        #: Good ones: for everything without a limit, and for writing at a low rate.
        self.token, self.limited = token, limited
        #: The most memory that was in use during the last attack, beyond what there was before.
        self.most = 0
        #: Bytes of memory before the first one.
        self.first = self.server.resident

    @contextmanager
    def attack(self) -> Iterator[GoodClient]:
        """Attack within the block. The good client is served before, meanwhile and after; then all is as it was."""
        descriptors, resident = self.server.descriptors, self.server.resident
        over = threading.Event()
        most = [resident]

        def look() -> None:
            while not over.wait(0.05):
                most[0] = max(most[0], self.server.resident)

        looking = threading.Thread(target=look)
        looking.start()
        good = GoodClient(self.server, self.token)
        try:
            good.goes_on()
            yield good
            good.goes_on()
        finally:
            over.set()
            looking.join()
            good.end()
        self.most = most[0] - resident
        # On a machine that is busy with something else all takes longer, the attack's own end too.
        patience = BUSY * BACK_SECONDS
        eventually(lambda: self.server.descriptors <= descriptors + FEW_DESCRIPTORS, patience)
        eventually(lambda: self.server.resident <= resident + FEW_BYTES, patience)
        assert self.server.process.poll() is None

    def http(self) -> Any:
        """A client with the good token."""
        return closing(Http(self.server.http_address, self.token))

    def head(self, line: str, *fields: str) -> bytes:
        """The head of an HTTP request that has the good token."""
        lines = [line + " HTTP/1.1", "Host: localhost", f"Authorization: Bearer {self.token}", *fields]
        return "\r\n".join([*lines, "", ""]).encode()

    def post(self, body: bytes, *fields: str) -> bytes:
        """A set with this body, on a connection that is closed by the server."""
        more = ("Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close")
        return self.head("POST /api/v1/set", *more, *fields) + body


def problem(answer: bytes) -> tuple[int, str]:
    """Status and code of the one answer in `answer`."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), json.loads(body)["code"]
