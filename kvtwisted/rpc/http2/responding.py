"""How the calls of one connection are answered: at once if the windows allow it, else by a queue of their own."""

from __future__ import annotations

from typing import Callable, Protocol

from ...core.counting import Holding
from ...sessions.gate import Visitor
from ..errors import CallError
from .frames import (
    DATA,
    DEFAULT_WINDOW,
    END_STREAM,
    LARGEST_WINDOW,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    frame,
    rst_stream,
)
from .header_blocks import Headers
from .inbound import Incoming, Message
from .outbound import Backlog, Outgoing, Sender
from .requests import Head, Route
from .responses import (
    MESSAGE_PREFIX,
    SMALLEST_FRAME,
    ConstantAnswer,
    ok_headers,
    ok_trailers,
    plain_headers,
    status_frame,
    whole_answer,
)

#: Streams that were reset here, whose frames may still be on their way.
_REMEMBERED_RESETS = 1000
#: Bytes of DATA that may be on their way there: a stream's first window.
_LATE_BYTES = DEFAULT_WINDOW


class Handler(Protocol):
    """What answers one streaming call, by the methods of its `Stream`."""

    def received(self, message: Message) -> None:
        """A message came. May raise CallError, which ends the call."""

    def half_closed(self) -> None:
        """The client sends no more."""

    def cut(self, error: CallError) -> None:
        """Nothing more can come of the client: end with this status, once what has come is answered."""

    def drained(self) -> None:
        """All that was sent has gone out."""

    def gone(self) -> None:
        """The call is over, whoever ended it. Called once."""


class Stream(Outgoing):
    """One stream with something to remember: a request that is not whole, an answer that waits, or a streaming call."""

    __slots__ = (
        "_answering", "body", "deadline", "failed", "first_by", "handler", "head", "headers_sent", "incoming",
        "lingers", "message", "open",
    )  # fmt: skip

    def __init__(self, answering: Answering, stream_id: int, window: int) -> None:
        super().__init__(stream_id, window)
        self._answering = answering
        self.head: Head | None = None
        self.incoming: Incoming | None = None
        self.handler: Handler | None = None
        self.message: Message | None = None
        #: Whether the peer may still send.
        self.open = False
        self.headers_sent = False
        #: Whether it was refused, and the rest of its request is awaited.
        self.lingers = False
        #: Whether it ended with a status other than OK.
        self.failed = False
        #: When its request must be whole, or a streaming call over.
        self.deadline = float("inf")
        #: When the first message of a streaming call must have come.
        self.first_by = float("inf")
        #: Bytes of DATA that came.
        self.body = 0

    # For handlers.

    def pause(self) -> None:
        """Give the client no more window for messages."""
        if self.incoming is not None:
            self.incoming.paused = True

    def go_on(self) -> None:
        """Take messages again."""
        if self.incoming is not None and self.incoming.paused and self.open and self.last is None:
            self.incoming.go_on()

    def served(self) -> None:
        """One of its messages was answered well, which is worth a call."""
        self._answering.served()

    @property
    def address(self) -> str:
        """The peer's."""
        return self._answering.visitor.address

    @property
    def backlogged(self) -> bool:
        """See `Answering.backlogged`."""
        return self._answering.backlogged

    def expect(self, size: int) -> None:
        """See `Answering.expect`."""
        self._answering.expect(size)

    def send_message(self, message: bytes) -> None:
        """Send one message, when the windows allow."""
        self._answering.send_message(self, message)

    def finish(self, error: CallError | None = None) -> None:
        """End the call, after what was sent, with status OK or the error's."""
        self._answering.finish(self, error)


