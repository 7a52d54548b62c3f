"""The streams of one connection: what the peer's frames do to them (RFC 9113, sections 5 and 8).

A call comes in one of two ways. Most have sent all they have within one chunk: their message is looked at in place, and
nothing is remembered of them, but for their number if the answer comes later. The others get a `Stream`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Callable, Protocol

from ...sessions.gate import Visitor
from ...sessions.policy import PUBLIC
from ..errors import CallError, Code, call_error
from ..rights import rpc_requirement
from .frames import DEFAULT_WINDOW, ConnectionFault, ErrorCode, StreamFault, window_update
from .guard import TOKENS_PER_CALL, Guard, tokens_for_headers
from .header_blocks import FieldFault, HeaderBlocks, check_trailers
from .inbound import Budget, Incoming, Message
from .outbound import Backlog
from .requests import Entry, Head, Route, read_head
from .responding import Answering, Stream

#: Streams that a peer may have open; one more is refused.
MAX_STREAMS = 1000
#: Tokens that a stream's fault costs, unless it is an honest mistake: more than a call brings.
_FAULT_TOKENS = 2 * TOKENS_PER_CALL
#: What each frame takes of the bytes that may be late, so that crumbs do not last for ever.
_LATE_FRAME_BYTES = 1024
#: Bytes of DATA that are worth a frame even if they end nothing.
_SMALL_DATA = 64
#: Seconds that the rest of a refused request may take.
_LINGER_SECONDS = 1.0


def _nobody() -> None:
    """Whom a lost connection's streams tell that there is something to send."""


class Settings(Protocol):
    """What streams need of the server they belong to."""

    budget: Budget
    backlog: Backlog
    message_limit: int
    seconds: Callable[[], float]
    request_timeout: Callable[[], float]

    def enter(self, visitor: Visitor, path: bytes) -> Entry:
        """What the visitor finds who asks for this path. Raises CallError."""


