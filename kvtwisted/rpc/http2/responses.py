"""gRPC's answers as frames: headers, messages, and the status at the end.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. Header blocks are constant: what is in no table
means the same on every connection at any time. So the server's own dynamic table is empty, and nothing changes when a
peer allows it less; but where it does, HPACK wants to hear so (`with_size_update`).
"""

from __future__ import annotations

import struct
from typing import Callable

from .frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    HEADERS,
    frame,
    frame_header,
    read_header,
)
from .header_blocks import Headers, encode, list_bytes

#: Bytes in front of each message: whether it is compressed, and its length.
MESSAGE_PREFIX = struct.Struct(">BI")

# ":status: 200" is number 8 of HPACK's static table, "content-type" 31 (by name, the value spelt out).
_OK_BLOCK = b"\x88" + b"\x0f\x10\x10application/grpc"
_LAST = END_HEADERS | END_STREAM
GOOD = encode([(b"grpc-status", b"0")])
#: The size that a peer counts for the headers that begin an answer, and for one header beside its text.
_OK_LIST_BYTES = list_bytes([(b":status", b"200"), (b"content-type", b"application/grpc")])
_OVERHEAD = 32
#: "The dynamic table has no bytes" (RFC 7541, section 6.3).
_NO_TABLE = b"\x20"
#: The part of a frame's header that does not depend on the stream.
OK_START = frame_header(HEADERS, END_HEADERS, 0, len(_OK_BLOCK))[:5]
GOOD_START = frame_header(HEADERS, _LAST, 0, len(GOOD))[:5]

#: Letters that a status sentence has as they are; all others are percent-encoded.
_PLAIN = frozenset(range(0x20, 0x7F)) - {ord("%")}
_LONGEST_SENTENCE = 1024

_packers: dict[int, Callable[..., bytes]] = {}


def ok_headers(stream_id: int) -> bytes:
    """The frame that begins an answer."""
    return OK_START + stream_id.to_bytes(4, "big") + _OK_BLOCK


def ok_trailers(stream_id: int) -> bytes:
    """The frame that ends an answer well."""
    return GOOD_START + stream_id.to_bytes(4, "big") + GOOD


def whole_answer(stream_id: int, message: bytes) -> bytes:
    """All frames of a good answer; `message` must fit into one frame of DATA."""
    length = len(message)
    pack = _packers.get(length)
    if pack is None:
        pack = _packer(length)
    # Five tenths of a microsecond less than joining ten strings.
    return pack(
        OK_START, stream_id, _OK_BLOCK, length + MESSAGE_PREFIX.size << 8, 0, stream_id, 0, length, message,
        GOOD_START, stream_id, GOOD,
    )  # fmt: skip


def _packer(length: int) -> Callable[..., bytes]:
    if len(_packers) >= 4096:
        _packers.clear()
    layout = struct.Struct(f">5sI{len(_OK_BLOCK)}sIBIBI{length}s5sI{len(GOOD)}s")
    return _packers.setdefault(length, layout.pack)


def around(length: int) -> tuple[bytes, bytes]:
    """What stands around the stream's number in a good answer with a message of so many bytes, up to the message.

    The first follows OK_START and the number, the second comes after the number once more. Behind the message there are
    GOOD_START, the number, and GOOD.
    """
    return _OK_BLOCK + frame_header(DATA, 0, 0, length + MESSAGE_PREFIX.size)[:5], MESSAGE_PREFIX.pack(0, length)


class ConstantAnswer:
    """A good answer that is always the same, made ready: `pieces`, joined by the stream's number, are its frames."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        #: Bytes of DATA.
        self.size = len(message) + MESSAGE_PREFIX.size
        between, prefix = around(len(message))
        self.pieces = (OK_START, between, prefix + message + GOOD_START, GOOD)


def status_frame(stream_id: int, code: int, sentence: str, *, first: bool, more: Headers, limit: int) -> bytes:
    """The frame that ends a call with a status; `first` if nothing was sent before it.

    The sentence is cut where the list would have more than `limit` bytes, which the peer says it can take.
    """
    headers: Headers = [(b"grpc-status", b"%d" % code), *more]
    room = limit - list_bytes(headers) - len(b"grpc-message") - _OVERHEAD - (_OK_LIST_BYTES if first else 0)
    if sentence and room > 0:
        # A percent sign and two digits are not parted.
        text = percent_encoded(sentence)[:room]
        cut = text.rfind(b"%", -2)
        headers.insert(1, (b"grpc-message", text if cut < 0 or len(text) < room else text[:cut]))
    return frame(HEADERS, _LAST, stream_id, (_OK_BLOCK if first else b"") + encode(headers))


def with_size_update(frames: bytes) -> bytes | None:
    """Whole frames, the first header block of which says that the server's table is empty; None if there is no block.

    A peer that lowers SETTINGS_HEADER_TABLE_SIZE waits for that at the beginning of the next block (RFC 7541, section
    4.2), whether or not the table was ever used.
    """
    position = 0
    while position < len(frames):
        word, flags, stream_id = read_header(frames, position)
        start = position + FRAME_HEADER
        if word & 0xFF == HEADERS:
            changed = frame_header(HEADERS, flags, stream_id, (word >> 8) + len(_NO_TABLE)) + _NO_TABLE
            return frames[:position] + changed + frames[start:]
        position = start + (word >> 8)
    return None


def percent_encoded(sentence: str) -> bytes:
    """A status sentence as gRPC sends it: UTF-8, percent-encoded but for printable ASCII."""
    text = sentence.encode("utf-8", "replace")[:_LONGEST_SENTENCE].decode("utf-8", "ignore").encode()
    return b"".join([bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte for byte in text])


def plain_headers(stream_id: int, status: int, length: int, more: Headers) -> bytes:
    """The frame that begins an answer to what is HTTP, but not gRPC."""
    headers: Headers = [
        (b":status", b"%d" % status),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % length),
    ]
    return frame(HEADERS, END_HEADERS, stream_id, encode(headers + more))


#: Bytes of DATA that every peer takes in one frame; larger answers are cut up.
SMALLEST_FRAME = 16_384
assert len(OK_START) + 4 == FRAME_HEADER  # noqa: S101 - what `_packer` builds on
