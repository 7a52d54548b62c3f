"""What ends a stream: the code to hear in RST_STREAM, and what to send; returns the stream."""

from __future__ import annotations

from typing import Callable

from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from ..peer import Peer, Sendable, enveloped, raw, request_fields
from .deeds import (
    CANCEL,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOOD,
    LARGEST_WINDOW,
    PRIORITY,
    PROTOCOL_ERROR,
    SET,
    STREAM_CLOSED,
    WINDOW,
    WINDOW_UPDATE,
    closed,
    opened,
    request,
    reset_by_peer,
    reset_by_server,
    watching,
    without,
)


def then(*frames: Callable[[int], Sendable], on: Callable[[Peer], int] = opened) -> Callable[[Peer], int]:
    """Send frames on a stream in a certain state; returns the stream."""

    def deed(peer: Peer) -> int:
        stream_id = on(peer)
        peer.send(*(frame(stream_id) for frame in frames))
        return stream_id

    return deed


def second_headers(*fields: tuple[str, str], end_stream: bool = True) -> Callable[[Peer], int]:
    """Trailers on an open stream."""

    def deed(peer: Peer) -> int:
        stream_id = opened(peer)
        peer.send(peer.headers(stream_id, fields, end_stream=end_stream))
        return stream_id

    return deed


def overrun(peer: Peer) -> int:
    """A message for which the window was made larger, and ten bytes more than that."""
    stream_id, message = opened(peer), enveloped(bytes(100_000))
    peer.send(DataFrame(stream_id, message[:10]))
    peer.read(lambda frame: isinstance(frame, WindowUpdateFrame) and frame.stream_id == stream_id)
    pieces = [message[start : start + 16_384] for start in range(10, len(message), 16_384)]
    peer.send(*(DataFrame(stream_id, piece) for piece in pieces[:-1]), DataFrame(stream_id, pieces[-1] + bytes(10)))
    return stream_id


def literally(*fields: tuple[bytes, bytes]) -> Callable[[Peer], int]:
    """A good request whose last fields are spelt out byte for byte."""

    def deed(peer: Peer) -> int:
        stream_id = peer.next_stream()
        block = peer.encoder.encode(request_fields(SET))
        for name, value in fields:
            block += b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value
        peer.send(HeadersFrame(stream_id, block, flags=["END_HEADERS"]))
        return stream_id

    return deed


def with_length(length: str, *bodies: bytes, trailers: bool = False) -> Callable[[Peer], int]:
    """A call with a content-length, and the frames of its body."""

    def deed(peer: Peer) -> int:
        stream_id = peer.next_stream()
        fields = request_fields(SET, ("content-length", length))
        frames: list[Sendable] = [peer.headers(stream_id, fields, end_stream=not bodies)]
        frames += [DataFrame(stream_id, body) for body in bodies]
        if trailers:
            frames.append(peer.headers(stream_id, [("x", "y")], end_stream=True))
        elif bodies:
            frames[-1] = DataFrame(stream_id, bodies[-1], flags=["END_STREAM"])
        peer.send(*frames)
        return stream_id

    return deed


