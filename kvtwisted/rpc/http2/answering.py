"""Streaming answers: one request, many messages, as `rpc.streams` has them.

Note [Backpressure of streams]: a part is asked for only while less than HIGH_WATER of those before it waits to be taken
by the client, and while the connection has room; so a client that does not read holds that much and one part. What
makes it go on is that its own messages have gone out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Callable

from twisted.internet.interfaces import IReactorTime

from ...commands.command import Command
from ...commands.streams import StreamCommand
from ...core.errors import without_frames
from ...sessions.session import Session
from ..calls import Terms
from ..errors import CallError, Code, call_error, stopping
from ..methods import SERVICES
from ..streams import STREAM_METHODS, StreamMethod
from .inbound import Message
from .requests import Route
from .responses import MESSAGE_PREFIX
from .stream import Stream

#: Bytes of a stream's messages that may wait before it asks for more.
HIGH_WATER = 65_536


class StreamedAnswers:
    """All open streams of this kind. Reactor thread."""

    def __init__(self, reactor: IReactorTime, terms: Terms, flush: Callable[[], None]) -> None:
        """`flush` is called in a later turn when parts have come."""
        self._reactor = reactor
        self.terms = terms
        self._flush = flush
        self._flushing = False
        self._open: set[StreamedAnswer] = set()
        self._stopping = False
        # One function for each method: Watches with the same one share what it makes.
        self._methods = [(method, partial(_framed, method)) for method in STREAM_METHODS.values()]

    def routes(self, session: Session) -> list[Route]:
        """The methods, under each name of the service, for this session."""
        return [
            Route(f"/{service}/{method.name}", streaming=partial(self._begin, session, method, encode))
            for service in SERVICES
            for method, encode in self._methods
        ]

    def stop(self) -> None:
        """End all that are open, and let no more in."""
        self._stopping = True
        for answer in tuple(self._open):
            answer.cut(stopping())

    def _begin(
        self, session: Session, method: StreamMethod, encode: Callable[[Any], bytes], stream: Stream
    ) -> StreamedAnswer:
        if self._stopping:
            raise stopping()
        answer = StreamedAnswer(self, session, method, encode, stream)
        self._open.add(answer)
        return answer

    # For answers.

    def ended(self, answer: StreamedAnswer) -> None:
        """It is over."""
        self._open.discard(answer)

    def touched(self) -> None:
        """There is something to send, and perhaps nobody who would see to it."""
        if not self._flushing:
            self._flushing = True
            self._reactor.callLater(0, self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self._flush()


def _framed(method: StreamMethod, part: Any) -> bytes:
    """The messages of a part, each with its prefix."""
    pieces: list[bytes] = []
    for message in method.messages(part):
        pieces += MESSAGE_PREFIX.pack(0, len(message)), message
    return b"".join(pieces)


class StreamedAnswer:
    """One of them: the handler of its stream. Reactor thread."""

    __slots__ = (
        "_command", "_encode", "_has_asked", "_has_settled", "_is_asking", "_method", "_service", "_session", "_stream",
    )  # fmt: skip

    def __init__(
        self,
        service: StreamedAnswers,
        session: Session,
        method: StreamMethod,
        encode: Callable[[Any], bytes],
        stream: Stream,
    ) -> None:
        self._service = service
        self._session = session
        self._method = method
        self._encode = encode
        self._stream = stream
        self._command: StreamCommand | None = None
        self._has_asked = self._has_settled = self._is_asking = False
        stream.on_end = self._cancel

    # For the stream.

    def received(self, messages: Sequence[Message]) -> None:
        """The request has come."""
        if self._command is not None or len(messages) > 1:
            raise CallError(Code.INVALID_ARGUMENT, "the call has more than one request message")
        method, session = self._method, self._session
        message, compressed = messages[0]
        session.before_reading(len(message))
        try:
            command = method.read(message, compressed, self._service.terms.max_response_bytes, self._encode)
            session.give_back(len(message))
            command.part = self._part
            session.submit(command, self._settled)
        except Exception as error:
            if not method.answered_in_message(error):
                raise
            self._refuse(error)
            return
        self._command = command
        self._ask()

    def half_closed(self) -> None:
        """The client has said all: it should have sent its request."""
        if self._command is None:
            self._stream.finish(CallError(Code.INVALID_ARGUMENT, "the call ended without a request message"))

    def cut(self, error: CallError) -> None:
        """Nothing more can come of the client, or of us."""
        self._stream.finish(error)

    def drained(self) -> None:
        """The client has taken all."""
        self._ask()

    def gone(self) -> None:
        """The call is over, whoever ended it."""
        self._cancel()
        self._service.ended(self)

    # For the command.

    def _ask(self) -> None:
        """Ask for more parts, as long as there is room: see Note [Backpressure of streams]."""
        if self._is_asking:
            return  # the part came at once, and the loop below goes on
        self._is_asking = True
        command, stream = self._command, self._stream
        while command is not None and self._may_ask(stream):
            self._has_asked = True
            command.more()
        self._is_asking = False

    def _may_ask(self, stream: Stream) -> bool:
        if self._has_asked or self._has_settled or stream.last is not None:
            return False
        return not stream.queued or (stream.queued < HIGH_WATER and not stream.responder.backlogged)

    def _part(self, messages: bytes) -> None:
        self._has_asked = False
        stream = self._stream
        stream.responder.served += 1
        stream.send(messages)
        self._service.touched()
        self._ask()

    def _settled(self, command: Command) -> None:
        self._has_settled = True
        error = command.error
        if error is not None and self._method.answered_in_message(error):
            self._refuse(error)
        else:
            self._stream.finish(None if error is None else call_error(error, self._method.name))
        self._service.touched()

    def _refuse(self, error: BaseException) -> None:
        assert self._method.refused is not None  # noqa: S101 - see `answered_in_message`
        self._stream.send_message(self._method.refused(without_frames(error)))
        self._stream.finish()

    def _cancel(self) -> None:
        if self._command is not None:
            self._command.cancel()
