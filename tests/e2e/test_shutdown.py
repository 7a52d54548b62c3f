"""SIGTERM and SIGINT: what runs finishes, what was acknowledged stays, nothing else keeps the server from ending."""

from __future__ import annotations

import json
import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .harness import FREE_PORTS, PATIENCE, TWISTD, Launcher, Server, connect, engine, eventually, transport
from .ledger import Ledger, Refused, start_writers

#: Writes that are acknowledged before the signal.
WRITES = 300
#: Seconds that a stop may take when nothing but idle clients is in its way, who have two seconds for one request more;
#: the grace period is set to far more.
PROMPT = 10.0
_LONG_GRACE = ("--limits-shutdown-grace", "60")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_under_load(launch: Launcher, number: signal.Signals) -> None:
    """A signal under load ends the server promptly and quietly, and every acknowledged write is there afterwards."""
    ledger = Ledger()
    server = launch(*_LONG_GRACE)
    writers = start_writers(server, ledger)
    ledger.wait_for_more(WRITES, PATIENCE)
    server.send(number)
    # twistd stops in order, then lets the signal end it.
    assert server.wait(PROMPT) == -number
    assert "Traceback" not in server.output
    assert server.log("error") == ""
    for writer in writers:
        writer.join(PATIENCE)
        assert _is_orderly(writer.failure), f"{writer.name}: {writer.failure!r}"
    ledger.compare(launch())


def _is_orderly(failure: Exception | None) -> bool:
    """Whether a client may be told this by a server that stops."""
    if isinstance(failure, grpc.RpcError):
        return failure.code() is grpc.StatusCode.UNAVAILABLE
    # Connections end when they are idle at the server, and new ones come too late.
    return isinstance(failure, (Refused, ConnectionError))


