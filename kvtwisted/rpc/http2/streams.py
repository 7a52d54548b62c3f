"""The streams of one connection: what the peer's frames do to them (RFC 9113, sections 5 and 8).

A call comes in one of two ways. Most have sent all they have within one chunk: their message is looked at in place, and
nothing is remembered of them, but for their number if the answer comes later. The others get a `Stream`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Callable

from ...sessions.gate import Visitor
from ...sessions.policy import PUBLIC
from ..errors import CallError, Code, call_error
from ..rights import rpc_requirement
from .flood_guard import TOKENS_PER_CALL, FloodGuard, tokens_for_headers
from .frames import DEFAULT_WINDOW, LARGEST_WINDOW, ConnectionFault, ErrorCode, Fault, StreamFault, window_update
from .header_blocks import FieldFault, HeaderBlocks, check_trailers
from .inbound import Incoming, Message
from .parked import ParkedCall, ParkedCalls
from .requests import Head, Routes, read_head
from .responder import MAX_STREAMS, Responder
from .stream import Stream

if TYPE_CHECKING:
    from .server import NativeGrpcServer

#: Tokens that a stream's fault costs, unless it is an honest mistake: more than a call brings.
_FAULT_TOKENS = 2 * TOKENS_PER_CALL
#: What each frame takes of the bytes that may be late, so that crumbs do not last for ever.
_LATE_FRAME_BYTES = 1024
#: Bytes of DATA that are worth a frame even if they end nothing.
_SMALL_DATA = 64
#: Seconds that the rest of a refused request may take.
_LINGER_SECONDS = 1.0


class Streams:
    """All streams of a connection. Reactor thread."""

    def __init__(
        self, server: NativeGrpcServer, visitor: Visitor, out: list[bytes], touched: Callable[[], None]
    ) -> None:
        """`visitor` is who the connection says is there; frames are appended to `out`, see `Responder`."""
        self._server = server
        self._out = out
        self._share = server.budget.share()
        self.visitor = visitor
        self._parked = ParkedCalls(server.budget, self._share)
        #: What answers their calls.
        self.responder = Responder(out, touched, server.backlog, self._parked, visitor.address)
        #: Those that have something to remember, by their numbers.
        self._streams = self.responder.streams
        self.guard = FloodGuard(server.seconds, self.responder)
        self.blocks: HeaderBlocks[Head] = HeaderBlocks(
            partial(read_head, self._enter), self.guard.spend, lambda head: head.lasts
        )
        self.last_id = 0
        #: Unary calls whose HEADERS came in the chunk that is being looked at, and nothing else yet.
        self.opened: dict[int, Head] = {}
        #: The visitor of the last call; None: none has come.
        self.shown: Visitor | None = None
        #: Raises CallError unless the visitor is an administrator, while that must be shown.
        self.on_trial: Callable[[Visitor], None] | None = None
        #: The last stream that is served, once the connection drains.
        self.last_served: int | None = None
        #: Whether a call was let in here that is not for everybody.
        self.known = False
        #: The last stream before the bytes that are being looked at, and how many calls were reset that came before.
        self.before_chunk = self._reset_later = 0
        #: Calls that have come.
        self.calls = 0

    def _enter(self, path: bytes, authorization: tuple[bytes, ...]) -> Routes:
        visitor = self.visitor._replace(authorization=authorization)
        self.shown = visitor
        if self.on_trial is not None:
            self.on_trial(visitor)
        return self._server.enter(visitor, path)

    def begin(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        """A whole header block has come."""
        self.calls += 1
        if self._is_open(stream_id):
            self._trailers(stream_id, block, end_stream)
            return
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if stream_id <= self.last_id:
            self.blocks.decode(block)
            self._leads_nowhere()
            self.guard.spend()
            if stream_id not in self.responder.resets:
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
        responder = self.responder
        if responder.count >= responder.allowed:
            self.guard.spend()
            if responder.count >= MAX_STREAMS:
                raise StreamFault(ErrorCode.REFUSED_STREAM, f"over {MAX_STREAMS} streams at once")
            responder.reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        if head.length > 0 and end_stream:
            raise _wrong_length()
        if head.refusal is not None:
            self._leads_nowhere()
            responder.refuse(stream_id, head, end_stream, self._server.seconds() + _LINGER_SECONDS)
        else:
            self.known = self.known or rpc_requirement(head.path) != PUBLIC
            self._open(stream_id, head, end_stream)

    def _leads_nowhere(self) -> None:
        """Charge for the header block that was looked at last, if it took more work than such blocks do."""
        self.guard.spend(tokens_for_headers(self.blocks.work, known=self.known))

    def open_all(self) -> None:
        """Make streams of the calls that are `opened`: what comes next of them is not all in this chunk."""
        opened = self.opened.copy()
        self.calls += len(opened)
        self.opened.clear()
        for stream_id, head in opened.items():
            self._open(stream_id, head, False)

    def _open(self, stream_id: int, head: Head, end_stream: bool) -> None:
        server, route = self._server, head.route
        assert route is not None  # noqa: S101 - or it would have been refused
        stream = self.responder.open_stream(stream_id)
        stream.head, stream.open = head, not end_stream
        stream.incoming = Incoming(
            server.budget,
            self._share,
            server.terms.message_limit,
            partial(self._credit, stream_id),
            partial(self._lost, stream_id),
        )
        self.responder.begun += 1
        now = server.seconds()
        if head.timeout is not None:
            stream.deadline = now + head.timeout
        if route.streaming is None:
            stream.deadline = min(stream.deadline, now + server.terms.request_timeout)
        else:
            stream.first_by = now + server.terms.request_timeout
            try:
                stream.handler = route.streaming(stream)
            except Exception as error:
                stream.finish(call_error(error, route.path))
                return
        if end_stream:
            self._half_close(stream)

    def data(self, stream_id: int, data: bytes, size: int, end_stream: bool) -> None:
        """DATA has come, which took `size` bytes of the windows."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.open:
            self._stray_data(stream_id, size)
            return
        stream.body += len(data)
        if stream.head is not None and stream.head.length >= 0:
            length = stream.head.length
            if stream.body > length or (end_stream and stream.body < length):
                raise _wrong_length()
        messages: Sequence[Message] = ()
        if stream.incoming is None:
            if stream.body > DEFAULT_WINDOW:
                raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window allows")
        elif stream.last is None:
            try:
                messages = stream.incoming.feed(data, size)
                if messages:
                    self._received(stream, messages)
                    if stream.message is not None and not end_stream:
                        stream.incoming.keep(len(stream.message[0]))
            except CallError as error:
                stream.finish(error)
        # Small messages are what some operations of a pipeline are: a window has thousands, which may all come at once.
        if len(data) < _SMALL_DATA and not (messages or end_stream):
            self.guard.spend()
        if end_stream and stream_id in self._streams:
            self._half_close(stream)

    def _stray_data(self, stream_id: int, size: int) -> None:
        if self.idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that was never opened")
        late = self.responder.resets.get(stream_id)
        if late is None:
            self.guard.spend()
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA on a stream that is closed")
        # What was on its way when the call was refused: no fault of the client's.
        if late > 0:
            self.responder.resets[stream_id] = late - max(size, _LATE_FRAME_BYTES)
        else:
            self.guard.spend()

    def _received(self, stream: Stream, messages: Sequence[Message]) -> None:
        if stream.handler is not None:
            stream.first_by = float("inf")
            try:
                stream.handler.received(messages)
            except Exception as error:
                raise call_error(error, stream.path) from None
        elif stream.message is None and len(messages) == 1:
            stream.message = messages[0]
        else:
            raise CallError(Code.INVALID_ARGUMENT, "the call has more than one request message")

    def _trailers(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        headers = self.blocks.decode(block)
        self._leads_nowhere()
        stream = self._streams.get(stream_id)
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
            self.responder.drop(stream.stream_id)
        if stream.last is not None or stream.incoming is None:
            return
        unfinished = stream.incoming.unfinished
        stream.incoming.close()
        if unfinished:
            stream.finish(CallError(Code.INVALID_ARGUMENT, "the call ended in the middle of a message"))
        elif stream.handler is not None:
            stream.handler.half_closed()
        elif stream.message is None:
            stream.finish(CallError(Code.INVALID_ARGUMENT, "the call ended without a request message"))
        else:
            self._complete(stream)

    def _complete(self, stream: Stream) -> None:
        """A unary request is whole: from here on it is like those that came in one chunk."""
        head, message = stream.head, stream.message
        assert head is not None and head.route is not None and message is not None  # noqa: S101, PT018
        stream_id, responder = stream.stream_id, self.responder
        del self._streams[stream_id]
        responder.promised[stream_id] = stream.window - responder.sender.initial_window
        call = ParkedCall(head.route, message, stream.deadline)
        if responder.backlogged or self._parked.by_id:
            try:
                self._parked.add(stream_id, call)
            except CallError as error:
                responder.fail(stream_id, error)
            else:
                responder.quick = False
        else:
            self._run(stream_id, call)

    def _run(self, stream_id: int, call: ParkedCall) -> None:
        data, compressed = call.message
        run = call.route.compressed if compressed else call.route.unary
        assert run is not None  # noqa: S101 - streaming routes do not come here
        run(self.responder, stream_id, data, call.deadline - self._server.seconds())

    def unpark(self) -> None:
        """Run calls that had to wait, as far as they need not any longer."""
        while self._parked.by_id and not self.responder.backlogged:
            self._run(*self._parked.take_next())
        self.responder.consider()

    def let_go(self) -> None:
        """Nothing comes or goes any more: forget the connection, so that its memory waits for no cyclic collector."""
        self.responder.let_go()
        self.blocks.let_go()

    def _is_open(self, stream_id: int) -> bool:
        return stream_id in self._streams or stream_id in self.responder.promised

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
            self.guard.spend()
        else:
            self._reset_later += 1
        # Nothing that was sent before can come any more.
        self.responder.resets.pop(stream_id, None)
        self.responder.drop(stream_id)

    def window_update(self, stream_id: int, increment: int) -> None:
        """WINDOW_UPDATE has come, for a stream or, where that is 0, for the connection."""
        guard = self.guard
        guard.tokens -= 1  # as `spend` does, without the call: some clients send two with each call
        if guard.tokens < 0:
            guard.refill()
        responder = self.responder
        promised = responder.promised
        if increment == 0:
            raise self.fault_on(stream_id)(ErrorCode.PROTOCOL_ERROR, "a window cannot grow by 0")
        if stream_id == 0:
            responder.sender.widen(increment)
        elif stream_id in promised or stream_id in self.opened:
            promised[stream_id] = widened = promised.get(stream_id, 0) + increment
            if widened + responder.sender.initial_window > LARGEST_WINDOW:
                raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, f"a stream's window is over {LARGEST_WINDOW}")
        elif stream_id in self._streams:
            responder.sender.widen_stream(self._streams[stream_id], increment)
        elif self.idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that was never opened")

    def fault_on(self, stream_id: int) -> type[Fault]:
        """A stream's fault, but the connection's where the stream is idle: that must not be reset (section 6.4)."""
        return ConnectionFault if self.idle(stream_id) else StreamFault

    def fault(self, stream_id: int, fault: StreamFault) -> None:
        """Reset a stream for what the peer did. Of honest mistakes it is told first."""
        if not isinstance(fault, FieldFault):
            self.guard.spend(_FAULT_TOKENS)
        elif not self._is_open(stream_id):
            self._out.append(self.responder.status(stream_id, Code.INVALID_ARGUMENT, str(fault)))
        self.responder.drop(stream_id)
        self.responder.reset(stream_id, fault.code)

    def no_more(self, error: CallError, *, tell: bool) -> None:
        """Nothing more comes of the peer. What has come whole is answered, and what has not ends.

        With `tell` that is by this error; a stream of messages ends with it anyway, once those that came are answered,
        and so does one that would go on without the peer, such as a Watch.
        """
        for stream in tuple(self._streams.values()):
            was_open, stream.open = stream.open, False
            if stream.handler is not None:
                stream.handler.cut(error)
            elif not was_open or stream.stream_id not in self._streams:
                continue
            elif tell and stream.incoming is not None:
                stream.finish(error)
            else:
                self.responder.drop(stream.stream_id)
        for stream_id in self.opened:
            self.responder.promised.pop(stream_id, None)
        self.opened.clear()

    def expire(self, now: float) -> None:
        """End the calls whose time is up."""
        for stream_id in self._parked.take_late(now):
            sentence = (
                "the call's time ran out before it was started, since answers wait to be read: limits.max_unsent_bytes "
                f"is {self._server.backlog.limit} bytes, of which one connection gets an eighth"
            )
            self.responder.fail(stream_id, CallError(Code.DEADLINE_EXCEEDED, sentence))
        late = [
            stream
            for stream in self._streams.values()
            if min(stream.deadline, stream.first_by) <= now and stream.last is None
        ]
        for stream in late:
            if stream.lingers:
                self.responder.drop(stream.stream_id)
                self.responder.reset(stream.stream_id, ErrorCode.NO_ERROR)
                continue
            sentence = "the call's time ran out"
            if stream.handler is None:
                sentence += " before its request had come in"
            stream.finish(CallError(Code.DEADLINE_EXCEEDED, sentence))

    def revoke(self, routes: Mapping[int, CallError]) -> None:
        """End what has been asked of the routes with these ids and has not begun, and their streams of messages."""
        for stream_id, refusal in self._parked.take_revoked(routes):
            self.responder.fail(stream_id, refusal)
        for stream in tuple(self._streams.values()):
            error = None if stream.head is None else routes.get(id(stream.head.route))
            if error is not None and (stream.handler or stream.open):
                stream.finish(error)

    def _lost(self, stream_id: int, error: CallError) -> None:
        self._streams[stream_id].finish(error)

    def _credit(self, stream_id: int, size: int) -> None:
        self._out.append(window_update(stream_id, size))
        self.responder.touched()


def _wrong_length() -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length does not match the body")
