"""What a peer must not do ends its stream or its connection, as RFC 9113 says, and harms nobody else."""

from __future__ import annotations

from typing import Callable

import pytest
from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from ...support import World
from ..peer import Peer, Sendable, enveloped, raw, request_fields
from .connection_errors import BEGINNINGS, ENDS_THE_CONNECTION
from .deeds import (
    CANCEL,
    GET,
    NO_ERROR,
    PING,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SET,
    goes_on,
    opened,
    request,
    set_request,
    without,
)
from .stream_errors import ENDS_THE_STREAM


@pytest.mark.parametrize("name", ENDS_THE_CONNECTION)
def test_what_ends_the_connection(peer: Peer, name: str) -> None:
    """GOAWAY has the right code, a sentence, and the last stream that was opened; then the connection is closed."""
    code, deed = ENDS_THE_CONNECTION[name]
    peer.send(*deed(peer))
    goodbye = peer.goaway()
    assert goodbye.error_code == code
    assert goodbye.additional_data.decode().isprintable()
    assert goodbye.additional_data
    assert goodbye.last_stream_id <= peer.next_stream()
    assert peer.frames[-1] is goodbye


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=list(BEGINNINGS))
def test_beginnings_that_are_not_http_2(world: World, beginning: bytes) -> None:
    """What does not begin as HTTP/2 does hears so, in GOAWAY, and is cut off."""
    with Peer(world.address, greet=False) as peer:
        peer.send(beginning)
        goodbye = peer.goaway()
    assert (goodbye.error_code, goodbye.last_stream_id) == (PROTOCOL_ERROR, 0)


def test_goaway_names_the_last_stream(peer: Peer) -> None:
    """The client learns which of its calls the server has seen: all below may have been carried out."""
    streams = [peer.start(GET, b"\x0a\x01a") for _ in range(3)]
    peer.send(raw(PING, 0, 0))
    assert peer.goaway().last_stream_id == streams[-1]


def test_nothing_is_looked_at_after_goaway(world: World, peer: Peer) -> None:
    """What comes behind the frame that ended the connection, in the same segment too, has no effect."""
    stream_id = peer.next_stream()
    peer.send(
        raw(PING, 0, 0),
        peer.headers(stream_id, request_fields(SET)),
        DataFrame(stream_id, enveloped(set_request(key="late")), flags=["END_STREAM"]),
    )
    assert peer.goaway().last_stream_id == 0
    assert "late" not in world.stored()


@pytest.mark.parametrize("name", ENDS_THE_STREAM)
def test_what_ends_the_stream(world: World, peer: Peer, name: str) -> None:
    """RST_STREAM has the right code; nothing was carried out; the connection goes on, and so do its other calls."""
    code, deed = ENDS_THE_STREAM[name]
    other = opened(peer)
    stream_id = deed(peer)
    peer.read(lambda frame: isinstance(frame, RstStreamFrame) and frame.stream_id == stream_id)
    assert peer.answers[stream_id].reset == code
    assert "c" not in world.stored()
    peer.send(DataFrame(other, enveloped(set_request(key="b")), flags=["END_STREAM"]))
    assert peer.answer(other).status == "0"
    goes_on(peer)


LATE: dict[str, Callable[[int], Sendable]] = {
    "DATA": lambda s: DataFrame(s, b"data"),
    "the last DATA": lambda s: DataFrame(s, b"data", flags=["END_STREAM"]),
    "trailers": lambda s: HeadersFrame(s, b"\x00\x01x\x01y", flags=["END_HEADERS", "END_STREAM"]),
    "RST_STREAM": lambda s: RstStreamFrame(s, CANCEL),
    "WINDOW_UPDATE": lambda s: WindowUpdateFrame(s, 1),
    "PRIORITY": lambda s: PriorityFrame(s, depends_on=0),
}


@pytest.mark.parametrize("name", LATE)
def test_frames_that_crossed_a_reset(peer: Peer, name: str) -> None:
    """What was on its way while the server reset a stream is ignored."""
    stream_id = request(*without(":path"))(peer)
    assert peer.answer(stream_id).reset == PROTOCOL_ERROR
    peer.send(LATE[name](stream_id))
    goes_on(peer)
    assert [frame.error_code for frame in peer.frames if isinstance(frame, RstStreamFrame)] == [PROTOCOL_ERROR]


def test_the_rest_of_a_call_that_has_failed(peer: Peer) -> None:
    """A call may be answered before its request has ended; then the client is told to stop, without an error."""
    stream_id = opened(peer, "/no.Such/Method")
    answer = peer.answer(stream_id)
    peer.sync()
    assert (answer.status, answer.reset) == ("12", NO_ERROR)
    peer.send(DataFrame(stream_id, b"data", flags=["END_STREAM"]))
    goes_on(peer)


def test_more_streams_than_allowed(peer: Peer) -> None:
    """One stream over the limit is refused, which means that it can be tried again; when one has ended it is not."""
    streams = [opened(peer) for _ in range(1000)]
    refused = opened(peer)
    assert peer.answer(refused).reset == REFUSED_STREAM
    peer.send(RstStreamFrame(streams[0], CANCEL))
    goes_on(peer)
