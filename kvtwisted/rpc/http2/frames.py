"""HTTP/2 frames: their numbers, and the bytes of those that the server sends (RFC 9113, sections 4, 6 and 7)."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Types.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

# Flags; ACK and END_STREAM share a bit.
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

# Settings.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)  # fmt: skip

#: Bytes in front of each frame.
FRAME_HEADER = 9
#: What both sides start with, until settings say otherwise.
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_SIZE = 16_384
LARGEST_FRAME_SIZE = (1 << 24) - 1
LARGEST_WINDOW = (1 << 31) - 1
#: Of the dynamic table of header blocks.
DEFAULT_TABLE_BYTES = 4096
#: A stream identifier without the reserved bit in front of it.
STREAM_BITS = 0x7FFF_FFFF

# Length and type share the first four bytes.
_HEADER = struct.Struct(">IBI")
_SETTING = struct.Struct(">HI")
_TWO_WORDS = struct.Struct(">II")
_WORD = struct.Struct(">I")

read_header = _HEADER.unpack_from
read_word = _WORD.unpack_from
#: A frame's header, and the prefix of gRPC's message behind it: whether that is compressed, and its length.
read_call = struct.Struct(">IBIBI").unpack_from
read_settings = _SETTING.iter_unpack


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (RFC 9113, section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class Fault(Exception):
    """The peer broke the protocol: the code to say so with, and a sentence."""

    def __init__(self, code: ErrorCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class ConnectionFault(Fault):
    """It ends its connection; the sentence is for its GOAWAY."""


class StreamFault(Fault):
    """It ends one stream, by RST_STREAM; the sentence is for whoever reads the trace."""


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Any frame."""
    return _HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def frame_header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The nine bytes in front of a payload of `length` bytes."""
    return _HEADER.pack(length << 8 | kind, flags, stream_id)


def settings(values: dict[int, int]) -> bytes:
    """SETTINGS with these values."""
    return frame(SETTINGS, 0, 0, b"".join([_SETTING.pack(name, value) for name, value in values.items()]))


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, _WORD.pack(increment))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, stream_id, _WORD.pack(code))


def goaway(last_stream_id: int, code: ErrorCode, sentence: str = "") -> bytes:
    """GOAWAY; the sentence is for people who look at what was sent."""
    return frame(GOAWAY, 0, 0, _TWO_WORDS.pack(last_stream_id, code) + sentence.encode())


def unpadded(payload: bytes) -> bytes:
    """What is within the padding of a DATA or HEADERS frame that has the PADDED flag."""
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame's padding is longer than the frame")
    return payload[1 : len(payload) - payload[0]]
