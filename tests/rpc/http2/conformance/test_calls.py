"""What a peer may do, RFC 9113 says, has the effect it should have, and the server keeps its own side."""

from __future__ import annotations

from typing import Callable

import pytest
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from kvtwisted.rpc.generated.keyvalue_pb2 import GetResponse
from kvtwisted.rpc.http2 import lifetime

from ...support import MIB, PATIENCE, World
from ...test_server import stop_in_background
from ..peer import Peer, enveloped, request_fields
from .deeds import GET, LARGEST_WINDOW, NO_ERROR, REFUSED_STREAM, WINDOW, body, goes_on, opened
from .harmless import CALLS, CHANGES_NOTHING


@pytest.mark.parametrize("name", CHANGES_NOTHING)
def test_what_changes_nothing(peer: Peer, name: str) -> None:
    """The connection goes on as before, and neither RST_STREAM nor GOAWAY is sent."""
    peer.send(*CHANGES_NOTHING[name](peer))
    peer.sync()
    goes_on(peer)
    assert not [frame for frame in peer.frames if isinstance(frame, (RstStreamFrame, GoAwayFrame))]


@pytest.mark.parametrize("cut", [None, 1, 7], ids=["at once", "byte by byte", "by 7 bytes"])
@pytest.mark.parametrize("name", CALLS)
def test_calls_however_cut(world: World, peer: Peer, name: str, cut: int | None) -> None:
    """Frames that say the same have the same effect, twice in a row, however the bytes arrive."""
    for _ in range(2):
        world.fill(["c"], "1")
        stream_id = peer.next_stream()
        whole = b"".join(
            thing if isinstance(thing, bytes) else thing.serialize() for thing in CALLS[name](peer, stream_id)
        )
        for start in range(0, len(whole), cut or len(whole)):
            peer.send(whole[start : start + (cut or len(whole))])
        answer = peer.answer(stream_id)
        assert (answer.status, answer.headers[":status"], answer.blocks, answer.reset) == ("0", "200", 2, None)
        assert world.stored()["c"] == "2"
    world.store.delete(b"c")


def test_many_calls_in_one_segment(peer: Peer) -> None:
    """HEADERS of many calls may come before their DATA, and DATA in any order."""
    goes_on(peer)
    streams = [peer.next_stream() for _ in range(20)]
    heads = [peer.headers(stream_id, request_fields(GET)) for stream_id in streams]
    bodies = [DataFrame(stream_id, enveloped(b"\x0a\x01a"), flags=["END_STREAM"]) for stream_id in reversed(streams)]
    peer.send(*heads, *bodies)
    for stream_id in streams:
        assert GetResponse.FromString(peer.answer(stream_id).messages[0]).value == "1"


def test_the_servers_settings(peer: Peer) -> None:
    """The server's first frame is SETTINGS with its limits, then it opens the connection's window to 16 MiB."""
    first, second = peer.frames[:2]
    assert isinstance(first, SettingsFrame)
    assert first.settings == {3: 1000, 6: 16_384}
    assert isinstance(second, WindowUpdateFrame)
    assert (second.stream_id, second.window_increment) == (0, 16 * MIB - WINDOW)


def test_each_settings_is_acknowledged(peer: Peer) -> None:
    """Once, in order with the answers to what came around it."""
    peer.frames.clear()
    pings = [PingFrame(opaque_data=b"number %d" % number) for number in range(3)]
    peer.send(pings[0], SettingsFrame(), pings[1], SettingsFrame(settings={1: 0}), SettingsFrame(), pings[2])
    peer.sync()
    kinds = [type(frame) for frame in peer.frames]
    assert kinds == [PingFrame, SettingsFrame, PingFrame, SettingsFrame, SettingsFrame, PingFrame, PingFrame]
    assert all(frame.flags == {"ACK"} for frame in peer.frames)


def test_ping(peer: Peer) -> None:
    """It comes back with the same eight bytes, while calls are half there too."""
    peer.send(PingFrame(opaque_data=b"\0\xffpingme"))
    opened(peer)
    peer.send(PingFrame(opaque_data=b"12345678"))
    answers = [peer.read(lambda frame: isinstance(frame, PingFrame)) for _ in range(2)]
    assert [(frame.opaque_data, set(frame.flags)) for frame in answers] == [
        (b"\0\xffpingme", {"ACK"}),
        (b"12345678", {"ACK"}),
    ]


def test_goodbyes(make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stops says so, serves what crosses that, names the last stream, refuses others, and closes."""
    monkeypatch.setattr(lifetime, "GOODBYE_SECONDS", PATIENCE)
    world = make_world()
    world.fill(["a"], "1")
    with Peer(world.address) as peer:
        peer.answers_pings = False
        running = opened(peer)
        peer.sync()
        stopping = stop_in_background(world, PATIENCE)
        first = peer.read(lambda frame: isinstance(frame, GoAwayFrame))
        assert (first.error_code, first.last_stream_id, first.additional_data) == (NO_ERROR, LARGEST_WINDOW, b"")
        ping = peer.read(lambda frame: isinstance(frame, PingFrame))
        crossing = peer.start(GET, b"\x0a\x01a")
        assert peer.answer(crossing).status == "0"
        peer.send(PingFrame(opaque_data=ping.opaque_data, flags=["ACK"]))
        second = peer.read(lambda frame: isinstance(frame, GoAwayFrame))
        assert (second.error_code, second.last_stream_id) == (NO_ERROR, crossing)
        assert peer.answer(peer.start(GET, b"\x0a\x01a")).reset == REFUSED_STREAM
        peer.send(body(running))
        assert peer.answer(running).status == "0"
        peer.read_all()
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
