"""What ends a connection: the code to hear in GOAWAY, and what to send."""

from __future__ import annotations

import struct

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from ..peer import PREFACE, Peer, Sendable, raw, request_fields
from .deeds import (
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    LARGEST_WINDOW,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    RST_STREAM,
    SET,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW,
    WINDOW_UPDATE,
    Deed,
    closed,
    opened,
)


def header_block(block: bytes, flags: int = END_STREAM | END_HEADERS) -> Deed:
    """HEADERS of a new stream with a block as it is."""
    return lambda peer: [raw(HEADERS, flags, peer.next_stream(), block)]


def on_new_stream(kind: int, flags: int, payload: bytes) -> Deed:
    """A frame of a stream that was never opened."""
    return lambda peer: [raw(kind, flags, 99, payload)]


def within_headers(*between: Frame) -> Deed:
    """Frames in the middle of a header block."""

    def deed(peer: Peer) -> list[Sendable]:
        return [peer.headers(peer.next_stream(), request_fields(SET), end_headers=False), *between]

    return deed


def initial_window_too_large(peer: Peer) -> list[Sendable]:
    """The stream's window grew by WINDOW_UPDATE before all windows grow by SETTINGS."""
    stream_id = opened(peer)
    return [WindowUpdateFrame(stream_id, LARGEST_WINDOW - WINDOW), SettingsFrame(settings={4: WINDOW + 1})]


def lower_stream(peer: Peer) -> list[Sendable]:
    """A stream is opened whose number is below that of another."""
    peer.next_stream(), closed(peer)
    return [peer.headers(1, request_fields(SET))]


def after_headers(kind: int, flags: int, payload: bytes) -> Deed:
    """A frame of a stream that is open."""
    return lambda peer: [raw(kind, flags, opened(peer), payload)]


def endless_block(peer: Peer) -> list[Sendable]:
    """A header block goes on for longer than any list may be."""
    stream_id = peer.next_stream()
    pieces: list[Sendable] = [ContinuationFrame(stream_id, bytes(16_384)) for _ in range(2)]
    return [HeadersFrame(stream_id, b"\x82"), *pieces]


def bomb(peer: Peer) -> list[Sendable]:
    """A small block refers to a large entry of the table many times."""
    block = b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 100
    return [HeadersFrame(peer.next_stream(), block, flags=["END_HEADERS", "END_STREAM"])]


PRIORITY_ON_ITSELF = struct.pack(">IB", 99, 15)
REQUEST = Encoder().encode(request_fields(SET))

