"""What only the server on grpcio's threads has to show: its life, its address, and that it keeps its threads."""

from __future__ import annotations

import gzip
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from twisted.logger import formatEvent

from kvtwisted.core.errors import Unavailable
from kvtwisted.rpc.grpcio import server as threaded_server

from ..support import MIB, PATIENCE, Client, World, logged
from ..test_pipeline import get, run
from ..test_server import stop_in_background

ROOT = Path(__file__).parents[3]


@pytest.fixture
def transport() -> str:
    """This one alone."""
    return "threaded"


def test_a_port_taken_in_the_last_moment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody else is faster than grpcio, which does not say what is wrong, the line is nearly the same."""
    monkeypatch.setattr(threaded_server, "check_address", lambda host, port: None)
    port = int(world.address.rpartition(":")[2])
    with pytest.raises(Unavailable) as failure:
        World(port=port).server.start()
    assert str(failure.value) == f"grpc: cannot listen on 127.0.0.1:{port}: grpcio could not bind to it"


def test_grpcio_logs_to_twisted(world: World) -> None:
    """What grpcio itself logs becomes one line in the server's log, and goes nowhere else."""
    assert world.client.call("Set", key="a", value="1").success
    with logged() as events:
        try:
            raise ValueError("inside grpcio")
        except ValueError:
            logging.getLogger("grpc._server").exception("Exception in %s", "the server")
    assert [formatEvent(event) for event in events] == ["grpcio: Exception in the server"]
    assert not logging.getLogger("grpc").propagate


def test_a_wall_clock_that_is_set_forward(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """grpcio tells by the wall clock what time a call has left. Set forward by an hour, it makes no call late."""
    ahead = SimpleNamespace(time=lambda: time.time() + 3600)
    monkeypatch.setattr("grpc._server.time", ahead)
    assert world.client.call("Set", key="a", value="1").success
    assert world.client.call("Get", key="a").found
    check = health_pb2_grpc.HealthStub(world.channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert check.status == health_pb2.HealthCheckResponse.SERVING
    assert run(world.channel, [get(1, "a")])[1].get.found


def test_calls_that_outlive_the_grace(make_world: Callable[..., World]) -> None:
    """After the grace period clients are cut off, queued calls never run, and stop waits for work on the storage."""
    world = make_world(threads=1)
    hold = world.hold("write")
    running = world.client.start("Set", key="a", value="1")
    hold.reached()
    queued = world.client.start("Set", key="b", value="2")
    stopping = stop_in_background(world, 0.0)
    for call in (running, queued):
        assert call.exception().code() in (StatusCode.CANCELLED, StatusCode.UNAVAILABLE)
    assert stopping.is_alive()
    assert world.admission.in_flight == 1
    hold.release()
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
    assert world.admission.in_flight == 0
    assert world.stored() == {"a": "1"}


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_compressed_bombs(world: World, compress: Callable[[bytes], bytes]) -> None:
    """A message that expands to far more than it may is refused without being expanded."""
    bomb = compress(bytes(300 * MIB))
    failure = world.client.error_raw("Set", bomb)
    assert failure.code() is StatusCode.RESOURCE_EXHAUSTED
    assert failure.details() == "the request is over 2621456 bytes once it is decompressed"


def silent(world: World, path: str) -> Any:
    """A call that has begun and whose message never comes."""
    never = threading.Event()

    def messages() -> Iterator[bytes]:
        never.wait(PATIENCE)
        yield b""

    call = world.channel.stream_unary(path).future(messages(), timeout=PATIENCE)
    call.add_done_callback(lambda _: never.set())
    return call


def test_peers_that_never_send(make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    """A call whose message does not come within the request's time is cancelled, and gives its thread back."""
    monkeypatch.setattr("kvtwisted.rpc.grpcio.handlers.SIDE_SECONDS", 0.0)
    world = make_world(threads=1)
    world.terms.request_timeout = 0.0
    calls = [silent(world, "/kv.v1.KeyValueService/Get") for _ in range(3)]
    checks = [silent(world, "/grpc.health.v1.Health/Check") for _ in range(20)]
    assert [call.code() for call in (*calls, *checks)] == [StatusCode.CANCELLED] * 23
    world.terms.request_timeout = PATIENCE
    assert world.client.call("Set", key="a", value="1").success


def test_peers_that_vanish(make_world: Callable[..., World]) -> None:
    """A client that closes its connection in the middle of a call gives its thread back."""
    world = make_world(threads=1)
    with world.connect() as channel:
        call = channel.stream_unary("/kv.v1.KeyValueService/Get").future(iter(threading.Event().wait, True))
        hold = world.hold("write")
        other = Client(channel).start("Set", key="a", value="1")
        call.cancel()
        hold.reached()
    hold.release()
    assert other.code() is StatusCode.CANCELLED
    assert world.client.call("Set", key="b", value="2").success


@pytest.fixture
def forked() -> Iterator[dict[str, Any]]:
    """A program that makes its server, forks as twistd does, and serves from the child; ended by its pid."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.rpc.forking_server"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    first_line = process.stdout.readline()
    assert first_line, process.communicate(timeout=PATIENCE)
    yield {"process": process, **json.loads(first_line)}
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)


def test_after_a_fork_and_in_silence(forked: dict[str, Any]) -> None:
    """The server works in a child of the process that made it, and grpcio prints nothing, whatever clients do."""
    address = f"127.0.0.1:{forked['port']}"
    with socket.create_connection(("127.0.0.1", forked["port"]), timeout=PATIENCE) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(100))
        while plain.recv(4096):
            pass
    with grpc.insecure_channel(address) as channel:
        client = Client(channel)
        assert client.call("Set", key="a", value="1").success
        assert client.call("Get", key="a").value == "1"
        client.start("Get", key="a").cancel()
        assert client.error_raw("Set", b"\x0a\x01\xff").code() is StatusCode.INVALID_ARGUMENT
        assert client.error_raw("Set", bytes(4 << 20)).code() is StatusCode.RESOURCE_EXHAUSTED
        assert client.error_raw("Nothing", b"").code() is StatusCode.UNIMPLEMENTED
        assert client.error("Get", key="broken").code() is StatusCode.INTERNAL
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            assert client.call("Set", key="a", value="1" * 1000, compression=compression).success
        stream = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=PATIENCE)
        next(stream)
        output, errors = forked["process"].communicate("stop\n", timeout=PATIENCE)
    assert (output, errors) == ("stopped\n", "")
    assert "Address already in use" in forked["second"]
