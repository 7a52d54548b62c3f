"""One connection's own frames: the preface, settings, windows, pings and header blocks.

Sources: RFC 9113, sections 3.4 (preface), 5.2 (flow control), 6 (frames).
"""

from __future__ import annotations

from typing import Callable, ClassVar

from . import frames
from .frames import (
    ACK,
    DEFAULT_FRAME_SIZE,
    DEFAULT_TABLE_BYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    LARGEST_FRAME_SIZE,
    LARGEST_WINDOW,
    PADDED,
    PREFACE,
    STREAM_BITS,
    ConnectionFault,
    ErrorCode,
    StreamFault,
)
from .header_blocks import MAX_BLOCK_BYTES, MAX_LIST_BYTES, MAX_UNKNOWN_BLOCK_BYTES
from .lifetime import Lifetime
from .responder import MAX_STREAMS
from .streams import Streams

#: Bytes that the peer may send before it hears that they have come. No memory: see Note [Room for unfinished requests].
CONNECTION_WINDOW = 16 << 20
#: Bytes after which it is told.
CREDIT_STEP = CONNECTION_WINDOW // 4


class Control:
    """The frames of one connection as they come, and the state of it that is no stream's. Reactor thread."""

    def __init__(self, streams: Streams, lifetime: Lifetime, out: list[bytes]) -> None:
        """What is to be sent is appended to `out`."""
        self._streams = streams
        self._guard = streams.guard
        self._lifetime = lifetime
        self._out = out
        #: What is still to come of the preface.
        self.preface = PREFACE
        #: Whether frames other than SETTINGS may come, and no header block is half there.
        self.ready = False
        #: Bytes of DATA that the connection's window has not been given back.
        self.unacknowledged = 0
        self._block: bytearray | None = None
        self._block_of = (0, False)
        #: Bytes that the peer lets our dynamic table have; whether it was told that the table has none; and from which
        #: piece of `out` on the next header block has to say so, if one does.
        self._table_bytes = DEFAULT_TABLE_BYTES
        self._told_of_table = False
        self.size_update_after: int | None = None

    # The beginning.

    def greet(self) -> None:
        """Send our side of the preface."""
        self._out.append(
            frames.settings({frames.MAX_CONCURRENT_STREAMS: MAX_STREAMS, frames.MAX_HEADER_LIST_SIZE: MAX_LIST_BYTES})
        )
        self._out.append(frames.window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW))

    def read_preface(self, data: bytes) -> int:
        """Compare with the client's preface; returns how much of `data` it was."""
        expected = self.preface[: len(data)]
        if data[: len(expected)] != expected:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this is a gRPC server: it speaks HTTP/2 alone")
        self.preface = self.preface[len(expected) :]
        return len(expected)

    def give_credit(self) -> None:
        """Widen the connection's inbound window again."""
        self._out.append(frames.window_update(0, self.unacknowledged))
        self.unacknowledged = 0

    # Frames.

    def handle(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """One frame. Raises ConnectionFault or StreamFault."""
        if self._block is not None and (kind != frames.CONTINUATION or stream_id != self._block_of[0]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block was not continued")
        if not self._lifetime.settled and kind != frames.SETTINGS:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
        if kind < len(self._HANDLERS):
            self._HANDLERS[kind](self, flags, stream_id, payload)
        else:
            # Unknown types are ignored (section 4.1).
            self._guard.spend()

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        _of_a_stream("DATA", stream_id)
        self.unacknowledged += len(payload)
        if self.unacknowledged >= CREDIT_STEP:
            self.give_credit()
        data = frames.unpadded(payload) if flags & PADDED else payload
        self._streams.data(stream_id, data, len(payload), bool(flags & END_STREAM))

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        _of_a_stream("HEADERS", stream_id)
        block = frames.unpadded(payload) if flags & PADDED else payload
        if flags & HAS_PRIORITY:
            _check_dependency(stream_id, block[:5], ConnectionFault)  # or the block would have to be decoded first
            block = block[5:]
        self._block_of = stream_id, bool(flags & END_STREAM)
        self._block = bytearray()
        self.ready = False
        self._add_to_block(flags, block)

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._guard.spend(10 if not payload else 1)
        self._add_to_block(flags, payload)

    def _add_to_block(self, flags: int, payload: bytes) -> None:
        block = self._block
        assert block is not None  # noqa: S101 - both callers see to it
        block += payload
        limit = MAX_BLOCK_BYTES if self._streams.known else MAX_UNKNOWN_BLOCK_BYTES
        if len(block) > limit:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"a header block is over {limit} bytes")
        if flags & END_HEADERS:
            self._block = None
            self.ready = True
            stream_id, end_stream = self._block_of
            self._streams.begin(stream_id, bytes(block), end_stream)

    def _priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        _of_a_stream("PRIORITY", stream_id)
        self._guard.spend()
        if len(payload) != 5:
            raise self._streams.fault_on(stream_id)(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has 5 bytes")
        _check_dependency(stream_id, payload, self._streams.fault_on(stream_id))

    def _rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        _of_a_stream("RST_STREAM", stream_id)
        _sized("RST_STREAM", payload, 4)
        self._streams.peer_reset(stream_id)

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        _of_the_connection("SETTINGS", stream_id)
        self._guard.spend(10)
        if flags & ACK:
            _sized("an acknowledgement of SETTINGS", payload, 0)
            return
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS has 6 bytes for each setting")
        initial_window = self._streams.responder.sender.initial_window
        for name, value in frames.read_settings(payload):
            self._guard.spend()
            if name == frames.INITIAL_WINDOW_SIZE:
                initial_window = _window(value)
            else:
                self._setting(name, value)
        # Only the last one, since each means a look at every stream.
        if initial_window != self._streams.responder.sender.initial_window:
            self._streams.responder.change_initial_window(initial_window)
        self._lifetime.settled = self.ready = True
        self._out.append(frames.frame(frames.SETTINGS, ACK, 0))
        if self._table_bytes < DEFAULT_TABLE_BYTES and not self._told_of_table:
            self._told_of_table = True
            self.size_update_after = len(self._out)

    def _setting(self, name: int, value: int) -> None:
        if name == frames.MAX_FRAME_SIZE:
            if not DEFAULT_FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
                sentence = f"the largest frame must have {DEFAULT_FRAME_SIZE} to {LARGEST_FRAME_SIZE} bytes"
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, sentence)
            self._streams.responder.sender.frame_size = min(value, 4 * DEFAULT_FRAME_SIZE)
        elif name == frames.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH must be 0 or 1")
        elif name == frames.HEADER_TABLE_SIZE:
            # The smallest counts, also if a larger one comes after it (RFC 7541, section 4.2).
            self._table_bytes = min(self._table_bytes, value)
        elif name == frames.MAX_HEADER_LIST_SIZE:
            self._streams.responder.header_limit = value
        # Nothing is pushed here, so that the number of streams does not matter; unknown settings never do.

    def _push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        _of_the_connection("PING", stream_id)
        _sized("PING", payload, 8)
        self._guard.spend()
        if not flags & ACK:
            self._out.append(frames.frame(frames.PING, ACK, 0, payload))
        else:
            self._lifetime.ping_answered(payload)

    def _goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        _of_the_connection("GOAWAY", stream_id)
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has at least 8 bytes")
        self._guard.spend()
        # The client closes when its calls have ended; it opens no others.

    def _window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        _sized("WINDOW_UPDATE", payload, 4)
        self._streams.window_update(stream_id, frames.read_word(payload)[0] & STREAM_BITS)

    _HANDLERS: ClassVar[tuple[Callable[[Control, int, int, bytes], None], ...]] = (
        _data, _headers, _priority, _rst_stream, _settings,
        _push_promise, _ping, _goaway, _window_update, _continuation,
    )  # fmt: skip


def _window(size: int) -> int:
    if size > LARGEST_WINDOW:
        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"the initial window is over {LARGEST_WINDOW}")
    return size


def _of_a_stream(name: str, stream_id: int) -> None:
    if stream_id == 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{name} must be of a stream")


def _of_the_connection(name: str, stream_id: int) -> None:
    if stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{name} must be of the connection, stream 0")


def _sized(name: str, payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"{name} must have {size} bytes")


def _check_dependency(stream_id: int, priority: bytes, fault: type[ConnectionFault] | type[StreamFault]) -> None:
    if len(priority) != 5:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a priority has 5 bytes")
    if frames.read_word(priority)[0] & STREAM_BITS == stream_id:
        raise fault(ErrorCode.PROTOCOL_ERROR, "a stream cannot depend on itself")
