"""Twisted's requests, as they are handed to Klein."""

from __future__ import annotations

from functools import cached_property
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable

from twisted.python.failure import Failure
from twisted.web.http import datetimeToString
from twisted.web.server import Request

from ..sessions.gate import Visitor
from . import errors
from .answers import NOSNIFF, SERVER, Answer, phrase

if TYPE_CHECKING:
    from .channel import KvChannel
    from .cors import Cors


class KvRequest(Request):
    """A request whose body is in memory, and whose path reaches Klein as it was sent."""

    channel: KvChannel
    content: BytesIO
    #: When it was complete (`time.monotonic`).
    received_at: float

    def __init__(self, cors: Cors, render: Callable[[KvRequest], None], *args: Any, **kwargs: Any) -> None:
        """`render` hands it to the application; the other arguments are Twisted's.

        Klein's closures make a cycle of each request that only Python's collector finds. So it must not hold what
        is large: the transport, with all that a client which was cut off has not read. Nobody asks a request for it.
        """
        super().__init__(*args, **kwargs)
        self.transport = None
        self._cors = cors
        self._hand_over = render

    @cached_property
    def visitor(self) -> Visitor:
        """Who the request says is there; to be asked when its head is complete."""
        authorization = self.requestHeaders.getRawHeaders(b"authorization", ())
        return self.channel.visitor._replace(authorization=tuple(authorization))

    def gotLength(self, length: int | None) -> None:
        """The head is complete. Twisted would put a long body into a file."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body."""
        self.channel.take_body(self.content, data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The request is complete. Twisted would read forms out of its body and query."""
        self.received_at = monotonic()
        self.method, self.uri, self.clientproto = command, path, version
        self.path = path.partition(b"?")[0]
        self.args = {}
        self.process()

    def process(self) -> None:
        """Hand the request to the application, its path undecoded."""
        self.setHeader(b"Server", SERVER)
        self.setHeader(*NOSNIFF)
        preflight = None
        if self._cors.always:
            preflight = self._cors.preflight(self.method, self.requestHeaders)
            for name, value in self._cors.headers(self.requestHeaders):
                self.setHeader(name, value)
        self.setHeader(b"Date", datetimeToString())
        if preflight is not None:
            self.begin(preflight)
            self.finish()
            return
        self.prepath = []
        self.postpath = _segments(self.path)
        try:
            self._hand_over(self)
        except Exception:
            self.processingFailed(Failure())

    def begin(self, answer: Answer) -> bytes:
        """Set the status and headers of `answer`; returns the body, for the caller to write."""
        # Without a channel the client has gone.
        if self.channel is not None and self.channel.is_last_answer():
            self.channel.persistent = False
            self.setHeader(b"Connection", b"close")
        self.setResponseCode(answer.status, phrase(answer.status))
        # RFC 9110, section 8.6: 204 has neither.
        if answer.status != 204:
            self.setHeader("Content-Type", answer.content_type)
            self.setHeader("Content-Length", str(len(answer.body)))
        for name, value in answer.headers:
            self.setHeader(name, value)
        return answer.body

    def processingFailed(self, reason: Failure) -> Failure:
        """A defect outside of every handler. Twisted would answer with HTML."""
        self.write(self.begin(errors.answer(reason, "http")))
        self.finish()
        return reason

    def getRequestHostname(self) -> bytes:
        """No route depends on the Host header, and Klein fails on some that clients can send."""
        return b"localhost"


def _segments(path: bytes) -> list[bytes]:
    """The path as Klein takes it: its segments, still percent-encoded."""
    if path.startswith((b"http://", b"https://")):
        # The absolute form, which every server has to accept (RFC 9112, section 3.2.2).
        path = b"/" + path.split(b"/", 3)[3] if path.count(b"/") > 2 else b"/"
    # Klein would complete a missing first slash and drop a second one, and it fails on what is not ASCII.
    if not path.startswith(b"/") or path.startswith(b"//") or not path.isascii():
        return [b"*"]
    return path[1:].split(b"/")
