"""Answers larger than a window or a buffer, and clients that count every frame of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hyperframe.frame import DataFrame, Frame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from ..support import MIB, World
from .peer import Peer, enveloped, request_fields

_GET = "/kv.v1.KeyValueService/Get"


@pytest.fixture
def world() -> Iterator[World]:
    """A native server."""
    world = World(transport="native")
    world.start()
    yield world
    world.stop()


@pytest.mark.parametrize("size", [60_000, 70_000, 100_000, 130_000, 300_000])
def test_sent_once(world: World, size: int) -> None:
    """An answer that fills the transport's buffer, which the socket then takes whole, is not sent again."""
    world.fill(["a"], "v" * size)
    with Peer(world.address, {SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1}) as peer:
        peer.send(WindowUpdateFrame(0, window_increment=2**31 - 1 - 65_535))
        answer = peer.answer(peer.start(_GET, b"\x0a\x01a"))
        peer.sync()
        assert len(answer.messages) == 1
        assert len(answer.data) < size + 32
        assert answer.blocks == 2


def test_credit_for_each_frame(world: World) -> None:
    """A client that gives back each frame's bytes at once, on stream and connection, may do so for ever."""
    world.fill(["a"], "v" * MIB)
    with Peer(world.address) as peer:

        def credited(frame: Frame) -> bool:
            if isinstance(frame, DataFrame) and frame.data:
                size = len(frame.data)
                peer.send(WindowUpdateFrame(0, window_increment=size))
                if "END_STREAM" not in frame.flags:
                    peer.send(WindowUpdateFrame(frame.stream_id, window_increment=size))
            return peer.answers[frame.stream_id].ended

        for _ in range(30):
            stream = peer.start(_GET, b"\x0a\x01a")
            peer.read(credited)
            assert len(peer.answers.pop(stream).data) > MIB


def test_credit_between_headers_and_data(world: World) -> None:
    """A client that sends WINDOW_UPDATE frames within every call, as grpcio does, may do so for ever."""
    world.fill(["a"], "v")
    with Peer(world.address) as peer:
        for _ in range(30):
            last = 0
            for _ in range(100):
                last = peer.next_stream()
                peer.send(
                    WindowUpdateFrame(0, window_increment=5),
                    peer.headers(last, request_fields(_GET)),
                    WindowUpdateFrame(last, window_increment=5),
                    DataFrame(last, enveloped(b"\x0a\x01a"), flags=["END_STREAM"]),
                )
            assert peer.answer(last).status == "0"


def test_cancelled_answers_make_room() -> None:
    """A call that waits because many large answers are expected goes on when the client cancels those calls."""
    world = World(transport="native", threads=1)
    world.start()
    hold = world.hold("scan")
    with Peer(world.address) as peer:
        scans = [peer.start("/kv.v1.KeyValueService/ScanKeyValues") for _ in range(20)]
        hold.reached()
        peer.send(*[RstStreamFrame(stream, error_code=8) for stream in scans])
        late = peer.start(_GET, b"\x0a\x01a")
        peer.sync()
        hold.release()
        assert peer.answer(late).status == "0"
    world.stop()
