"""What a peer may do: frames that change nothing, and one call in all ways in which it can be cut."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from ..peer import Peer, raw, request_fields
from .deeds import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOOD,
    HEADERS,
    LARGEST_WINDOW,
    PING,
    SET,
    SETTINGS,
    WINDOW,
    WINDOW_UPDATE,
    Deed,
    Rest,
    body,
    closed,
    opened,
    reset_by_peer,
    watching,
)

CHANGES_NOTHING: dict[str, Deed] = {
    "an unknown frame": lambda peer: [raw(0xFA, 0xFF, 0, b"data")],
    "an unknown frame of an idle stream": lambda peer: [raw(0xFA, 0xFF, 99, b"data")],
    "an unknown frame of a closed stream": lambda peer: [raw(0xFA, 0, closed(peer), b"data")],
    "unknown settings": lambda peer: [SettingsFrame(settings={0: 1, 9: 2, 0xFFFF: 0xFFFFFFFF})],
    "a setting twice": lambda peer: [raw(SETTINGS, 0, 0, struct.pack(">HIHI", 4, 0, 4, WINDOW))],
    "all settings": lambda peer: [
        SettingsFrame(settings={1: 0, 2: 0, 3: 0, 4: LARGEST_WINDOW, 5: (1 << 24) - 1, 6: 1})
    ],
    "unknown flags of SETTINGS": lambda peer: [raw(SETTINGS, 0xFE, 0)],
    "SETTINGS acknowledged unasked": lambda peer: [SettingsFrame(flags=["ACK"])] * 3,
    "PING answered unasked": lambda peer: [PingFrame(opaque_data=b"whatever", flags=["ACK"])],
    "unknown flags of PING": lambda peer: [raw(PING, 0xFE, 0, bytes(8))],
    "PRIORITY of an idle stream": lambda peer: [PriorityFrame(99, depends_on=97, stream_weight=255, exclusive=True)],
    "PRIORITY of an open stream": lambda peer: [PriorityFrame(opened(peer), depends_on=0)],
    "PRIORITY of a closed stream": lambda peer: [PriorityFrame(closed(peer), depends_on=0)],
    "PRIORITY of a half-closed stream": lambda peer: [PriorityFrame(watching(peer), depends_on=0)],
    "GOAWAY": lambda peer: [GoAwayFrame(last_stream_id=0, error_code=0, additional_data=b"bye")],
    "GOAWAY with an unknown code": lambda peer: [GoAwayFrame(last_stream_id=0, error_code=0xFFFF)],
    "RST_STREAM of a closed stream": lambda peer: [RstStreamFrame(closed(peer), CANCEL)],
    "RST_STREAM twice": lambda peer: [RstStreamFrame(reset_by_peer(peer), CANCEL)],
    "RST_STREAM with an unknown code": lambda peer: [RstStreamFrame(opened(peer), 0xFFFF)],
    "RST_STREAM of a half-closed stream": lambda peer: [RstStreamFrame(watching(peer), CANCEL)],
    "WINDOW_UPDATE of a closed stream": lambda peer: [WindowUpdateFrame(closed(peer), 1)],
    "WINDOW_UPDATE of a half-closed stream": lambda peer: [WindowUpdateFrame(watching(peer), 1)],
    "WINDOW_UPDATE with the reserved bit": lambda peer: [raw(WINDOW_UPDATE, 0, 0, b"\x80\0\0\1")],
    "the largest window": lambda peer: [WindowUpdateFrame(0, LARGEST_WINDOW - WINDOW)],
    "a PING with the reserved bit": lambda peer: [b"\0\0\x08\x06\0\x80\0\0\0" + bytes(8)],
    "the largest frame": lambda peer: [raw(0xFA, 0, 0, bytes(16_384))],
}


def in_pieces(peer: Peer, stream_id: int, sizes: Iterable[int] = (1,) * 400) -> list[Frame]:
    """HEADERS of a Set cut into CONTINUATION frames of these sizes."""
    block, pieces = peer.encoder.encode(request_fields(SET)), []
    for size in sizes:
        pieces.append(block[:size])
        block = block[size:]
        if not block:
            break
    frames: list[Frame] = [HeadersFrame(stream_id, pieces[0])]
    frames += [ContinuationFrame(stream_id, piece) for piece in [*pieces[1:], block]]
    frames[-1].flags.add("END_HEADERS")
    return frames


def block_of(peer: Peer, *more: tuple[str, str]) -> bytes:
    """The header block of a Set."""
    block: bytes = peer.encoder.encode(request_fields(SET, *more))
    return block


CALLS: dict[str, Rest] = {
    "as usual": lambda peer, s: [peer.headers(s, request_fields(SET)), body(s)],
    "CONTINUATION of one byte each": lambda peer, s: [*in_pieces(peer, s), body(s)],
    "an empty HEADERS": lambda peer, s: [*in_pieces(peer, s, (0, 5)), body(s)],
    "empty CONTINUATION": lambda peer, s: [*in_pieces(peer, s, (5, 0, 0, 0)), body(s)],
    "padded HEADERS": lambda peer, s: [
        HeadersFrame(s, block_of(peer), pad_length=255, flags=["PADDED", "END_HEADERS"]),
        body(s),
    ],
    "HEADERS padded by nothing": lambda peer, s: [
        HeadersFrame(s, block_of(peer), pad_length=0, flags=["PADDED", "END_HEADERS"]),
        body(s),
    ],
    "HEADERS with a priority": lambda peer, s: [
        HeadersFrame(s, block_of(peer), depends_on=97, stream_weight=9, flags=["PRIORITY", "END_HEADERS"]),
        body(s),
    ],
    "HEADERS with padding and a priority": lambda peer, s: [
        HeadersFrame(s, block_of(peer), depends_on=0, pad_length=7, flags=["PADDED", "PRIORITY", "END_HEADERS"]),
        body(s),
    ],
    "HEADERS with unknown flags": lambda peer, s: [raw(HEADERS, END_HEADERS | 0xD2, s, block_of(peer)), body(s)],
    "HEADERS with the reserved bit": lambda peer, s: [
        with_reserved_bit(HeadersFrame(s, block_of(peer), flags=["END_HEADERS"])),
        with_reserved_bit(body(s)),
    ],
    "padded DATA": lambda peer, s: [
        peer.headers(s, request_fields(SET)),
        DataFrame(s, GOOD, pad_length=255, flags=["PADDED", "END_STREAM"]),
    ],
    "DATA with unknown flags": lambda peer, s: [
        peer.headers(s, request_fields(SET)),
        raw(DATA, END_STREAM | 0xF6, s, GOOD),
    ],
    "DATA of one byte each": lambda peer, s: [
        peer.headers(s, request_fields(SET)),
        *(DataFrame(s, GOOD[i : i + 1]) for i in range(len(GOOD))),
        DataFrame(s, b"", flags=["END_STREAM"]),
    ],
    "empty DATA": lambda peer, s: [peer.headers(s, request_fields(SET)), DataFrame(s), DataFrame(s), body(s)],
    "DATA that is padding alone": lambda peer, s: [
        peer.headers(s, request_fields(SET)),
        DataFrame(s, b"", pad_length=99, flags=["PADDED"]),
        body(s),
    ],
    "trailers": lambda peer, s: [
        peer.headers(s, request_fields(SET)),
        DataFrame(s, GOOD),
        peer.headers(s, [("x-checksum", "0"), ("x", "y")], end_stream=True),
    ],
    "trailers in pieces": lambda peer, s: [
        peer.headers(s, request_fields(SET)),
        DataFrame(s, GOOD),
        HeadersFrame(s, b"\x00\x01x", flags=["END_STREAM"]),
        ContinuationFrame(s, b"\x01y", flags=["END_HEADERS"]),
    ],
    "empty trailers": lambda peer, s: [
        peer.headers(s, request_fields(SET)),
        DataFrame(s, GOOD),
        peer.headers(s, [], end_stream=True),
    ],
    "content-length": lambda peer, s: [
        peer.headers(s, request_fields(SET, ("content-length", str(len(GOOD))))),
        body(s),
    ],
    "content-length of two frames": lambda peer, s: [
        peer.headers(s, request_fields(SET, ("content-length", str(len(GOOD))))),
        DataFrame(s, GOOD[:3]),
        DataFrame(s, GOOD[3:], flags=["END_STREAM"]),
    ],
    "content-length and trailers": lambda peer, s: [
        peer.headers(s, request_fields(SET, ("content-length", str(len(GOOD))))),
        DataFrame(s, GOOD),
        peer.headers(s, [("x", "y")], end_stream=True),
    ],
    "content-length and padding": lambda peer, s: [
        peer.headers(s, request_fields(SET, ("content-length", str(len(GOOD))))),
        DataFrame(s, GOOD, pad_length=9, flags=["PADDED", "END_STREAM"]),
    ],
    "headers that are not encoded by Huffman": lambda peer, s: [
        HeadersFrame(s, peer.encoder.encode(request_fields(SET), huffman=False), flags=["END_HEADERS"]),
        body(s),
    ],
    "headers that are never indexed": lambda peer, s: [
        HeadersFrame(s, peer.encoder.encode([(*field, True) for field in request_fields(SET)]), flags=["END_HEADERS"]),
        body(s),
    ],
    "a table of no size": lambda peer, s: [
        HeadersFrame(s, b"\x20" + Encoder().encode(request_fields(SET)), flags=["END_HEADERS"]),
        body(s),
    ],
    "a table of no size and then of the largest": lambda peer, s: [
        HeadersFrame(s, b"\x20\x3f\xe1\x1f" + Encoder().encode(request_fields(SET)), flags=["END_HEADERS"]),
        body(s),
    ],
    "frames of other kinds between": lambda peer, s: [
        peer.headers(s, request_fields(SET)),
        PingFrame(opaque_data=bytes(8)),
        raw(0xFA, 0, s),
        PriorityFrame(s, depends_on=0),
        SettingsFrame(settings={4: 100_000}),
        WindowUpdateFrame(s, 1),
        body(s),
    ],
}


def with_reserved_bit(frame: Frame) -> bytes:
    """The frame with the bit in front of its stream's number."""
    data: bytes = frame.serialize()
    return data[:5] + bytes((data[5] | 0x80,)) + data[6:]
