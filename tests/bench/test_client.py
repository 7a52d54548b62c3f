"""The load client in C: it counts good answers alone, keeps to its limits, and nothing else passes for a result."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import grpc
import pytest

from bench import client, messages
from bench.client import Call, Shape
from bench.load import LoadError, Outcome
from bench.messages import Messages
from bench.server import Server
from bench.trees import NOW
from kvtwisted.rpc.generated import keyvalue_pb2 as kv

needs_client = pytest.mark.skipif(bool(client.missing()), reason="libnghttp2 or the compiler is not installed")
PATH = "/any.Service/Any"
#: Keys, and a value, of the real server.
KEYS, VALUE = 200, "x" * 50


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled client."""
    return client.build(tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A filled server of ours."""
    with Server(NOW, tmp_path_factory.mktemp("servers") / "server") as running:
        running.fill(KEYS, lambda _: VALUE)
        yield running


Answering = Callable[[Callable[[bytes, grpc.ServicerContext], bytes]], str]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Starts servers of grpcio that answer any call by a function; returns their addresses."""
    started: list[grpc.Server] = []

    def start(answer: Callable[[bytes, grpc.ServicerContext], bytes]) -> str:
        class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(self, details: Any) -> grpc.RpcMethodHandler:
                return grpc.unary_unary_rpc_method_handler(answer)

        running = grpc.server(ThreadPoolExecutor(8), handlers=[Handler()])
        port = running.add_insecure_port("127.0.0.1:0")
        running.start()
        started.append(running)
        return f"127.0.0.1:{port}"

    yield start
    for running in started:
        running.stop(0)


def play(program: Path, server: Server, sent: Messages, shape: Shape, seconds: float = 0.2) -> Outcome:
    """Load the real server."""
    file = client.write(server.folder / "test.messages", sent.encoded)
    call = Call(sent.path, file, sent.least, sent.most, sent.pipeline, sent.streaming)
    return client.run(program, server.grpc, call, shape, seconds)


@needs_client
@pytest.mark.parametrize(
    "sent",
    [
        messages.get(KEYS, VALUE),
        messages.put(KEYS, VALUE),
        messages.mget(KEYS, VALUE, 100),
        messages.mset(KEYS, VALUE, 100),
        messages.scan(KEYS, VALUE, 100),
        messages.pipeline_get(KEYS, VALUE),
        messages.pipeline_put(KEYS, VALUE),
    ],
    ids=lambda sent: f"{sent.method}-{sent.operation}",
)
def test_what_is_answered_was_done(program: Path, server: Server, sent: Messages) -> None:
    """Each kind of message: the server has counted exactly the answers, on several connections."""
    with server.served(sent.operation) as served:
        outcome = play(program, server, sent, Shape(3, 16))
    assert served.keys == outcome.requests * sent.counted
    assert outcome.requests > 0
    assert 0 < outcome.p50 <= outcome.p99
    assert 0 < outcome.client < 1.5


@needs_client
@pytest.mark.parametrize(
    "sent",
    [
        messages.put_if(KEYS, VALUE, kv.Condition(present=True)),
        messages.increment(KEYS),
        messages.transact(KEYS, VALUE, 10),
        messages.touch(KEYS),
    ],
    ids=lambda sent: sent.method,
)
def test_writes_that_decide(program: Path, server: Server, sent: Messages) -> None:
    """Their conditions hold, and all answers are as long as was said."""
    server.fill(KEYS, lambda _: messages.START, messages.COUNTED)
    with server.served(sent.operation) as served:
        outcome = play(program, server, sent, Shape(2, 8))
    assert served.keys == outcome.requests * sent.counted


@needs_client
def test_streams_of_answers(program: Path, server: Server) -> None:
    """Their messages and bytes are counted, those of streams that have not ended too, and nothing is waited for."""
    whole = play(program, server, messages.scan_stream(), Shape(1, 2), 0.5)
    assert whole.parts >= whole.rate > 0
    assert whole.received > whole.rate * KEYS * len(VALUE)
    watching = play(program, server, messages.watch("key"), Shape(2, 3))
    assert watching.requests == 0
    assert round(watching.parts * 0.2) >= 6


@needs_client
def test_one_each_so_many_microseconds(program: Path, server: Server) -> None:
    """No more than were asked for, however quick the answers are."""
    outcome = play(program, server, messages.get(KEYS, VALUE), Shape(2, 16, every=10_000), 0.3)
    assert 1 <= outcome.requests <= 31


@needs_client
def test_random_keys_and_limits(program: Path, answering: Answering, tmp_path: Path) -> None:
    """All messages of the file are played, in turn, and no more of them at once than may be."""
    seen: list[bytes] = []
    under_way, most, lock = 0, 0, threading.Lock()

    def answer(message: bytes, _: grpc.ServicerContext) -> bytes:
        nonlocal under_way, most
        with lock:
            seen.append(message)
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.001)
        with lock:
            under_way -= 1
        return b"four"

    sent = [b"%d" % number for number in range(5)] + [b"x" * 100_000]
    call = Call(PATH, client.write(tmp_path / "messages", sent), 4, 4)
    outcome = client.run(program, answering(answer), call, Shape(1, 3), 0.3)
    assert outcome.requests == len(seen)
    assert len(seen) > len(sent)
    assert set(seen) == set(sent)
    assert 1 < most <= 3


