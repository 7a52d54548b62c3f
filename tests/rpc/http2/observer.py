"""A client's view of one connection: what it allowed the server, and whether what comes back keeps to it.

Everything is told to it at once: what is sent before the server sees it, what the server writes as it is written. So
what the server may do is known exactly, but for settings, which hold the server only once it acknowledges them.
"""

from __future__ import annotations

import struct
from collections import deque

from hpack import Decoder
from hyperframe.frame import (
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STREAM_BITS = 0x7FFF_FFFF
_INITIAL_WINDOW, _MAX_FRAME = 4, 5


class Seen:
    """What the server has sent on one stream."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.blocks = 0
        self.data = b""
        self.ended = False
        self.reset: int | None = None
        #: Bytes of window that the server gave, beyond the first window.
        self.credit = 0

    @property
    def status(self) -> str | None:
        """Its grpc-status."""
        return self.headers.get("grpc-status")

    @property
    def messages(self) -> list[bytes]:
        """The messages in its data, which must be whole."""
        messages, rest = [], self.data
        while rest:
            compressed, length = struct.unpack_from(">BI", rest)
            assert compressed == 0
            assert len(rest) >= 5 + length, "a message is not whole"
            messages.append(rest[5 : 5 + length])
            rest = rest[5 + length :]
        return messages


class Observer:
    """Notes what a client sends, and asserts that what the server writes is HTTP/2 and within what was allowed."""

    def __init__(self) -> None:
        self.streams: dict[int, Seen] = {}
        self.goodbyes: list[GoAwayFrame] = []
        #: Streams whose HEADERS have been sent, whole or not.
        self.opened: set[int] = set()
        self.granted = 65_535
        self.initial_window, self.max_frame = 65_535, 16_384
        self._stream_grants: dict[int, int] = {}
        self._unacknowledged: deque[dict[int, int]] = deque()
        self._pings: deque[bytes] = deque()
        self._sent = b""
        self._preface = False
        self._received = b""
        self._decoder = Decoder()

    # What the client sends.

    def sent(self, data: bytes) -> None:
        """Bytes that the server is about to be given."""
        self._sent += data
        if not self._preface and len(self._sent) >= len(PREFACE):
            self._preface, self._sent = True, self._sent[len(PREFACE) :]
        position = 0
        while self._preface and len(self._sent) - position >= 9:
            length = int.from_bytes(self._sent[position : position + 3], "big")
            if len(self._sent) < position + 9 + length:
                break
            kind, flags, stream_id = struct.unpack_from(">BBI", self._sent, position + 3)
            self._allow(kind, flags, stream_id & _STREAM_BITS, self._sent[position + 9 : position + 9 + length])
            position += 9 + length
        self._sent = self._sent[position:]

    def _allow(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == HeadersFrame.type:
            self.opened.add(stream_id)
        elif kind == SettingsFrame.type and not flags & 1 and not len(payload) % 6:
            self._unacknowledged.append(dict(struct.iter_unpack(">HI", payload)))
        elif kind == PingFrame.type and not flags & 1:
            self._pings.append(payload)
        elif kind == WindowUpdateFrame.type and len(payload) == 4:
            increment = int.from_bytes(payload, "big") & _STREAM_BITS
            if stream_id:
                self._stream_grants[stream_id] = self._stream_grants.get(stream_id, 0) + increment
            else:
                self.granted += increment

    # What the server writes.

    def received(self, data: bytes) -> None:
        """Bytes that the server has written."""
        self._received += data
        while len(self._received) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._received[:9]), strict=True)
            assert length <= self._limit(_MAX_FRAME, self.max_frame), f"a frame of {length} bytes"
            if len(self._received) < 9 + length:
                break
            frame.parse_body(memoryview(self._received[9 : 9 + length]))
            self._received = self._received[9 + length :]
            self._check(frame)

    def settled(self) -> None:
        """Assert that the server has written whole frames, and what has to be answered at once."""
        assert not self._received, "the server has written half a frame"
        assert not self._unacknowledged, "SETTINGS were not acknowledged"
        assert not self._pings, "PING was not answered"

    def _limit(self, name: int, agreed: int) -> int:
        return max([agreed, *(settings[name] for settings in self._unacknowledged if name in settings)])

    def window(self, stream_id: int) -> int:
        """What the server may still send on a stream, at most."""
        seen = self.streams.get(stream_id)
        sent = len(seen.data) if seen is not None else 0
        initial = self._limit(_INITIAL_WINDOW, self.initial_window)
        return initial + self._stream_grants.get(stream_id, 0) - sent

    def _check(self, frame: Frame) -> None:
        assert not isinstance(frame, ExtensionFrame), frame
        if frame.stream_id:
            # Those below the last one that was opened are closed (section 5.1.1).
            idle = not frame.stream_id & 1 or frame.stream_id > max(self.opened, default=0)
            assert not idle, f"{frame} on an idle stream"
            self._check_stream(frame, self.streams.setdefault(frame.stream_id, Seen()))
        elif isinstance(frame, SettingsFrame):
            if "ACK" in frame.flags:
                agreed = self._unacknowledged.popleft()
                self.initial_window = agreed.get(_INITIAL_WINDOW, self.initial_window)
                self.max_frame = agreed.get(_MAX_FRAME, self.max_frame)
        elif isinstance(frame, PingFrame):
            if "ACK" in frame.flags:
                assert frame.opaque_data == self._pings.popleft()
        elif isinstance(frame, GoAwayFrame):
            if self.goodbyes:
                assert frame.last_stream_id <= self.goodbyes[-1].last_stream_id
            self.goodbyes.append(frame)
        else:
            assert isinstance(frame, WindowUpdateFrame), frame
            assert frame.window_increment > 0

    def _check_stream(self, frame: Frame, seen: Seen) -> None:
        if isinstance(frame, WindowUpdateFrame):
            assert frame.window_increment > 0
            seen.credit += frame.window_increment
            assert seen.credit <= _STREAM_BITS
            return
        if isinstance(frame, RstStreamFrame):
            seen.reset = frame.error_code
            return
        assert frame.stream_id in self.opened, f"{frame} on a stream that was never opened"
        assert not seen.ended, f"{frame} after the end of the stream"
        assert seen.reset is None, f"{frame} after RST_STREAM"
        if isinstance(frame, DataFrame):
            assert seen.blocks == 1, f"{frame} without HEADERS"
            size = len(frame.data)
            assert not size or size <= self.window(frame.stream_id), "more DATA than the stream's window allows"
            self.granted -= size
            assert not size or self.granted >= 0, "more DATA than the connection's window allows"
            seen.data += frame.data
        else:
            assert isinstance(frame, HeadersFrame), frame
            assert "END_HEADERS" in frame.flags
            headers = [(str(name), str(value)) for name, value in self._decoder.decode(frame.data)]
            names = [name for name, _ in headers]
            assert len(names) == len(set(names))
            assert (":status" in names) == (seen.blocks == 0), f"block {seen.blocks + 1} has {names}"
            assert seen.blocks == 0 or "END_STREAM" in frame.flags
            seen.blocks += 1
            seen.headers.update(headers)
        if "END_STREAM" in frame.flags:
            seen.ended = True
            if seen.headers[":status"] == "200":
                assert seen.status is not None, f"no status in {seen.headers}"
                assert seen.messages or seen.status != "0" or seen.data == b""