ENDS_THE_STREAM: dict[str, tuple[int, Callable[[Peer], int]]] = {
    # Frames in states that do not allow them.
    "DATA when half closed": (STREAM_CLOSED, then(lambda s: DataFrame(s, b"data"), on=watching)),
    "HEADERS when half closed": (
        STREAM_CLOSED,
        then(lambda s: HeadersFrame(s, b"\x00\x01x\x01y", flags=["END_HEADERS", "END_STREAM"]), on=watching),
    ),
    "DATA when closed": (STREAM_CLOSED, then(lambda s: DataFrame(s, b"data"), on=closed)),
    "DATA after the peer's RST_STREAM": (STREAM_CLOSED, then(lambda s: DataFrame(s, b"data"), on=reset_by_peer)),
    "DATA after RST_STREAM from both sides": (
        STREAM_CLOSED,
        then(lambda s: RstStreamFrame(s, CANCEL), lambda s: DataFrame(s, b"data"), on=reset_by_server),
    ),
    "trailers without an end": (PROTOCOL_ERROR, second_headers(("x", "y"), end_stream=False)),
    # Windows and priorities.
    "WINDOW_UPDATE by 0": (PROTOCOL_ERROR, then(lambda s: raw(WINDOW_UPDATE, 0, s, bytes(4)))),
    "WINDOW_UPDATE by 0 when half closed": (
        PROTOCOL_ERROR,
        then(lambda s: raw(WINDOW_UPDATE, 0, s, bytes(4)), on=watching),
    ),
    "a window over 2^31-1": (FLOW_CONTROL_ERROR, then(lambda s: WindowUpdateFrame(s, LARGEST_WINDOW))),
    "a window over 2^31-1 in two steps": (
        FLOW_CONTROL_ERROR,
        then(lambda s: WindowUpdateFrame(s, LARGEST_WINDOW - WINDOW), lambda s: WindowUpdateFrame(s, 1)),
    ),
    "more DATA than the window": (FLOW_CONTROL_ERROR, overrun),
    "a short PRIORITY": (FRAME_SIZE_ERROR, then(lambda s: raw(PRIORITY, 0, s, bytes(4)))),
    "a long PRIORITY": (FRAME_SIZE_ERROR, then(lambda s: raw(PRIORITY, 0, s, bytes(6)))),
    "PRIORITY on itself": (PROTOCOL_ERROR, then(lambda s: PriorityFrame(s, depends_on=s))),
    # Requests that are malformed: pseudo-headers.
    "no :method": (PROTOCOL_ERROR, request(*without(":method"))),
    "no :scheme": (PROTOCOL_ERROR, request(*without(":scheme"))),
    "no :path": (PROTOCOL_ERROR, request(*without(":path"))),
    "an empty :path": (PROTOCOL_ERROR, request(*without(":path")[:2], (":path", ""))),
    ":method twice": (PROTOCOL_ERROR, request((":method", "POST"), *request_fields(SET))),
    ":scheme twice": (PROTOCOL_ERROR, request((":scheme", "http"), *request_fields(SET))),
    ":path twice": (PROTOCOL_ERROR, request((":path", SET), *request_fields(SET))),
    ":authority twice": (PROTOCOL_ERROR, request((":authority", "test"), *request_fields(SET))),
    ":status": (PROTOCOL_ERROR, request((":status", "200"), *request_fields(SET))),
    ":protocol": (PROTOCOL_ERROR, request((":protocol", "websocket"), *request_fields(SET))),
    ":unknown": (PROTOCOL_ERROR, request((":unknown", "x"), *request_fields(SET))),
    ":path after another header": (PROTOCOL_ERROR, request(*without(":path"), (":path", SET))),
    "no headers at all": (PROTOCOL_ERROR, request()),
    "CONNECT": (PROTOCOL_ERROR, request((":method", "CONNECT"), (":authority", "test"))),
    "a line's end in :path": (PROTOCOL_ERROR, request(*without(":path")[:2], (":path", "/a\r\nb"))),
    # Other headers.
    "connection": (PROTOCOL_ERROR, request(*request_fields(SET, ("connection", "close")))),
    "keep-alive": (PROTOCOL_ERROR, request(*request_fields(SET, ("keep-alive", "1")))),
    "proxy-connection": (PROTOCOL_ERROR, request(*request_fields(SET, ("proxy-connection", "close")))),
    "transfer-encoding": (PROTOCOL_ERROR, request(*request_fields(SET, ("transfer-encoding", "chunked")))),
    "upgrade": (PROTOCOL_ERROR, request(*request_fields(SET, ("upgrade", "h2c")))),
    "te of gzip": (PROTOCOL_ERROR, request(*request_fields(SET, ("te", "trailers, gzip")))),
    "a name with a capital": (PROTOCOL_ERROR, literally((b"X", b"y"))),
    "a name with a space": (PROTOCOL_ERROR, literally((b"x y", b"z"))),
    "a name with a colon": (PROTOCOL_ERROR, literally((b"x:y", b"z"))),
    "a name with a control": (PROTOCOL_ERROR, literally((b"x\x01", b"z"))),
    "a name with a letter past ASCII": (PROTOCOL_ERROR, literally((b"x\xc3\xa9", b"z"))),
    "an empty name": (PROTOCOL_ERROR, literally((b"", b"z"))),
    "a value with NUL": (PROTOCOL_ERROR, literally((b"x", b"y\0"))),
    "a value with CR": (PROTOCOL_ERROR, literally((b"x", b"y\rz"))),
    "a value with LF": (PROTOCOL_ERROR, literally((b"x", b"y\n"))),
    # Trailers.
    "trailers with a pseudo-header": (PROTOCOL_ERROR, second_headers((":path", "/"))),
    "trailers of a connection": (PROTOCOL_ERROR, second_headers(("connection", "close"))),
    # A content-length that is not the body's.
    "content-length of no number": (PROTOCOL_ERROR, with_length("x")),
    "content-length below 0": (PROTOCOL_ERROR, with_length("-1", GOOD)),
    "two content-lengths": (PROTOCOL_ERROR, literally((b"content-length", b"1"), (b"content-length", b"2"))),
    "content-length without a body": (PROTOCOL_ERROR, with_length("1")),
    "content-length too small": (PROTOCOL_ERROR, with_length(str(len(GOOD) - 1), GOOD)),
    "content-length too large": (PROTOCOL_ERROR, with_length(str(len(GOOD) + 1), GOOD)),
    "content-length of 0": (PROTOCOL_ERROR, with_length("0", GOOD)),
    "content-length below two frames'": (PROTOCOL_ERROR, with_length("7", GOOD[:5], GOOD[5:])),
    "content-length above two frames'": (PROTOCOL_ERROR, with_length("99", GOOD[:5], GOOD[5:])),
    "content-length above what trailers end": (PROTOCOL_ERROR, with_length("99", GOOD, trailers=True)),
}