class Streams(Answering):
    """All streams of a connection. Reactor thread."""

    def __init__(self, settings: Settings, out: list[bytes], guard: Guard, touched: Callable[[], None]) -> None:
        super().__init__(out, touched, settings.backlog)
        self._settings = settings
        self._guard = guard
        self._share = settings.budget.share()
        self.blocks: HeaderBlocks[Head] = HeaderBlocks(
            partial(read_head, self._enter), guard.spend, lambda head: head.lasts
        )
        self.last_id = 0
        #: Unary calls whose HEADERS came in the chunk that is being looked at, and nothing else yet.
        self.opened: dict[int, Head] = {}
        #: Who has called last; None: nobody has.
        self.shown: Visitor | None = None
        #: Raises CallError unless the visitor is an administrator, while that must be shown.
        self.on_trial: Callable[[Visitor], None] | None = None
        #: The last stream that is served, once the connection drains.
        self.last_served: int | None = None
        #: Whether a call was let in here that is not for everybody.
        self.known = False
        #: The last stream before the bytes that are being looked at, and how many calls were reset that came before.
        self.before_chunk = self._reset_later = 0
        #: Calls that have come, and those of them that did not fail and were not reset: what is not open of the latter
        #: was answered well.
        self.calls = self.begun = 0
        #: Streams that may be open. Calls that were reset while they ran count as open until somebody looks again: some
        #: still run, and a peer that resets its calls (CVE-2023-44487) is not to have more running than one that waits.
        self.allowed = MAX_STREAMS

    def _enter(self, path: bytes, authorization: tuple[bytes, ...]) -> Entry:
        visitor = self.visitor._replace(authorization=authorization)
        self.shown = visitor
        if self.on_trial is not None:
            self.on_trial(visitor)
        return self._settings.enter(visitor, path)

    def begin(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        """A whole header block has come."""
        if stream_id in self.streams or stream_id in self.promised:
            self._trailers(stream_id, block, end_stream)
            return
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if stream_id <= self.last_id:
            self.blocks.decode(block)
            self._leads_nowhere()
            self._guard.spend()
            if stream_id not in self.resets:
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS on a stream that is closed")
            return
        self.last_id = stream_id
        try:
            head = self.blocks.meaning(block)
        except StreamFault:
            self._leads_nowhere()
            raise
        if self.last_served is not None and stream_id > self.last_served:
            raise StreamFault(ErrorCode.REFUSED_STREAM, "the connection is closing")
        if self.allowed <= self.count < MAX_STREAMS:
            self._guard.spend()
            self.reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        if self.count >= MAX_STREAMS:
            self._guard.spend()
            raise StreamFault(ErrorCode.REFUSED_STREAM, f"over {MAX_STREAMS} streams at once")
        if head.length > 0 and end_stream:
            raise _wrong_length()
        if head.refusal is not None:
            self._leads_nowhere()
            self.refuse(stream_id, head, end_stream, self._settings.seconds() + _LINGER_SECONDS)
        else:
            self.known = self.known or rpc_requirement(_path(head)) != PUBLIC
            self._open(stream_id, head, end_stream)

    def _leads_nowhere(self) -> None:
        """Charge for the header block that was looked at last, if it took more work than such blocks do."""
        self._guard.spend(tokens_for_headers(self.blocks.work, known=self.known))

    def open_all(self) -> None:
        """Make streams of the calls that are `opened`: what comes next of them is not all in this chunk."""
        opened = self.opened.copy()
        self.opened.clear()
        for stream_id, head in opened.items():
            self._open(stream_id, head, False)

    def _open(self, stream_id: int, head: Head, end_stream: bool) -> None:
        settings, route = self._settings, head.route
        assert route is not None  # noqa: S101 - or it would have been refused
        stream = self._stream(stream_id)
        stream.head, stream.open = head, not end_stream
        stream.incoming = Incoming(
            settings.budget,
            self._share,
            settings.message_limit,
            partial(self._credit, stream_id),
            partial(self._lost, stream_id),
        )
        self.begun += 1
        now = settings.seconds()
        if head.timeout is not None:
            stream.deadline = now + head.timeout
        if route.streaming is None:
            stream.deadline = min(stream.deadline, now + settings.request_timeout())
        else:
            stream.first_by = now + settings.request_timeout()
            try:
                stream.handler = route.streaming(stream)
            except Exception as error:
                self.finish(stream, call_error(error, route.path))
                return
        if end_stream:
            self._half_close(stream)

    def data(self, stream_id: int, data: bytes, size: int, end_stream: bool) -> None:
        """DATA has come, which took `size` bytes of the windows."""
        stream = self.streams.get(stream_id)
        if stream is None or not stream.open:
            self._stray_data(stream_id, size)
            return
        if len(data) < _SMALL_DATA and not end_stream:
            self._guard.spend()
        stream.body += len(data)
        if stream.head is not None and stream.head.length >= 0:
            length = stream.head.length
            if stream.body > length or (end_stream and stream.body < length):
                raise _wrong_length()
        if stream.incoming is None:
            if stream.body > DEFAULT_WINDOW:
                raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window allows")
        elif stream.last is None:
            try:
                for message in stream.incoming.feed(data, size):
                    self._received(stream, message)
                    if stream.message is not None and not end_stream:
                        stream.incoming.keep(len(message[0]))
            except CallError as error:
                self.finish(stream, error)
        if end_stream and stream_id in self.streams:
            self._half_close(stream)

    def _stray_data(self, stream_id: int, size: int) -> None:
        if self.idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that was never opened")
        late = self.resets.get(stream_id)
        if late is None:
            self._guard.spend()
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA on a stream that is closed")
        # What was on its way when the call was refused: no fault of the client's.
        if late > 0:
            self.resets[stream_id] = late - max(size, _LATE_FRAME_BYTES)
        else:
            self._guard.spend()

    def _received(self, stream: Stream, message: Message) -> None:
        if stream.handler is not None:
            stream.first_by = float("inf")
            try:
                stream.handler.received(message)
            except Exception as error:
                raise call_error(error, _path(stream.head)) from None
        elif stream.message is None:
            stream.message = message
        else:
            raise CallError(Code.INVALID_ARGUMENT, "the call has more than one request message")

    def _trailers(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        headers = self.blocks.decode(block)
        self._leads_nowhere()
        stream = self.streams.get(stream_id)
        if stream is None or not stream.open:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS on a stream that is half closed")
        check_trailers(headers)
        if not end_stream:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "trailers that do not end their stream")
        if stream.head is not None and stream.head.length not in (-1, stream.body):
            raise _wrong_length()
        self._half_close(stream)

    def _half_close(self, stream: Stream) -> None:
        stream.open = False
        if stream.lingers:
            self.drop(stream.stream_id)
        if stream.last is not None or stream.incoming is None:
            return
        unfinished = stream.incoming.unfinished
        stream.incoming.close()
        if unfinished:
            self.finish(stream, CallError(Code.INVALID_ARGUMENT, "the call ended in the middle of a message"))
        elif stream.handler is not None:
            stream.handler.half_closed()
        elif stream.message is None:
            self.finish(stream, CallError(Code.INVALID_ARGUMENT, "the call ended without a request message"))
        else:
            self._complete(stream)

    def _complete(self, stream: Stream) -> None:
        """A unary request is whole: from here on it is like those that came in one chunk."""
        head, message = stream.head, stream.message
        assert head is not None and head.route is not None and message is not None  # noqa: S101, PT018
        stream_id = stream.stream_id
        del self.streams[stream_id]
        self.promised[stream_id] = stream.window - self.sender.initial_window
        if self.backlogged or self.parked:
            self._park(stream_id, head.route, message, stream.deadline)
        else:
            self._run(stream_id, head.route, message, stream.deadline - self._settings.seconds())

    def _run(self, stream_id: int, route: Route, message: Message, timeout: float | None) -> None:
        data, compressed = message
        run = route.compressed if compressed else route.unary
        assert run is not None  # noqa: S101 - streaming routes do not come here
        run(self, stream_id, data, timeout)

    def unpark(self) -> None:
        """Run calls that had to wait, as far as they need not any longer."""
        while self.parked and not self.backlogged:
            stream_id = next(iter(self.parked))
            route, message, deadline = self._take_parked(stream_id)
            self._run(stream_id, route, message, deadline - self._settings.seconds())
        self.consider()

    def _park(self, stream_id: int, route: Route, message: Message, deadline: float) -> None:
        """Let a call wait; its message is still one of an unfinished request."""
        try:
            self._settings.budget.hold(self._share, len(message[0]))
        except CallError as error:
            self.fail(stream_id, error)
        else:
            self.parked[stream_id] = route, message, deadline
            self.quick = False

    def _take_parked(self, stream_id: int) -> tuple[Route, Message, float]:
        parked = self.parked.pop(stream_id)
        self._settings.budget.free(self._share, len(parked[1][0]))
        return parked

    def fail(self, stream_id: int, error: CallError) -> None:
        """End a call with a status. It earns the peer nothing: no work was done for it."""
        self.begun -= 1
        super().fail(stream_id, error)

    def finish(self, stream: Stream, error: CallError | None = None) -> None:
        """See `Stream.finish`. An error earns nothing either."""
        counted = stream.incoming is not None and not stream.failed
        super().finish(stream, error)
        if counted and stream.failed:
            self.begun -= 1

    def served(self) -> None:
        """See `Stream.served`."""
        self._guard.earn(1)

    def drop(self, stream_id: int) -> None:
        """A stream is over without an answer."""
        stream = self.streams.get(stream_id)
        if stream_id in self.promised or (stream is not None and stream.incoming is not None and not stream.failed):
            self.begun -= 1
        if stream_id in self.promised:
            self.allowed -= 1
        if stream_id in self.parked:
            self._take_parked(stream_id)
        super().drop(stream_id)

    def drop_all(self) -> None:
        """The connection is gone."""
        for stream_id in list(self.parked):
            self._take_parked(stream_id)
        super().drop_all()

    def let_go(self) -> None:
        """Nothing comes or goes any more: forget the connection, so that its memory waits for no cyclic collector."""
        self.touched = _nobody
        self.blocks.let_go()

    def idle(self, stream_id: int) -> bool:
        """Whether the stream was never opened; those with even numbers, a server's, never are."""
        return stream_id > self.last_id or not stream_id & 1

    def peer_reset(self, stream_id: int) -> None:
        """RST_STREAM has come."""
        if self.idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on a stream that was never opened")
        # A client gives a call up when its time is over, or nobody wants the answer any more. Who does so at once, or
        # more often than there were calls, means something else.
        if stream_id > self.before_chunk or self._reset_later >= self.calls:
            self._guard.spend()
        else:
            self._reset_later += 1
        # Nothing that was sent before can come any more.
        self.resets.pop(stream_id, None)
        self.drop(stream_id)

    def fault(self, stream_id: int, fault: StreamFault) -> None:
        """Reset a stream for what the peer did. Of honest mistakes it is told first."""
        if not isinstance(fault, FieldFault):
            self._guard.spend(_FAULT_TOKENS)
        elif stream_id not in self.streams and stream_id not in self.promised:
            self.out.append(self.status(stream_id, Code.INVALID_ARGUMENT, str(fault)))
        self.drop(stream_id)
        self.reset(stream_id, fault.code)

    def no_more(self, error: CallError, *, tell: bool) -> None:
        """Nothing more comes of the peer. What has come whole is answered, and what has not ends.

        With `tell` that is by this error; a stream of messages ends with it anyway, once those that came are answered,
        and so does one that would go on without the peer, such as a Watch.
        """
        for stream in tuple(self.streams.values()):
            was_open, stream.open = stream.open, False
            if stream.handler is not None:
                stream.handler.cut(error)
            elif not was_open or stream.stream_id not in self.streams:
                continue
            elif tell and stream.incoming is not None:
                self.finish(stream, error)
            else:
                self.drop(stream.stream_id)
        self.opened.clear()

    def drop_stuck(self) -> None:
        """Drop the answers that wait for window, which nobody gives any more."""
        for stream in tuple(self.streams.values()):
            if stream.queued and (stream.window <= 0 or self.sender.window <= 0):
                self.drop(stream.stream_id)

    def expire(self, now: float) -> None:
        """End the calls whose time is up."""
        for stream_id in [stream_id for stream_id, parked in self.parked.items() if parked[2] <= now]:
            self._take_parked(stream_id)
            sentence = (
                "the call's time ran out before it was started, since answers wait to be read: limits.max_unsent_bytes "
                f"is {self.backlog.limit} bytes, of which one connection gets an eighth"
            )
            self.fail(stream_id, CallError(Code.DEADLINE_EXCEEDED, sentence))
        late = [
            stream
            for stream in self.streams.values()
            if min(stream.deadline, stream.first_by) <= now and stream.last is None
        ]
        for stream in late:
            if stream.lingers:
                self.drop(stream.stream_id)
                self.reset(stream.stream_id, ErrorCode.NO_ERROR)
                continue
            sentence = "the call's time ran out"
            if stream.handler is None:
                sentence += " before its request had come in"
            self.finish(stream, CallError(Code.DEADLINE_EXCEEDED, sentence))

    def revoke(self, routes: Mapping[int, CallError]) -> None:
        """End what has been asked of the routes with these ids and has not begun, and their streams of messages."""
        for stream_id in [stream_id for stream_id, parked in self.parked.items() if id(parked[0]) in routes]:
            self.fail(stream_id, routes[id(self._take_parked(stream_id)[0])])
        for stream in tuple(self.streams.values()):
            error = None if stream.head is None else routes.get(id(stream.head.route))
            if error is not None and (stream.handler or stream.open):
                self.finish(stream, error)

    def _lost(self, stream_id: int, error: CallError) -> None:
        self.finish(self.streams[stream_id], error)

    def _credit(self, stream_id: int, size: int) -> None:
        self.out.append(window_update(stream_id, size))
        self.touched()


def _path(head: Head | None) -> str:
    return head.route.path if head is not None and head.route is not None else ""


def _wrong_length() -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length does not match the body")