@needs_client
@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda _, context: context.abort(grpc.StatusCode.NOT_FOUND, "nobody here"), "grpc-status 5: nobody here"),
        (lambda *_: b"12345", "an answer of 5 bytes, and not of 3 to 4"),
        (lambda *_: b"12", "an answer of 2 bytes, and not of 3 to 4"),
    ],
    ids=["status", "longer", "shorter"],
)
def test_bad_answers(program: Path, answering: Answering, tmp_path: Path, answer: Any, complaint: str) -> None:
    """One of them ends the load, though all before were good."""
    calls = iter(range(1_000_000))

    def mostly(message: bytes, context: grpc.ServicerContext) -> bytes:
        bad: bytes = answer(message, context) if next(calls) == 20 else b"123"
        return bad

    call = Call(PATH, client.write(tmp_path / "messages", [b"x"]), 3, 4)
    with pytest.raises(LoadError, match=f"{PATH}: load client: {complaint}"):
        client.run(program, answering(mostly), call, Shape(1, 2), 5)


@needs_client
@pytest.mark.parametrize(
    ("ids", "complaint"), [((1, 1), "an answer to message 1, which is not under way"), ((1, 2, 9), "message 9")]
)
def test_pipeline_answers_that_nobody_waits_for(
    program: Path, server: Server, tmp_path: Path, ids: tuple[int, ...], complaint: str
) -> None:
    """A number that was answered, or that was never sent."""
    sent = messages.pipeline_get(KEYS, VALUE)
    wrong = [sent.encoded[0].replace(b"\x08\x01", bytes((8, number)), 1) for number in ids]
    call = Call(sent.path, client.write(tmp_path / "messages", wrong), sent.least, sent.most, True)
    with pytest.raises(LoadError, match=complaint):
        client.run(program, server.grpc, call, Shape(1, len(ids)), 5)


@needs_client
def test_a_server_that_goes(program: Path, tmp_path: Path) -> None:
    """One that closes, and one that is not there."""
    call = Call(PATH, client.write(tmp_path / "messages", [b"x"]), 1, 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        closing = threading.Thread(target=lambda: listening.accept()[0].close())
        closing.start()
        with pytest.raises(LoadError, match=r"closed a connection|the connection broke"):
            client.run(program, address, call, Shape(1, 1), 1)
        closing.join()
    with pytest.raises(LoadError, match="cannot connect"):
        client.run(program, address, call, Shape(1, 1), 1)


@needs_client
def test_files_that_are_none(program: Path, tmp_path: Path) -> None:
    """Half a message, or no message."""
    for content in (b"", b"\0\0\0\0\5abc"):
        file = tmp_path / "messages"
        file.write_bytes(content)
        with pytest.raises(LoadError, match="does not hold whole messages"):
            client.run(program, "127.0.0.1:1", Call(PATH, file, 1, 1), Shape(1, 1), 1)


@needs_client
def test_headers(program: Path, answering: Answering, tmp_path: Path) -> None:
    """A token goes with each call."""
    seen: set[Any] = set()

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        seen.add(dict(context.invocation_metadata()).get("authorization"))
        return b"1"

    call = Call(PATH, client.write(tmp_path / "messages", [b"x"]), 1, 1)
    client.run(program, answering(answer), call, Shape(1, 1), 0.1, {"authorization": "Bearer kv1_a_b"})
    assert seen == {"Bearer kv1_a_b"}


def test_parse() -> None:
    """What it prints; no answer within the time is no result."""
    assert client.parse("counted 20 10.5 1 2 0.25 9 10.5 42\n") == Outcome(20, 10.5, 1, 2, 0.25, None, 9, 10.5, 42)
    for text in ("counted 0 0.0 -1 -1 0.1 0 0.0 0\n", "counted 4 0.0 1 1 0.1 0 0.0 0\n"):
        with pytest.raises(LoadError, match="no answer"):
            client.parse(text)


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a compiler, or without the library's header, the package is named that has it."""
    client.missing.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert client.PACKAGES[client.missing()] == "gcc libc6-dev"
    client.missing.cache_clear()
    (tmp_path / "cc").write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    (tmp_path / "cc").chmod(0o755)
    assert client.PACKAGES[client.missing()] == "libnghttp2-dev"
    client.missing.cache_clear()
