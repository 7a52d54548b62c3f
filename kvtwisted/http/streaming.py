"""Answers that come in parts: as fast as the client takes them, and no faster.

Note [Parts and backpressure]: a part is asked for only while the transport takes what it is given: once more than 64
KiB wait there it says so, and says again when all has gone. So a client that does not read makes the server hold a part
and what is read ahead of it, and is cut off by the deadline of all answers: some bytes have to go out within
`http.send_timeout`. A client that reads slowly is not. The deadline of requests does not end a stream.

In HTTP/1.1 parts are chunks. A body that ends without the last, empty chunk was cut. In HTTP/1.0 the end of the
connection is the end of the body. So what matters also says so in its last line: see Note [A cut is no end] in
`export`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Callable, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..commands.command import Command
from ..commands.streams import StreamCommand
from . import errors
from .answers import Answer

if TYPE_CHECKING:
    from .application import KvRequest


def problem_of(answer: Answer) -> dict[str, object]:
    """What the answer to an error tells of it: `error`, `code`, and what else there is."""
    document: dict[str, object] = json.loads(answer.body)
    del document["success"]
    return document


class Style(NamedTuple):
    """How a stream is sent."""

    content_type: str
    #: What is sent last when the command has come to its end, and when it has failed: with these fields of an answer.
    ended: Callable[[StreamCommand], bytes]
    broken: Callable[[StreamCommand, Mapping[str, object]], bytes]
    headers: tuple[tuple[str, str], ...] = ()
    #: What may be sent between parts and means nothing, if there is such a thing.
    nothing: bytes = b""


@implementer(IPushProducer)
class StreamingAnswer:
    """The answer of one request whose command is a stream. Reactor thread."""

    def __init__(self, request: KvRequest, name: str, style: Style) -> None:
        """`name` is the route's."""
        self._request = request
        self._name = name
        self._style = style
        self._command: StreamCommand | None = None
        # Whether nothing is sent any more.
        self._is_over = False
        # Whether the head was sent; the transport wants no more; a part is to be asked for; and is being asked for.
        self._has_begun = self._is_paused = self._is_wanted = self._is_asking = False
        #: Fires with what is to be sent last.
        self.last: Deferred[bytes] = Deferred(self._cancelled)

    def submitted(self, command: StreamCommand) -> None:
        """The command was let in: ask for its first part."""
        self._command = command
        self._want()

    def refused(self, answer: Answer) -> None:
        """It was not."""
        self._is_over = True
        self.last.callback(self._request.begin(answer))

    def input_ended(self) -> None:
        """The client sends no more: if it is gone, what is sent to it now is answered with a reset."""
        if self._has_begun and not self._is_paused and self._style.nothing:
            self._request.write(self._style.nothing)

    # For the command.

    def part(self, data: bytes) -> None:
        """Send it, and ask for the next one when there is room."""
        if self._is_over:
            return
        if not self._has_begun:
            self._begin()
        if self._request.method == b"HEAD":
            self._cancel()
            return
        if data:
            self._request.write(data)
        self._want()

    def settled(self, command: Command) -> None:
        """It has come to its end."""
        if self._is_over or not isinstance(command, StreamCommand):
            return
        error = command.error
        answer = None if error is None else errors.answer(Failure(error), self._name)
        if answer is not None and not self._has_begun:
            self.refused(answer)
            return
        if not self._has_begun:
            self._begin()
        style = self._style
        last = style.ended(command) if answer is None else style.broken(command, problem_of(answer))
        self._is_over = True
        self._request.end_stream()
        self.last.callback(last)

    def _begin(self) -> None:
        self._has_begun = True
        self._request.begin_stream(self, Answer(200, b"", self._style.content_type, self._style.headers))

    def _want(self) -> None:
        """Ask for a part now, or when there is room. A part may come at once, and ask for the next."""
        self._is_wanted = True
        if self._is_asking:
            return
        self._is_asking = True
        try:
            while self._is_wanted and not self._is_paused and self._command is not None and not self._is_over:
                self._is_wanted = False
                self._command.more()
        finally:
            self._is_asking = False

    def _cancel(self) -> None:
        if self._command is not None:
            self._command.cancel()

    def _cancelled(self, last: Deferred[bytes]) -> None:
        """The client is gone."""
        self._is_over = True
        self._cancel()

    # For the transport.

    def pauseProducing(self) -> None:
        """There is no room."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """All has gone."""
        self._is_paused = False
        if self._is_wanted:
            self._want()

    def stopProducing(self) -> None:
        """The client is gone."""
        self._cancel()
