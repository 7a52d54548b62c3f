"""The frames of a connection, by the chunk: protocol state alone, which knows of no socket.

Note [Work chunk by chunk]: a client that has many calls under way sends many in one segment. All frames of what
`dataReceived` is given are handled in one go, what they are answered is gathered, and one write sends it. A call whose
HEADERS and DATA are whole and in the same chunk, and whose header block is known, is answered on the shortest way there
is: no object is made for it, and where its DATA comes right after its HEADERS both frames are looked at as one. That
need not be: some clients send the HEADERS of many calls first, or widen the stream's window in between.
"""

from __future__ import annotations

from typing import Callable

from . import frames
from .control import CREDIT_STEP, Control
from .frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    HEADERS,
    STREAM_BITS,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    read_call,
    read_header,
    read_word,
)
from .header_turn import HeaderTurn
from .lifetime import Lifetime
from .streams import Streams

#: Bytes that a DATA frame of an uncompressed message has beside the message; and the same with the frame's header.
_PREFIX, _BEFORE_MESSAGE = 5, 14
_LARGEST_MESSAGE = frames.DEFAULT_FRAME_SIZE - _PREFIX
#: The length and type of a WINDOW_UPDATE.
_WINDOW_UPDATE = 4 << 8 | frames.WINDOW_UPDATE


class ChunkReader:
    """Handles the frames that one connection's peer sends. Reactor thread."""

    __slots__ = ("_control", "_lifetime", "_seconds", "_streams", "_turn")

    def __init__(
        self, streams: Streams, control: Control, lifetime: Lifetime, turn: HeaderTurn, seconds: Callable[[], float]
    ) -> None:
        self._streams = streams
        self._control = control
        self._lifetime = lifetime
        self._turn = turn
        self._seconds = seconds

    def read(self, data: bytes) -> int:
        """Handle every whole frame in `data`; returns where the first one begins that is not whole, or has to wait.

        Raises ConnectionFault.
        """
        control, streams = self._control, self._streams
        responder, opened, remembered = streams.responder, streams.opened, streams.blocks.remembered
        position, end = 0, len(data)
        if control.preface:
            position = control.read_preface(data)
        streams.before_chunk, calls_before = streams.last_id, streams.calls
        calls = received = 0
        # How many calls may begin before it is counted again: calls that end meanwhile only make more room.
        room = self._room()
        while end - position >= FRAME_HEADER:
            word, flags, stream_id = read_header(data, position)
            payload = position + FRAME_HEADER
            after = payload + (word >> 8)
            # The short way: see Note [Work chunk by chunk].
            if word & 0xFF == HEADERS:
                if (
                    flags == END_HEADERS
                    and after <= end
                    and (head := remembered.get(data[payload:after])) is not None
                    and (unary := head.unary) is not None
                    and streams.last_id < stream_id <= STREAM_BITS
                    and stream_id & 1
                    and responder.quick
                    and (room or (room := self._room()))
                ):
                    room -= 1
                    streams.last_id = stream_id
                    position = after
                    message = after + _BEFORE_MESSAGE
                    if message <= end:
                        word, flags, same, compressed, length = read_call(data, after)
                        # It is DATA, whose type is 0, and one message fills it.
                        if (
                            same == stream_id
                            and flags == END_STREAM
                            and word == length + _PREFIX << 8
                            and not compressed
                            and length <= _LARGEST_MESSAGE
                            and message + length <= end
                            and (head.length < 0 or head.length == length + _PREFIX)
                        ):
                            position = message + length
                            calls += 1
                            received += length + _PREFIX
                            unary(responder, stream_id, data[message:position], head.timeout)
                            continue
                    opened[stream_id] = head
                    continue
            elif word & 0xFF == DATA:
                if (
                    flags == END_STREAM
                    and stream_id in opened
                    and after <= end
                    and responder.quick  # which calls before it in this chunk may have changed
                    and _PREFIX <= word >> 8 <= frames.DEFAULT_FRAME_SIZE
                    and data[payload] == 0
                    and read_word(data, payload + 1)[0] == (word >> 8) - _PREFIX
                    and (opened[stream_id].length < 0 or opened[stream_id].length == word >> 8)
                ):
                    head = opened.pop(stream_id)
                    position = after
                    calls += 1
                    received += word >> 8
                    head.unary(responder, stream_id, data[payload + _PREFIX : after], head.timeout)  # type: ignore[misc]
                    continue
            elif word == _WINDOW_UPDATE and after <= end and control.ready:
                position = after
                try:
                    streams.window_update(stream_id & STREAM_BITS, read_word(data, payload)[0] & STREAM_BITS)
                except StreamFault as fault:
                    streams.open_all()
                    streams.fault(stream_id & STREAM_BITS, fault)
                continue
            if word >> 8 > frames.DEFAULT_FRAME_SIZE:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame is over {frames.DEFAULT_FRAME_SIZE} bytes")
            if after > end:
                break
            ends_block = flags & END_HEADERS and word & 0xFF in (HEADERS, CONTINUATION)
            if ends_block and data[payload:after] not in remembered and self._turn.must_wait(word >> 8):
                break
            position = after
            if opened:
                streams.open_all()
            try:
                control.handle(word & 0xFF, flags, stream_id & STREAM_BITS, data[payload:after])
            except StreamFault as fault:
                streams.fault(stream_id & STREAM_BITS, fault)
            finally:
                if ends_block and streams.blocks.work:
                    self._turn.spend(streams.blocks.work)
            room = 0
        if opened:
            streams.open_all()
        streams.calls += calls
        responder.begun += calls
        self._lifetime.heard_at = now = self._seconds()
        if streams.calls != calls_before:
            self._lifetime.active_at = now
        control.unacknowledged += received
        if control.unacknowledged >= CREDIT_STEP:
            control.give_credit()
        return position

    def _room(self) -> int:
        """How many more calls may begin."""
        streams = self._streams
        responder = streams.responder
        if not self._control.ready or streams.last_served is not None:
            return 0
        return max(0, responder.allowed - len(streams.opened) - len(responder.streams) - len(responder.promised))
