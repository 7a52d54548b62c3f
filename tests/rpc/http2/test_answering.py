"""Streaming answers on the native transport: windows, resets, silence, and what takes too long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hyperframe.frame import DataFrame, RstStreamFrame, WindowUpdateFrame

from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.http2 import server
from kvtwisted.rpc.http2.answering import HIGH_WATER
from kvtwisted.rpc.http2.server import NativeGrpcServer
from kvtwisted.rpc.streams import PART_BYTES

from ...support.reactors import on
from ..support import World, wait_until
from .bystander import Skew
from .peer import Peer

pytestmark = pytest.mark.local_backend

_INITIAL_WINDOW_SIZE = 4
_WATCH, _SCAN = "/kv.v1.KeyValueService/Watch", "/kv.v1.KeyValueService/ScanStream"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Skew:
    """The server's time; it looks at what takes too long all the time."""
    clock = Skew()
    monkeypatch.setattr(NativeGrpcServer, "seconds", staticmethod(clock))
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.01)
    return clock


@pytest.fixture
def world(clock: Skew) -> Iterator[World]:
    """A native server with some megabytes."""
    world = World(transport="native")
    world.start()
    world.fill([f"key{number:03}" for number in range(200)], "v" * 20_000)
    yield world
    world.stop()


def streams(world: World) -> int:
    """Those that are open."""
    return sum(slots.open for slots in world.door.streams.slots.values())


def queued(world: World) -> int:
    """Bytes of answers that wait."""
    native: Any = world.server.native  # type: ignore[union-attr]
    waiting: int = on(world.reactor, getattr, native.backlog.queued, "bytes")
    return waiting


def entries(messages: list[bytes]) -> list[str]:
    """The keys of a ScanStream's messages."""
    answers = [kv.ScanKeyValuesResponse.FromString(message) for message in messages]
    return [entry.key for answer in answers for entry in answer.entries]


def test_windows_are_kept_to(world: World) -> None:
    """What a client gives no window for waits, and little of it does; with more window all comes, in order."""
    with Peer(world.address, {_INITIAL_WINDOW_SIZE: 1000}) as peer:
        stream = peer.start(_SCAN, kv.ScanRequest().SerializeToString())
        peer.read(lambda frame: isinstance(frame, DataFrame))
        for _ in range(20):
            peer.sync()
            assert queued(world) <= HIGH_WATER + PART_BYTES + 50_000
        assert len(peer.answers[stream].data) <= 1000
        # Not all at once.
        for _ in range(50):
            peer.send(
                WindowUpdateFrame(stream, window_increment=100_000), WindowUpdateFrame(0, window_increment=100_000)
            )
        answer = peer.answer(stream)
    assert answer.status == "0"
    assert entries(answer.messages) == [f"key{number:03}" for number in range(200)]


def test_a_reset_ends_it(world: World) -> None:
    """At once, whatever waits to be sent."""
    with Peer(world.address, {_INITIAL_WINDOW_SIZE: 0}) as peer:
        opened = [peer.start(_SCAN, b""), peer.start(_WATCH, b"")]
        wait_until(lambda: streams(world) == 2)
        wait_until(lambda: queued(world) > 0)
        peer.send(*[RstStreamFrame(stream, error_code=8) for stream in opened])
        wait_until(lambda: streams(world) == 0)
        assert queued(world) == 0
    assert not world.client.call("Get", key="none").found


def test_a_deadline_frees_what_it_has_though_nobody_reads(world: World, clock: Skew) -> None:
    """The status cannot be sent before what waits in front of it; snapshot and place go at once."""
    with Peer(world.address, {_INITIAL_WINDOW_SIZE: 0}) as peer:
        stream = peer.start(_SCAN, b"", ("grpc-timeout", "5S"))
        wait_until(lambda: streams(world) == 1)
        wait_until(lambda: queued(world) > 0)
        clock.jump(6)
        wait_until(lambda: streams(world) == 0)
        assert not world.backend._streams.open
        peer.send(
            WindowUpdateFrame(stream, window_increment=10_000_000), WindowUpdateFrame(0, window_increment=10_000_000)
        )
        answer = peer.answer(stream)
    assert answer.status == "4"
    assert 0 < len(entries(answer.messages)) < 200


def test_a_second_message(world: World) -> None:
    """There is one request."""
    message = b"\0\0\0\0\0"
    with Peer(world.address) as peer:
        stream = peer.next_stream()
        fields = [
            (":method", "POST"), (":scheme", "http"), (":path", _WATCH), (":authority", "x"),
            ("content-type", "application/grpc"), ("te", "trailers"),
        ]  # fmt: skip
        peer.send(peer.headers(stream, fields), DataFrame(stream, data=message + message))
        answer = peer.answer(stream)
    assert answer.status == "3"
    assert "more than one request message" in answer.headers["grpc-message"]
    assert streams(world) == 0


def test_a_quiet_watch_stays(world: World, clock: Skew) -> None:
    """For hours, on a connection with nothing else, as long as its client answers when it is asked whether it lives."""
    stub = world.channel.unary_stream(_WATCH, kv.WatchRequest.SerializeToString, kv.WatchResponse.FromString)
    stream = stub(kv.WatchRequest(key="quiet"))
    next(stream)
    native: Any = world.server.native  # type: ignore[union-attr]
    (connection,) = native._connections
    for _ in range(20):
        before = connection.lifetime.heard_at
        clock.jump(600)
        wait_until(lambda before=before: connection.lifetime.heard_at > before)  # type: ignore[misc]
        wait_until(lambda: connection.lifetime._asked_at is None)
    with world.connect() as other:
        method = other.unary_unary("/kv.v1.KeyValueService/Set")
        method(kv.SetRequest(key="quiet", value="v").SerializeToString(), timeout=30)
    assert [event.key for event in next(stream).events] == ["quiet"]
    assert connection in native._connections
    stream.cancel()


def test_messages_earn_what_frames_cost(world: World) -> None:
    """A client may say that it has taken each message, as some do: that is no flood."""
    with Peer(world.address) as peer:
        stream = peer.start(_WATCH, kv.WatchRequest(key="k").SerializeToString())
        peer.read(lambda frame: isinstance(frame, DataFrame))
        for _ in range(1500):
            world.client.call("Set", key="k", value="v")
            peer.read(lambda frame: isinstance(frame, DataFrame))
            peer.send(WindowUpdateFrame(stream, window_increment=20), WindowUpdateFrame(0, window_increment=20))
            peer.send(WindowUpdateFrame(0, window_increment=1))
        peer.sync()
        assert peer.answers[stream].status is None
