"""Calls as a client sends them, in any of the ways that HTTP/2 and gRPC allow."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass

from hpack import Encoder

from tests.support.transports import cut

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x4, 0x8, 0x20


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Any frame, with a `length` of its own if it is to lie."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream_id) + payload


def settings(*values: tuple[int, int]) -> bytes:
    """SETTINGS."""
    return frame(SETTINGS, 0, 0, b"".join([struct.pack(">HI", *value) for value in values]))


def window_update(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


@dataclass(frozen=True)
class Request:
    """One call, and the way its bytes take."""

    path: str
    messages: tuple[bytes, ...]
    gzip: bool = False
    #: Sizes of its DATA frames, over and over; none: as large as they may be.
    pieces: tuple[int, ...] = ()
    #: Bytes of padding of each DATA and HEADERS frame; None: not padded.
    padding: int | None = None
    priority: bool = False
    #: Sizes of the parts of its header block.
    blocks: tuple[int, ...] = ()
    #: What ends it: "data", an "empty" frame, "trailers", or "nothing".
    end: str = "data"
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> bytes:
        """All its DATA."""
        encoded = [gzip.compress(message, 1, mtime=0) if self.gzip else message for message in self.messages]
        return b"".join([struct.pack(">BI", self.gzip, len(message)) + message for message in encoded])

    def frames(self, stream_id: int, encoder: Encoder) -> list[bytes]:
        """What is sent, HEADERS with all CONTINUATION first."""
        most = 16_384 - (1 + self.padding if self.padding is not None else 0)
        pieces = tuple(min(piece, most) for piece in self.pieces)
        # Not too many small ones, which the server takes for a flood.
        data = [part for piece in cut(self.body, pieces, 30) for part in cut(piece, (most,))]
        if self.end == "empty" or (self.end == "data" and not data):
            data.append(b"")
        sent = [self._headers(stream_id, encoder, last=not data and self.end == "data")]
        for number, piece in enumerate(data):
            last = number == len(data) - 1 and self.end in ("data", "empty")
            sent.append(self._padded(DATA, END_STREAM if last else 0, stream_id, piece))
        if self.end == "trailers":
            # In no table, because other blocks may have been encoded when it is sent.
            sent.append(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, b"\x00\x06x-last\x01y"))
        return sent

    def _headers(self, stream_id: int, encoder: Encoder, *, last: bool) -> bytes:
        fields = [
            (":method", "POST"), (":scheme", "http"), (":path", self.path), (":authority", "test"),
            ("content-type", "application/grpc"), ("te", "trailers"),
        ]  # fmt: skip
        if self.gzip:
            fields.append(("grpc-encoding", "gzip"))
        given = dict(self.fields)
        block = encoder.encode([(name, given.pop(name, value)) for name, value in fields] + list(given.items()))
        parts = list(cut(block, self.blocks, 20))
        flags = (END_STREAM if last else 0) | (END_HEADERS if len(parts) == 1 else 0)
        first = parts[0]
        if self.priority:
            first = struct.pack(">IB", 0, 15) + first
            flags |= HAS_PRIORITY
        sent = self._padded(HEADERS, flags, stream_id, first)
        for number, part in enumerate(parts[1:], 2):
            sent += frame(CONTINUATION, END_HEADERS if number == len(parts) else 0, stream_id, part)
        return sent

    def _padded(self, kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
        if self.padding is None:
            return frame(kind, flags, stream_id, payload)
        return frame(kind, flags | PADDED, stream_id, bytes((self.padding,)) + payload + bytes(self.padding))