class Answering:
    """What goes out on one connection. Reactor thread."""

    def __init__(self, out: list[bytes], touched: Callable[[], None], backlog: Backlog) -> None:
        """Frames are appended to `out`; `touched` is called then, so that somebody sends them."""
        self.out = out
        self.touched = touched
        self.backlog = backlog
        #: Who the connection says is there; `Connection` knows.
        self.visitor = Visitor("")
        self.sender = Sender(out, backlog)
        self.streams: dict[int, Stream] = {}
        #: Calls whose whole request has come and whose answer has not: the number, and what the peer has added to the
        #: stream's window since.
        self.promised: dict[int, int] = {}
        #: Calls that have not begun, because too many bytes of answers wait.
        self.parked: dict[int, tuple[Route, Message, float]] = {}
        #: Bytes of the answers that are being made, at most.
        self.expected = Holding(backlog.expected)
        #: Whether a call may be answered at once, in frames that need no queue.
        self.quick = True
        #: Streams that were reset here, and the bytes of DATA that may be on their way there.
        self.resets: dict[int, int] = {}
        #: Bytes of a header list that the peer is willing to take.
        self.header_limit = LARGEST_WINDOW

    @property
    def count(self) -> int:
        """Calls that have not ended."""
        return len(self.streams) + len(self.promised)

    @property
    def backlogged(self) -> bool:
        """Whether calls are to wait until answers have gone out."""
        return self.sender.paused or self.sender.waiting.bytes + self.expected.bytes > self.backlog.room

    def consider(self) -> None:
        """Windows or queues have changed: see whether calls can be answered at once."""
        self.quick = self.sender.initial_window >= SMALLEST_FRAME and not self.backlogged and not self.parked

    # Unary calls.

    def promise(self, stream_id: int) -> None:
        """The call is answered later, if `awaited` still says so then."""
        self.promised.setdefault(stream_id, 0)

    def awaited(self, stream_id: int) -> bool:
        """Whether the client of a promised answer still waits for it."""
        return stream_id in self.promised

    def expect(self, size: int) -> None:
        """An answer of up to `size` bytes is being made; tell `expect(-size)` before it is given."""
        self.expected.add(size)
        if size < 0 or self.backlogged:
            self.consider()
        if size < 0 and self.parked:
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
            stream = self._stream(stream_id)
            self.send_message(stream, message)
            self.finish(stream)

    def answer_constant(self, stream_id: int, answer: ConstantAnswer) -> None:
        """The same with a message that was made ready."""
        sender = self.sender
        if self.quick and answer.size <= sender.window:
            if self.promised:
                self.promised.pop(stream_id, None)
            sender.window -= answer.size
            self.out.append(answer.frames(stream_id))
            self.touched()
        else:
            self.answer(stream_id, answer.message)

    def fail(self, stream_id: int, error: CallError) -> None:
        """End a call with a status."""
        self.promised.pop(stream_id, None)
        self.out.append(self.status(stream_id, error.code, str(error)))
        self.touched()

    def status(
        self, stream_id: int, code: int, sentence: str, *, first: bool = True, more: Headers | None = None
    ) -> bytes:
        """The frame that ends a call with a status; `first` if nothing was sent before it."""
        return status_frame(stream_id, code, sentence, first=first, more=more, limit=self.header_limit)

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
        stream = self._stream(stream_id)
        body = refusal.sentence.encode() + b"\n" if refusal.sentence else b""
        stream.head, stream.open, stream.deadline = head, not end_stream, until
        self.out.append(plain_headers(stream_id, refusal.status, len(body), refusal.more))
        self.sender.send(stream, body)
        self.sender.end(stream, frame(DATA, END_STREAM, stream_id))
        self.touched()

    # Streaming calls, and answers that wait.

    def _stream(self, stream_id: int) -> Stream:
        window = self.sender.initial_window + self.promised.pop(stream_id, 0)
        stream = self.streams[stream_id] = Stream(self, stream_id, window)
        return stream

    def send_message(self, stream: Stream, message: bytes) -> None:
        """See `Stream.send_message`."""
        if stream.last is not None:
            return  # the call has ended, and perhaps the stream
        if not stream.headers_sent:
            stream.headers_sent = True
            self.out.append(ok_headers(stream.stream_id))
        self.sender.send(stream, MESSAGE_PREFIX.pack(0, len(message)) + message)
        if self.quick and self.backlogged:
            self.quick = False
        self.touched()

    def finish(self, stream: Stream, error: CallError | None = None) -> None:
        """See `Stream.finish`."""
        stream_id = stream.stream_id
        if stream_id not in self.streams or stream.last is not None:
            return
        self._close_incoming(stream)
        if error is not None:
            stream.failed = True
            last = self.status(stream_id, error.code, str(error), first=not stream.headers_sent)
        elif stream.headers_sent:
            last = ok_trailers(stream_id)
        else:
            last = self.status(stream_id, 0, "")
        self.sender.end(stream, last)
        self.touched()

    def served(self) -> None:
        """See `Stream.served`."""

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
                self._close_incoming(stream)
                self.reset(stream.stream_id, ErrorCode.NO_ERROR)
            self._gone(stream)
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
        self.out.append(rst_stream(stream_id, code))
        self.touched()

    def drop(self, stream_id: int) -> None:
        """A stream is over without an answer."""
        self.promised.pop(stream_id, None)
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self.sender.drop(stream)
            self._close_incoming(stream)
            self._gone(stream)
            self.consider()

    def drop_all(self) -> None:
        """The connection is gone."""
        self.promised.clear()
        for stream_id in list(self.streams):
            self.drop(stream_id)

    def _close_incoming(self, stream: Stream) -> None:
        if stream.incoming is not None:
            stream.incoming.close()

    def _gone(self, stream: Stream) -> None:
        handler, stream.handler = stream.handler, None
        if handler is not None:
            handler.gone()

    # What the peer says of its windows.

    def widen(self, stream_id: int, increment: int) -> bool:
        """WINDOW_UPDATE; False when there is no such stream."""
        if stream_id == 0:
            self.sender.widen(increment)
        elif stream_id in self.promised:
            self.promised[stream_id] += increment
            if self.promised[stream_id] + self.sender.initial_window > LARGEST_WINDOW:
                raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, f"a stream's window is over {LARGEST_WINDOW}")
        elif stream_id in self.streams:
            self.sender.widen_stream(self.streams[stream_id], increment)
        else:
            return False
        return True

    def change_initial_window(self, size: int) -> None:
        """SETTINGS_INITIAL_WINDOW_SIZE."""
        if self.promised and size + max(self.promised.values()) > LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"a stream's window is over {LARGEST_WINDOW}")
        self.sender.change_initial_window(size, list(self.streams.values()))
        self.consider()
