"""Small limits of bytes in flight, hit on a real server: who is refused or cut off, what is said, what is counted."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hyperframe.frame import DataFrame, SettingsFrame

from tests.rpc.http2.peer import Peer, enveloped, request_fields
from tests.rpc.support import CLASSES

from .clients import Http
from .harness import Launcher, Server, connect, eventually, transport
from .test_authentication import ALL, Tokens
from .test_slow_clients import good_client, is_cut

MIB = 1 << 20
#: The least that there may be, which goes with small requests and answers.
SMALL_REQUESTS = ("--limits-max-request-bytes", str(8 * MIB), "--limits-max-unfinished-bytes", str(24 * MIB))
SMALL_ANSWERS = ("--http-max-response-bytes", str(2 * MIB), "--grpc-max-response-bytes", str(2 * MIB))
LEAST_UNSENT = ("--limits-max-unsent-bytes", str(16 * MIB))
HEAD = b"POST /api/v1/mset HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
GET = b"GET /api/v1/get/large HTTP/1.1\r\nHost: localhost\r\n\r\n"
needs_native = pytest.mark.skipif(transport() != "native", reason="the limits are the native transport's")


def metric(server: Server, name: str, **labels: str) -> float:
    """One figure as Prometheus sees it."""
    with server.http() as http:
        return http.metric(name, **labels)


@contextmanager
def bodies(server: Server, number: int, size: int) -> Iterator[list[socket.socket]]:
    """So many connections that have each sent so much of a body, and no more."""
    with ExitStack() as stack:
        made = [stack.enter_context(connect(server.http_address)) for _ in range(number)]
        for connection in made:
            connection.sendall(HEAD % (9 * MIB) + b" " * size)
        yield made


def refusals(connections: list[socket.socket]) -> list[bytes]:
    """What those were told that have been answered."""
    return [connection.recv(65_536) for connection in select.select(connections, [], [], 0)[0]]


def test_unfinished_bodies(launch: Launcher) -> None:
    """Over the limit the slowest are told so, and nobody else."""
    server = launch(*SMALL_REQUESTS)

    def unfinished() -> float:
        return metric(server, "kv_unfinished_request_bytes", transport="http")

    with good_client(server):
        with bodies(server, 3, 7 * MIB) as slow:
            eventually(lambda: unfinished() == 21 * MIB)
            assert refusals(slow) == []
            with bodies(server, 1, 4 * MIB):
                # One goes, after which a quarter is free.
                (answer,) = eventually(lambda: refusals(slow))
                assert answer.startswith(b"HTTP/1.1 429 ")
                assert b"Retry-After: 1\r\n" in answer
                assert b"limits.max_unfinished_bytes is 25165824 bytes" in answer
                eventually(lambda: unfinished() == 18 * MIB)
        eventually(lambda: unfinished() == 0)
        assert metric(server, "kv_unfinished_refused_total", transport="http") == 1


def test_unfinished_bodies_after_a_change(launch: Launcher) -> None:
    """A higher limit lets more come, a lower one refuses at once; one that is too low for a request is refused."""
    server = launch()

    def change(limit: int) -> tuple[int, object]:
        with server.http() as http:
            answer = http.post("/api/v1/config", {"limits": {"max_unfinished_bytes": limit}})
            return answer.status, answer.body

    assert change(48 * MIB)[0] == 200
    status, problem = change(47 * MIB)
    assert status == 400
    assert "limits.max_unfinished_bytes must be at least 50331648, 3 times limits.max_request_bytes" in str(problem)
    assert change(64 * MIB)[0] == 200
    with bodies(server, 7, 8 * MIB) as slow:
        eventually(lambda: metric(server, "kv_unfinished_request_bytes", transport="http") == 56 * MIB)
        assert refusals(slow) == []
        assert change(48 * MIB)[0] == 200
        answers = eventually(lambda: refusals(slow))
        assert len(answers) == 3
        assert all(b"limits.max_unfinished_bytes is 50331648 bytes" in answer for answer in answers)


@needs_native
def test_unfinished_messages(launch: Launcher) -> None:
    """What comes unasked over gRPC takes half of the limit at most; what is over it is told so."""
    server = launch(*SMALL_REQUESTS)
    message = enveloped(CLASSES["Set"][0](key="k", value="v" * 60_000).SerializeToString())
    with good_client(server), Peer(server.grpc_address) as peer:
        for _ in range(250):
            stream = peer.next_stream()
            pieces = [message[at : at + 16_000] for at in range(0, 56_000, 16_000)]
            peer.send(peer.headers(stream, request_fields("/kv.v1.KeyValueService/Set")))
            peer.send(*[DataFrame(stream, piece) for piece in pieces])
        # A call's end may go out behind the answer to a PING.
        peer.sync()
        peer.sync()
        refused = [answer for answer in peer.answers.values() if answer.status == "8"]
        assert refused
        assert all("limits.max_unfinished_bytes is 25165824 bytes" in a.headers["grpc-message"] for a in refused)
        assert 0 < metric(server, "kv_unfinished_request_bytes", transport="grpc") <= 12 * MIB
        assert metric(server, "kv_unfinished_refused_total", transport="grpc") == len(refused)
    eventually(lambda: metric(server, "kv_unfinished_request_bytes", transport="grpc") == 0)


def test_answers_that_are_not_read(launch: Launcher) -> None:
    """Over the limit those are cut off that have read nothing for the longest."""
    server = launch(*SMALL_ANSWERS, *LEAST_UNSENT)
    with server.http() as http:
        assert http.post("/api/v1/set", {"key": "large", "value": "x" * MIB}).status == 200
    with good_client(server), ExitStack() as stack:
        slow = []
        for _ in range(60):
            slow.append(stack.enter_context(connect(server.http_address, 4096)))
            slow[-1].sendall(GET * 3)
        eventually(lambda: metric(server, "kv_cut_off_total", transport="http", reason="unsent") > 20)
        assert 0 < metric(server, "kv_unsent_answer_bytes", transport="http") <= 16 * MIB
    eventually(lambda: metric(server, "kv_unsent_answer_bytes", transport="http") == 0)


@needs_native
def test_answers_that_no_window_lets_out(launch: Launcher) -> None:
    """Over twice the limit gRPC's connections are cut off too."""
    server = launch(*SMALL_ANSWERS, *LEAST_UNSENT)
    with server.http() as http:
        assert http.post("/api/v1/set", {"key": "large", "value": "x" * MIB}).status == 200
    asked = CLASSES["Get"][0](key="large").SerializeToString()
    with good_client(server), ExitStack() as stack:
        for _ in range(40):
            peer = stack.enter_context(Peer(server.grpc_address, {SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
            for _ in range(4):
                peer.start("/kv.v1.KeyValueService/Get", asked)
        eventually(lambda: metric(server, "kv_cut_off_total", transport="grpc", reason="unsent") > 0)
        eventually(lambda: 0 < metric(server, "kv_unsent_answer_bytes", transport="grpc") <= 36 * MIB)
    eventually(lambda: metric(server, "kv_unsent_answer_bytes", transport="grpc") == 0)


@pytest.mark.long
def test_bodies_of_the_unknown(launch: Launcher) -> None:
    """As much is read as is configured, and as was changed by one who may; the rest is refused at its head."""
    tokens = Tokens(launch.folder / "server")
    root, tuner = tokens.create("root", ALL), tokens.create("tuner", "config_read,config_write")
    server = launch("--security-tokens", str(tokens.path))

    def answers(size: int) -> bool:
        """Whether the connection goes on after a body of that size from nobody known."""
        with connect(server.http_address) as connection:
            connection.sendall(HEAD % size)
            if select.select([connection], [], [], 0.5)[0]:
                assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
                assert is_cut(connection, 30)
                return False
            connection.sendall(b" " * size)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
            return not is_cut(connection)

    def change(token: str) -> int:
        with Http(server.http_address, token) as http:
            return http.post("/api/v1/config", {"security": {"unauthenticated_body_bytes": 1000}}).status

    assert (answers(65_536), answers(65_537)) == (True, False)
    assert change(tuner) == 403
    assert answers(65_536)
    assert change(root) == 200
    assert (answers(1000), answers(1001)) == (True, False)
    with server.http(root) as http:
        assert http.metric("kv_cut_off_total", transport="http", reason="unauthenticated_body") == 2
        assert http.post("/api/v1/set", {"key": "k", "value": "v" * 100_000}).status == 200
