"""One stream with something to remember: a request that is not whole, an answer that waits, or a streaming call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, Protocol

from ..errors import CallError
from .inbound import Incoming, Message
from .outbound import Outgoing
from .requests import Head
from .responses import MESSAGE_PREFIX, ok_headers, ok_trailers

if TYPE_CHECKING:
    from .responder import Responder


class Handler(Protocol):
    """What answers one streaming call, by the methods of its `Stream`."""

    def received(self, messages: Sequence[Message]) -> None:
        """Messages came, one at least. May raise CallError, which ends the call."""

    def half_closed(self) -> None:
        """The client sends no more."""

    def cut(self, error: CallError) -> None:
        """Nothing more can come of the client: end with this status, once what has come is answered."""

    def drained(self) -> None:
        """All that was sent has gone out."""

    def gone(self) -> None:
        """The call is over, whoever ended it. Called once."""


class Stream(Outgoing):
    """A stream, with both of its directions. Reactor thread."""

    __slots__ = (
        "body", "deadline", "failed", "first_by", "handler", "head", "headers_sent", "incoming", "lingers", "message",
        "on_end", "open", "responder",
    )  # fmt: skip

    def __init__(self, responder: Responder, stream_id: int, window: int) -> None:
        super().__init__(stream_id, window)
        #: That of its connection.
        self.responder = responder
        self.head: Head | None = None
        self.incoming: Incoming | None = None
        self.handler: Handler | None = None
        self.message: Message | None = None
        #: Called when its end was decided, which may come later than that: nothing more is sent.
        self.on_end: Callable[[], object] | None = None
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

    @property
    def path(self) -> str:
        """The method's, if there is one."""
        return "" if self.head is None else self.head.path

    @property
    def is_counted(self) -> bool:
        """Whether it is a call that may still end well."""
        return self.incoming is not None and not self.failed

    def close_incoming(self) -> None:
        """Nothing more is wanted of the peer."""
        if self.incoming is not None:
            self.incoming.close()

    def gone(self) -> None:
        """It is over: its handler is told."""
        handler, self.handler, self.on_end = self.handler, None, None
        if handler is not None:
            handler.gone()

    # For handlers.

    def pause(self) -> None:
        """Give the client no more window for messages."""
        if self.incoming is not None:
            self.incoming.paused = True

    def go_on(self) -> None:
        """Take messages again."""
        if self.incoming is not None and self.incoming.paused and self.open and self.last is None:
            self.incoming.go_on()

    def send_message(self, message: bytes) -> None:
        """Send one message, when the windows allow."""
        self.send(MESSAGE_PREFIX.pack(0, len(message)) + message)

    def send(self, messages: bytes) -> None:
        """Send messages, each with its prefix, when the windows allow."""
        if self.last is not None:
            return  # the call has ended, and perhaps the stream
        responder = self.responder
        if not self.headers_sent:
            self.headers_sent = True
            responder.out.append(ok_headers(self.stream_id))
        responder.sender.send(self, messages)
        if responder.quick and responder.backlogged:
            responder.quick = False
        responder.touched()

    def finish(self, error: CallError | None = None) -> None:
        """End the call, after what was sent, with status OK or the error's."""
        stream_id, responder = self.stream_id, self.responder
        if stream_id not in responder.streams or self.last is not None:
            return
        self.close_incoming()
        if error is not None:
            # An error earns nothing either.
            responder.begun -= self.is_counted
            self.failed = True
            last = responder.status(stream_id, error.code, str(error), first=not self.headers_sent)
        elif self.headers_sent:
            last = ok_trailers(stream_id)
        else:
            last = responder.status(stream_id, 0, "")
        responder.sender.end(self, last)
        responder.touched()
        if self.on_end is not None:
            self.on_end()