def test_a_request_under_way_is_answered(launch: Launcher) -> None:
    """An answer that is being sent is sent to its end, while new connections are refused.

    More signals, at once or meanwhile, change nothing.
    """
    server = launch(*_LONG_GRACE, "--http-max-response-bytes", str(16 << 20))
    value = "x" * 1_000_000
    with server.grpc() as client:
        for number in range(14):
            assert client.call("Set", key=f"{number:02}", value=value).success
    with closing(_slow_reader(server)) as reader:
        reader.sendall(b"GET /api/v1/scan HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = reader.recv(1000)
        server.send(signal.SIGTERM)
        server.send(signal.SIGTERM)
        eventually(lambda: _refuses(server.http_address) and _refuses(server.grpc_address))
        server.send(signal.SIGTERM)
        server.send(signal.SIGINT)
        assert server.process.poll() is None
        while chunk := reader.recv(1 << 20):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert list(json.loads(body)["results"]) == [f"{number:02}" for number in range(14)]
    assert server.wait(PROMPT) == -signal.SIGTERM
    assert "Traceback" not in server.output


def test_two_signals_at_once(launch: Launcher) -> None:
    """Two different signals that the server sees in the same moment stop it once, and quietly."""
    server = launch()
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        server.send(number)
    assert -server.wait(PROMPT) in (signal.SIGTERM, signal.SIGINT)
    assert "Traceback" not in server.output
    assert server.log("error") == ""


#: Connections that are kept, and seconds between the requests of each: less than idle ones have when the server stops.
KEPT, PAUSE = 80, 0.3


def _ask_until_the_end(address: str, request: bytes, answers: list[bytes]) -> None:
    """Send requests on one connection, with pauses, until an answer says that it is the last; then see its end."""
    with closing(connect(address)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            connection.sendall(request)
            answer = b""
            while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                piece = connection.recv(65_536)
                assert piece, f"closed before the answer: {answer!r}"
                answer += piece
            answers.append(answer)
            if b"\r\nConnection: close\r\n" in answer:
                assert connection.recv(1) == b""
                return
            time.sleep(PAUSE * random.random())


@pytest.mark.parametrize("lane", ["true", pytest.param("false", marks=pytest.mark.long)])
def test_kept_connections_lose_no_request(launch: Launcher, lane: str) -> None:
    """Each of many kept connections is told by an answer that it ends; a silent one ends, and does not hold it up."""
    server = launch(*_LONG_GRACE, "--http-fast-lane", lane)
    body = b'{"key":"k","value":"v"}'
    host = "Host: localhost\r\n"
    head = f"POST /api/v1/set HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    requests = [head.encode() + body, b"GET /api/v1/get/k HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    answers: list[list[bytes]] = [[] for _ in range(KEPT)]
    with closing(connect(server.http_address)) as silent, ThreadPoolExecutor(KEPT) as pool:
        asking = [
            pool.submit(_ask_until_the_end, server.http_address, requests[number % 2], answers[number])
            for number in range(KEPT)
        ]
        eventually(lambda: all(answers))
        server.send(signal.SIGTERM)
        for one in asking:
            one.result(PATIENCE)
        assert silent.recv(1) == b""
    assert server.wait(PROMPT) == -signal.SIGTERM
    assert {answer[9:12] for heard in answers for answer in heard} <= {b"200", b"404"}
    assert "Traceback" not in server.output


def _slow_reader(server: Server) -> socket.socket:
    """A connection that takes up so little that the server cannot have sent everything."""
    host, _, port = server.http_address.rpartition(":")
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    reader.settimeout(PATIENCE)
    reader.connect((host, int(port)))
    return reader


def _refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except ConnectionError:
        return True
    return False


def test_calls_under_way_are_answered(launch: Launcher) -> None:
    """gRPC calls that have been taken up are answered, and what they wrote is there; the others say UNAVAILABLE."""
    server = launch(*_LONG_GRACE)
    batches = {name: {f"{name}/{number}": "x" * 1000 for number in range(10_000)} for name in "abcd"}
    with server.http() as http, server.grpc() as client:
        calls = {name: client.start("MSet", key_values=batch) for name, batch in batches.items()}
        eventually(lambda: http.metric("kv_sets_total") >= 10_000)
        server.send(signal.SIGTERM)
        codes = {name: call.code() for name, call in calls.items()}
    assert server.wait(PROMPT) == -signal.SIGTERM
    assert "Traceback" not in server.output
    assert set(codes.values()) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert grpc.StatusCode.OK in codes.values()
    with launch().grpc() as client:
        for name, code in codes.items():
            there = len(client.call("ScanKeys", prefix=f"{name}/").keys)
            assert there == 10_000 if code is grpc.StatusCode.OK else there in (0, 10_000)


@pytest.mark.long
def test_idle_clients_do_not_delay_the_stop(launch: Launcher) -> None:
    """Neither an idle keep-alive connection, nor an idle channel, nor an open health Watch is waited for."""
    server = launch(*_LONG_GRACE)
    with server.http() as http, server.grpc() as client, grpc.insecure_channel(server.grpc_address) as channel:
        assert http.get("/api/v1/health").status == 200
        assert client.call("Set", key="a", value="1").success
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        started = time.monotonic()
        server.send(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.wait(PROMPT) == -signal.SIGTERM
        assert time.monotonic() - started < PROMPT
    assert "Traceback" not in server.output


def test_a_signal_that_is_ignored_stops_nothing(launch: Launcher) -> None:
    """A shell has its background jobs ignore SIGINT; one that comes all the same must not use up the SIGTERM."""
    chosen = ("--storage-engine", engine(), "--grpc-transport", transport())
    ignoring = ("/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh")
    server = launch.run([*ignoring, *TWISTD, "-n", "--pidfile=", "kvtwisted", *FREE_PORTS, *chosen])
    with server.http() as http:
        server.send(signal.SIGINT)
        assert http.post("/api/v1/set", {"key": "a", "value": "1"}).status == 200
    server.stop()