ENDS_THE_CONNECTION: dict[str, tuple[int, Deed]] = {
    # Frames where they do not belong.
    "DATA of stream 0": (PROTOCOL_ERROR, lambda peer: [raw(DATA, 0, 0, b"data")]),
    "HEADERS of stream 0": (PROTOCOL_ERROR, lambda peer: [raw(HEADERS, END_HEADERS, 0, REQUEST)]),
    "PRIORITY of stream 0": (PROTOCOL_ERROR, lambda peer: [raw(PRIORITY, 0, 0, bytes(5))]),
    "RST_STREAM of stream 0": (PROTOCOL_ERROR, lambda peer: [raw(RST_STREAM, 0, 0, bytes(4))]),
    "SETTINGS of a stream": (PROTOCOL_ERROR, lambda peer: [raw(SETTINGS, 0, 1)]),
    "SETTINGS acknowledged on a stream": (PROTOCOL_ERROR, lambda peer: [raw(SETTINGS, 1, 1)]),
    "PUSH_PROMISE": (PROTOCOL_ERROR, lambda peer: [PushPromiseFrame(opened(peer), 2, b"\x82", flags=["END_HEADERS"])]),
    "PING of a stream": (PROTOCOL_ERROR, lambda peer: [raw(PING, 0, 1, bytes(8))]),
    "GOAWAY of a stream": (PROTOCOL_ERROR, lambda peer: [raw(GOAWAY, 0, 1, bytes(8))]),
    "CONTINUATION of stream 0": (PROTOCOL_ERROR, lambda peer: [raw(CONTINUATION, END_HEADERS, 0)]),
    "CONTINUATION of nothing": (PROTOCOL_ERROR, lambda peer: [raw(CONTINUATION, END_HEADERS, 1)]),
    "CONTINUATION after the end": (PROTOCOL_ERROR, after_headers(CONTINUATION, END_HEADERS, b"\x82")),
    "CONTINUATION after DATA": (
        PROTOCOL_ERROR,
        lambda peer: [DataFrame(stream := opened(peer), b"\0"), raw(CONTINUATION, END_HEADERS, stream)],
    ),
    # Streams that were never opened.
    "DATA when idle": (PROTOCOL_ERROR, on_new_stream(DATA, END_STREAM, b"data")),
    "RST_STREAM when idle": (PROTOCOL_ERROR, on_new_stream(RST_STREAM, 0, bytes(4))),
    "WINDOW_UPDATE when idle": (PROTOCOL_ERROR, on_new_stream(WINDOW_UPDATE, 0, b"\0\0\0\1")),
    "WINDOW_UPDATE by 0 when idle": (PROTOCOL_ERROR, on_new_stream(WINDOW_UPDATE, 0, bytes(4))),
    "a short PRIORITY when idle": (FRAME_SIZE_ERROR, on_new_stream(PRIORITY, 0, bytes(4))),
    "PRIORITY on itself when idle": (PROTOCOL_ERROR, on_new_stream(PRIORITY, 0, PRIORITY_ON_ITSELF)),
    "DATA of a server's stream": (PROTOCOL_ERROR, lambda peer: [raw(DATA, 0, closed(peer) + 1, b"data")]),
    "RST_STREAM of a server's stream": (PROTOCOL_ERROR, lambda peer: [RstStreamFrame(closed(peer) + 1)]),
    "WINDOW_UPDATE of a server's stream": (PROTOCOL_ERROR, lambda peer: [WindowUpdateFrame(closed(peer) + 1, 1)]),
    "HEADERS of a server's stream": (PROTOCOL_ERROR, lambda peer: [peer.headers(2, request_fields(SET))]),
    "HEADERS of a lower stream": (STREAM_CLOSED, lower_stream),
    "HEADERS of a closed stream": (STREAM_CLOSED, lambda peer: [peer.headers(closed(peer), request_fields(SET))]),
    # Sizes.
    "a short WINDOW_UPDATE": (FRAME_SIZE_ERROR, lambda peer: [raw(WINDOW_UPDATE, 0, 0, bytes(3))]),
    "a long WINDOW_UPDATE": (FRAME_SIZE_ERROR, lambda peer: [raw(WINDOW_UPDATE, 0, 0, bytes(5))]),
    "a short WINDOW_UPDATE of a stream": (FRAME_SIZE_ERROR, after_headers(WINDOW_UPDATE, 0, bytes(3))),
    "a short RST_STREAM": (FRAME_SIZE_ERROR, after_headers(RST_STREAM, 0, bytes(3))),
    "a long RST_STREAM": (FRAME_SIZE_ERROR, after_headers(RST_STREAM, 0, bytes(5))),
    "a short PING": (FRAME_SIZE_ERROR, lambda peer: [raw(PING, 0, 0, bytes(7))]),
    "a long PING": (FRAME_SIZE_ERROR, lambda peer: [raw(PING, 0, 0, bytes(9))]),
    "a short GOAWAY": (FRAME_SIZE_ERROR, lambda peer: [raw(GOAWAY, 0, 0, bytes(7))]),
    "half a setting": (FRAME_SIZE_ERROR, lambda peer: [raw(SETTINGS, 0, 0, bytes(5))]),
    "one and a half settings": (FRAME_SIZE_ERROR, lambda peer: [raw(SETTINGS, 0, 0, bytes(9))]),
    "SETTINGS acknowledged with settings": (FRAME_SIZE_ERROR, lambda peer: [raw(SETTINGS, 1, 0, bytes(6))]),
    "HEADERS with half a priority": (FRAME_SIZE_ERROR, on_new_stream(HEADERS, END_HEADERS | HAS_PRIORITY, bytes(4))),
    "DATA over the largest frame": (FRAME_SIZE_ERROR, after_headers(DATA, 0, bytes(16_385))),
    "HEADERS over the largest frame": (FRAME_SIZE_ERROR, header_block(bytes(16_385))),
    "CONTINUATION over the largest frame": (FRAME_SIZE_ERROR, within_headers(raw(CONTINUATION, 0, 1, bytes(16_385)))),
    "SETTINGS over the largest frame": (FRAME_SIZE_ERROR, lambda peer: [raw(SETTINGS, 0, 0, bytes(16_386))]),
    "an unknown frame over the largest": (FRAME_SIZE_ERROR, lambda peer: [raw(0xFA, 0, 0, bytes(16_385))]),
    "the header of an endless frame": (FRAME_SIZE_ERROR, lambda peer: [b"\xff\xff\xff" + bytes(6)]),
    # Padding.
    "DATA padded by its whole length": (PROTOCOL_ERROR, after_headers(DATA, PADDED, b"\x04data"[:4])),
    "DATA padded by more than there is": (PROTOCOL_ERROR, after_headers(DATA, PADDED, b"\xffdata")),
    "padded DATA without a length": (PROTOCOL_ERROR, after_headers(DATA, PADDED, b"")),
    "HEADERS padded by more than there is": (PROTOCOL_ERROR, header_block(b"\xff" + REQUEST, PADDED | END_HEADERS)),
    "padded HEADERS without a length": (PROTOCOL_ERROR, header_block(b"", PADDED | END_HEADERS)),
    "HEADERS with padding in their priority": (
        FRAME_SIZE_ERROR,
        header_block(b"\x04" + bytes(8), PADDED | HAS_PRIORITY | END_HEADERS),
    ),
    # Header blocks that are not continued.
    "DATA in a header block": (PROTOCOL_ERROR, within_headers(DataFrame(1, b"data"))),
    "HEADERS in a header block": (PROTOCOL_ERROR, within_headers(HeadersFrame(3, REQUEST, flags=["END_HEADERS"]))),
    "HEADERS of the same stream in a header block": (PROTOCOL_ERROR, within_headers(HeadersFrame(1, REQUEST))),
    "PRIORITY in a header block": (PROTOCOL_ERROR, within_headers(PriorityFrame(1))),
    "RST_STREAM in a header block": (PROTOCOL_ERROR, within_headers(RstStreamFrame(1))),
    "SETTINGS in a header block": (PROTOCOL_ERROR, within_headers(SettingsFrame())),
    "PING in a header block": (PROTOCOL_ERROR, within_headers(PingFrame(opaque_data=bytes(8)))),
    "WINDOW_UPDATE in a header block": (PROTOCOL_ERROR, within_headers(WindowUpdateFrame(0, 1))),
    "an unknown frame in a header block": (PROTOCOL_ERROR, within_headers(raw(0xFA, 0, 1))),
    "CONTINUATION of another stream": (PROTOCOL_ERROR, within_headers(ContinuationFrame(3, flags=["END_HEADERS"]))),
    # Settings and windows.
    "ENABLE_PUSH of 2": (PROTOCOL_ERROR, lambda peer: [SettingsFrame(settings={2: 2})]),
    "INITIAL_WINDOW_SIZE of 2^31": (FLOW_CONTROL_ERROR, lambda peer: [SettingsFrame(settings={4: 1 << 31})]),
    "MAX_FRAME_SIZE below 2^14": (PROTOCOL_ERROR, lambda peer: [SettingsFrame(settings={5: 16_383})]),
    "MAX_FRAME_SIZE of 2^24": (PROTOCOL_ERROR, lambda peer: [SettingsFrame(settings={5: 1 << 24})]),
    "a bad setting after a good one": (PROTOCOL_ERROR, lambda peer: [SettingsFrame(settings={4: 1, 2: 3})]),
    "WINDOW_UPDATE by 0": (PROTOCOL_ERROR, lambda peer: [raw(WINDOW_UPDATE, 0, 0, bytes(4))]),
    "WINDOW_UPDATE by 0 and the reserved bit": (
        PROTOCOL_ERROR,
        lambda peer: [raw(WINDOW_UPDATE, 0, 0, b"\x80\0\0\0")],
    ),
    "the connection's window over 2^31-1": (FLOW_CONTROL_ERROR, lambda peer: [WindowUpdateFrame(0, LARGEST_WINDOW)]),
    "the connection's window over 2^31-1 in two steps": (
        FLOW_CONTROL_ERROR,
        lambda peer: [WindowUpdateFrame(0, LARGEST_WINDOW - WINDOW), WindowUpdateFrame(0, 1)],
    ),
    "a stream's window over 2^31-1 by SETTINGS": (FLOW_CONTROL_ERROR, initial_window_too_large),
    # Header blocks that cannot be decoded.
    "HPACK: index 0": (COMPRESSION_ERROR, header_block(b"\x80")),
    "HPACK: an index past the tables": (COMPRESSION_ERROR, header_block(b"\xbe")),
    "HPACK: a name's index past the tables": (COMPRESSION_ERROR, header_block(b"\x7f\x20\x01x")),
    "HPACK: an integer without its end": (COMPRESSION_ERROR, header_block(b"\xff\x80")),
    "HPACK: an integer without bounds": (COMPRESSION_ERROR, header_block(b"\xff" + b"\xff" * 50 + b"\x7f")),
    "HPACK: a string without its end": (COMPRESSION_ERROR, header_block(b"\x00\x05ab")),
    "HPACK: a literal without a value": (COMPRESSION_ERROR, header_block(b"\x00\x01x")),
    "HPACK: Huffman padding with a 0 bit": (COMPRESSION_ERROR, header_block(b"\x00\x81\x00\x01x")),
    "HPACK: Huffman padding over 7 bits": (COMPRESSION_ERROR, header_block(b"\x00\x82\xf3\xff\x01x")),
    "HPACK: Huffman's end of string": (COMPRESSION_ERROR, header_block(b"\x00\x84\xff\xff\xff\xff\x01x")),
    "HPACK: a table over the limit": (COMPRESSION_ERROR, header_block(b"\x3f\xe2\x1f" + REQUEST)),
    "HPACK: a table's size at the end": (COMPRESSION_ERROR, header_block(REQUEST + b"\x20")),
    "HPACK: a table's size in the middle": (COMPRESSION_ERROR, header_block(b"\x82\x20\x87")),
    "HPACK: an entry that a size of 0 evicted": (COMPRESSION_ERROR, header_block(b"\x40\x01x\x01y\x20\xbe")),
    "HPACK: in trailers": (COMPRESSION_ERROR, after_headers(HEADERS, END_STREAM | END_HEADERS, b"\x80")),
    "HPACK: cut in two by CONTINUATION": (
        COMPRESSION_ERROR,
        lambda peer: [HeadersFrame(1, b"\x00\x05a"), ContinuationFrame(1, b"b", flags=["END_HEADERS"])],
    ),
    # Header lists that are too long.
    "a header block that does not end": (ENHANCE_YOUR_CALM, endless_block),
    "a header block that grows": (ENHANCE_YOUR_CALM, bomb),
}


BEGINNINGS: dict[str, bytes] = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
    "a preface with a mistake": PREFACE[:-1] + b"x",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no SETTINGS": PREFACE + PingFrame(opaque_data=bytes(8)).serialize(),
    "a call before SETTINGS": PREFACE + HeadersFrame(1, REQUEST, flags=["END_HEADERS"]).serialize(),
    "an unknown frame before SETTINGS": PREFACE + raw(0xFA, 0, 0).serialize(),
    "a call after an acknowledgement alone": PREFACE
    + SettingsFrame(flags=["ACK"]).serialize()
    + HeadersFrame(1, REQUEST, flags=["END_HEADERS"]).serialize(),
}
