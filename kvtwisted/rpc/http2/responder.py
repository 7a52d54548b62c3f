"""How the calls of one connection are answered: at once if the windows allow it, else by a queue of their own.

Who answers a call knows its stream by its number. Most calls are answered within the chunk that they came in, or by one
message that needs no queue: of those only the number is kept while the answer is made. The others have a `Stream`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable

from ...core.counting import Holding
from ..errors import CallError
from . import frames
from .frames import ConnectionFault, ErrorCode
from .header_blocks import Headers
from .outbound import Backlog, Sender
from .parked import ParkedCalls
from .requests import Head
from .responses import (
    GOOD,
    GOOD_START,
    MESSAGE_PREFIX,
    OK_START,
    SMALLEST_FRAME,
    ConstantAnswer,
    around,
    plain_headers,
    status_frame,
    whole_answer,
)
from .stream import Stream

#: Streams that a peer may have open; one more is refused.
MAX_STREAMS = 1000
#: Bytes of answers that are worth as many of the peer's frames as a call.
_BYTES_OF_A_CALL = 8192
#: Streams that were reset here, whose frames may still be on their way.
_REMEMBERED_RESETS = 1000
#: Bytes of DATA that may be on their way there: a stream's first window.
_LATE_BYTES = frames.DEFAULT_WINDOW


def _nobody() -> None:
    """For streams of a lost connection, which sends nothing."""


class Responder:
    """What goes out on one connection, and for which calls. Reactor thread."""

    def __init__(
        self, out: list[bytes], touched: Callable[[], None], backlog: Backlog, parked: ParkedCalls, address: str
    ) -> None:
        """Frames are appended to `out`; `touched` is called then, so that somebody sends them."""
        self.out = out
        self.touched = touched
        self.backlog = backlog
        #: Calls that have not begun, because too many bytes of answers wait.
        self.parked = parked
        #: The peer's.
        self.address = address
        self.sender = Sender(out, backlog)
        self.streams: dict[int, Stream] = {}
        #: Calls whose whole request has come and whose answer has not: the number, and what the peer has added to the
        #: stream's window since its HEADERS. Those of `opened` are here too once it has added something.
        self.promised: dict[int, int] = {}
        #: Bytes of the answers that are being made, at most.
        self.expected = Holding(backlog.expected)
        #: Whether a call may be answered at once, in frames that need no queue.
        self.quick = True
        #: Streams that were reset here, and the bytes of DATA that may be on their way there.
        self.resets: dict[int, int] = {}
        #: Bytes of a header list that the peer is willing to take.
        self.header_limit = frames.LARGEST_WINDOW
        #: Calls that have begun, and did not fail and were not reset: what is not open of them was answered well.
        self.begun = 0
        #: Messages of streaming calls that were answered well.
        self.served = 0
        #: Streams that may be open. Calls that were reset while they ran count as open until somebody looks again: some
        #: still run, and a peer that resets its calls (CVE-2023-44487) is not to have more running than one that waits.
        self.allowed = MAX_STREAMS

    @property
    def count(self) -> int:
        """Calls that have not ended."""
        return len(self.streams) + len(self.promised)

    @property
    def answered(self) -> int:
        """Calls that were answered well, or what is worth as much: it is what the peer may send other frames for."""
        return self.begun - self.count + self.served + self.sender.sent // _BYTES_OF_A_CALL

    @property
    def backlogged(self) -> bool:
        """Whether calls are to wait until answers have gone out."""
        return self.sender.paused or self.sender.waiting.bytes + self.expected.bytes > self.backlog.room

    def consider(self) -> None:
        """Windows or queues have changed: see whether calls can be answered at once."""
        self.quick = self.sender.initial_window >= SMALLEST_FRAME and not self.backlogged and not self.parked.by_id

    # Unary calls.

    def promise(self, stream_id: int) -> None:
        """The call is answered later, if `awaited` still says so then."""
        self.promised.setdefault(stream_id, 0)

    def awaited(self, stream_id: int) -> bool:
        """Whether the client of a promised answer still waits for it. Any thread."""
        return stream_id in self.promised

    def expect(self, size: int) -> None:
        """An answer of up to `size` bytes is being made; tell `expect(-size)` before it is given."""
        self.expected.add(size)
        if size < 0 or self.backlogged:
            self.consider()
        if size < 0 and self.parked.by_id:
            self.touched()  # there may be room, also when nobody waits for this answer any longer

    def answer(self, stream_id: int, message: bytes) -> None:
        """End a call well, with its one message."""
        size = len(message) + MESSAGE_PREFIX.size
        sender = self.sender
        if self.quick and size <= sender.window and size <= SMALLEST_FRAME:
            if self.promised:
                self.promised.pop(stream_id, None)
            sender.window -= size
            self.out.append(whole_answer(stream_id, message))
            self.touched()
        else:
            stream = self.open_stream(stream_id)
            stream.send_message(message)
            stream.finish()

    def answer_constant(self, stream_ids: Iterable[int], answer: ConstantAnswer) -> None:
        """End calls well, with a message that was made ready: those that it was promised to, and that still wait."""
        sender, out, pieces, size = self.sender, self.out, answer.pieces, answer.size
        promised = self.promised.pop
        for stream_id in stream_ids:
            if not self.quick or size > sender.window:
                if stream_id in self.promised:
                    self.answer(stream_id, answer.message)
            elif promised(stream_id, None) is not None:
                sender.window -= size
                out.append(stream_id.to_bytes(4, "big").join(pieces))
        self.touched()

    def answer_each(self, answers: Iterable[tuple[int, bytes]]) -> None:
        """`answer` calls that it was promised to, and that still wait: those that came together."""
        sender, append, promised = self.sender, self.out.append, self.promised
        length = -1
        for stream_id, message in answers:
            if len(message) != length:
                length = len(message)
                size = length + MESSAGE_PREFIX.size
                between, prefix = around(length)
            if not self.quick or size > sender.window or size > SMALLEST_FRAME:
                if stream_id in promised:
                    self.answer(stream_id, message)
            elif promised.pop(stream_id, None) is not None:
                sender.window -= size
                # As in `ConstantAnswer.pieces`.
                pieces = (OK_START, between, prefix + message + GOOD_START, GOOD)
                append(stream_id.to_bytes(4, "big").join(pieces))
        self.touched()

    def fail(self, stream_id: int, error: CallError) -> None:
        """End a call with a status. It earns the peer nothing: no work was done for it."""
        self.begun -= 1
        self.promised.pop(stream_id, None)
        self.out.append(self.status(stream_id, error.code, str(error)))
        self.touched()

    def status(
        self, stream_id: int, code: int, sentence: str, *, first: bool = True, more: Headers | None = None
    ) -> bytes:
        """The frame that ends a call with a status; `first` if nothing was sent before it."""
        return status_frame(stream_id, code, sentence, first=first, more=more or [], limit=self.header_limit)

    def refuse(self, stream_id: int, head: Head, end_stream: bool, until: float) -> None:
        """End what is not to be served before it has begun.

        The rest of a request that is not gRPC may come until then: HTTP clients other than gRPC's like to send it all.
        """
        refusal = head.refusal
        assert refusal is not None  # noqa: S101 - the caller has looked
        if refusal.status == 200:
            self.out.append(self.status(stream_id, refusal.code, refusal.sentence, more=refusal.more))
            if not end_stream:
                self.reset(stream_id, ErrorCode.NO_ERROR)
            return
        stream = self.open_stream(stream_id)
        body = refusal.sentence.encode() + b"\n" if refusal.sentence else b""
        stream.head, stream.open, stream.deadline = head, not end_stream, until
        self.out.append(plain_headers(stream_id, refusal.status, len(body), refusal.more))
        self.sender.send(stream, body)
        self.sender.end(stream, frames.frame(frames.DATA, frames.END_STREAM, stream_id))
        self.touched()

    # Streaming calls, and answers that wait.

    def open_stream(self, stream_id: int) -> Stream:
        """Have something to remember of a stream."""
        window = self.sender.initial_window + self.promised.pop(stream_id, 0)
        stream = self.streams[stream_id] = Stream(self, stream_id, window)
        return stream

    def pump(self) -> None:
        """Send some of what the windows allow."""
        self.sender.pump()
        ended, self.sender.ended = self.sender.ended, []
        for outgoing in ended:
            stream = self.streams[outgoing.stream_id]
            if stream.open and stream.incoming is None:
                stream.lingers = True
                continue
            del self.streams[stream.stream_id]
            if stream.open:
                # The client need not send the rest of its request.
                stream.close_incoming()
                self.reset(stream.stream_id, ErrorCode.NO_ERROR)
            stream.gone()
        waiting, self.sender.drained = self.sender.drained, []
        for outgoing in waiting:
            drained = self.streams.get(outgoing.stream_id)
            if drained is not None and drained.handler is not None:
                drained.handler.drained()

    # The end of streams.

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Send RST_STREAM; what the peer still sends there is ignored for a while."""
        if len(self.resets) >= _REMEMBERED_RESETS:
            del self.resets[next(iter(self.resets))]
        self.resets[stream_id] = _LATE_BYTES
        self.out.append(frames.rst_stream(stream_id, code))
        self.touched()

    def drop(self, stream_id: int) -> None:
        """A stream is over without an answer."""
        if stream_id in self.promised:
            del self.promised[stream_id]
            self.begun -= 1
            self.allowed -= 1
            if stream_id in self.parked.by_id:
                self.parked.take(stream_id)
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self.begun -= stream.is_counted
            self.sender.drop(stream)
            stream.close_incoming()
            stream.gone()
            self.consider()

    def drop_all(self) -> None:
        """The connection is gone."""
        self.parked.clear()
        self.promised.clear()
        for stream_id in list(self.streams):
            self.drop(stream_id)

    def drop_stuck(self) -> None:
        """Drop the answers that wait for a window: the peer will not widen it any more."""
        for stream in tuple(self.streams.values()):
            if stream.queued and (stream.window <= 0 or self.sender.window <= 0):
                self.drop(stream.stream_id)

    def let_go(self) -> None:
        """Nothing goes out any more: forget the connection, so that its memory waits for no cyclic collector."""
        self.touched = _nobody

    # Flow control.

    def change_initial_window(self, size: int) -> None:
        """SETTINGS_INITIAL_WINDOW_SIZE."""
        if self.promised and size + max(self.promised.values()) > frames.LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"a stream's window is over {frames.LARGEST_WINDOW}")
        self.sender.change_initial_window(size, list(self.streams.values()))
        self.consider()
