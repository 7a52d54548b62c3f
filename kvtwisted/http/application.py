"""The lane of all requests that are not plain: twisted.web's requests, and the Klein application that answers them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES, datetimeToString
from twisted.web.server import Request, Site
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter

from ..sessions.gate import Visitor
from ..sessions.session import Session
from . import errors, fields
from .answers import NOSNIFF, SERVER, Answer, phrase
from .dispatch import Done, Running
from .preconditions import Preconditions
from .routes import Received, Route
from .streaming import StreamingAnswer
from .urls import origin_form

if TYPE_CHECKING:
    from .channel import KvChannel
    from .cors import Cors
    from .importing import Import

#: Gives the session of a visitor who may use a route; raises KvErrors.
Find = Callable[[Route, Visitor], Session]
#: Answers a request: called with the session, the route, what was received, and a function that is called once with the
#: answer, now or later. Returns what can be cancelled if nobody waits for the answer any more; then the function is not
#: called.
Serve = Callable[[Session, Route, Received, Done], "Running | None"]
#: Answers a request for a route whose answers come in parts.
Stream = Callable[[Session, Route, Received, StreamingAnswer], object]


class _Tail(BaseConverter):
    """The rest of the path, slashes included, as it was sent."""

    regex = ".*"
    part_isolating = False
    weight = 200


def make_app(routes: Sequence[Route], find: Find, serve: Serve, stream: Stream) -> Klein:
    """The routes as a Klein application that `serve` and `stream` answer for, for whom `find` finds. HEAD is answered
    wherever GET is.
    """
    app = Klein()
    app.url_map.converters["tail"] = _Tail
    # A key may hold any slashes, and no path is ever answered with a redirect.
    app.url_map.merge_slashes = False
    for route in routes:
        app.route(route.path, methods=[route.method], endpoint=route.name)(_serving(route, find, serve, stream))
    app.handle_errors(HTTPException)(_unrouted)  # type: ignore[arg-type]  # the requests are the site's own
    return app


def _serving(route: Route, find: Find, serve: Serve, stream: Stream) -> Callable[..., Deferred[bytes] | bytes]:
    def handle(request: KvRequest, tail: str = "") -> Deferred[bytes] | bytes:
        try:
            session = find(route, request.visitor)
        except Exception:
            return request.begin(errors.answer(Failure(), route.name))
        _, _, query = request.uri.partition(b"?")
        headers = request.requestHeaders
        content_type = request.getHeader(b"Content-Type")
        # Any byte may come; as Latin-1 none fails to decode.
        named = None if content_type is None else content_type.decode("latin-1")
        coded = headers.getRawHeaders(b"content-encoding")
        codings = () if coded is None else tuple(fields.members(coded))
        accept = tuple(headers.getRawHeaders(b"accept", ()))
        preconditions = Preconditions(
            tuple(headers.getRawHeaders(b"if-match", ())), tuple(headers.getRawHeaders(b"if-none-match", ()))
        )
        received = Received(
            tail.encode(), query, named, request.content.getvalue(), codings, accept, preconditions,
            headers.hasHeader(b"content-range"),
        )  # fmt: skip
        if route.stream is not None:
            answer = StreamingAnswer(request, route.name, route.stream)
            stream(session, route, received._replace(last_event_id=request.getHeader(b"Last-Event-ID")), answer)
            return answer.last
        running: Running | None = None

        def cancel(_: object) -> None:
            if running is not None:
                running.cancel()

        answered: Deferred[Answer] = Deferred(cancel)
        running = serve(session, route, received, answered.callback)
        return answered.addCallback(request.begin)

    return handle


def _unrouted(request: KvRequest, failure: Failure) -> bytes:
    if isinstance(failure.value, MethodNotAllowed):
        method = request.method.decode("ascii")
        return request.begin(errors.method_not_allowed(method, list(failure.value.valid_methods or ())))
    return request.begin(errors.not_found())


class KvRequest(Request):
    """A request whose body is in memory, and whose path reaches Klein as it was sent."""

    channel: KvChannel
    content: BytesIO
    #: When it was complete (`time.monotonic`).
    received_at: float
    #: What takes its body while that comes in.
    intake: Import | None = None
    #: Whether an answer that comes in parts has begun, and not ended.
    _is_streaming = False

    def __init__(self, cors: Cors, site: Site, *args: Any, **kwargs: Any) -> None:
        """The resource of `site` answers it; the other arguments are Twisted's.

        Klein's closures make a cycle of each request that only Python's collector finds. So it must not hold what
        is large: the transport, with all that a client which was cut off has not read. Nobody asks a request for it.
        """
        super().__init__(*args, **kwargs)
        self.transport = None
        self._cors = cors
        self._site = site

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
        if self.intake is None:
            self.channel.take_body(self.content, data)
        else:
            self.intake.received(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The request is complete: hand it to the application, its path undecoded. Twisted would read forms out of its
        body and query.
        """
        if self.intake is not None:
            self.intake.ended()
            return
        self._begin_answer(command, path, version)
        preflight = self._cors.preflight(self.method, self.requestHeaders) if self._cors.always else None
        if preflight is not None:
            self.begin(preflight)
            self.finish()
            return
        self.prepath = []
        self.postpath = _segments(self.path)
        try:
            self.render(self._site.resource)
        except Exception:
            self.processingFailed(Failure())

    def take_lines(self, intake: Import, method: bytes, target: bytes, version: bytes) -> None:
        """The head is complete; `intake` takes the body, and answers by and by."""
        self.intake = intake
        self._begin_answer(method, target, version)

    def _begin_answer(self, method: bytes, target: bytes, version: bytes) -> None:
        """Set what any answer has."""
        self.received_at = monotonic()
        self.method, self.uri, self.clientproto = method, target, version
        self.path = target.partition(b"?")[0]
        self.args = {}
        self.setHeader(b"Server", SERVER)
        self.setHeader(*NOSNIFF)
        if self._cors.always:
            for name, value in self._cors.headers(self.requestHeaders):
                self.setHeader(name, value)
        self.setHeader(b"Date", datetimeToString())

    def begin(self, answer: Answer) -> bytes:
        """Set the status and headers of `answer`; returns the body, for the caller to write."""
        # Without a channel the client has gone.
        if self.channel is not None and self.channel.is_last_answer():
            self.channel.persistent = False
            self.setHeader(b"Connection", b"close")
        self.setResponseCode(answer.status, phrase(answer.status))
        # RFC 9110, sections 8.6 and 15.4.5: 204 has neither, and 304 need not say what 200 would have.
        if answer.status not in NO_BODY_CODES:
            self.setHeader("Content-Type", answer.content_type)
            self.setHeader("Content-Length", str(len(answer.body)))
        for name, value in answer.headers:
            self.setHeader(name, value)
        return answer.body

    def begin_stream(self, producer: StreamingAnswer | Import, answer: Answer) -> None:
        """Send the head of an answer whose body comes in parts from `producer`, until `end_stream`."""
        channel = self.channel
        if self.clientproto != b"HTTP/1.1" or channel.is_last_answer():
            # Without chunks nothing but its end tells where the body ends.
            channel.persistent = False
            self.setHeader(b"Connection", b"close")
        self.setResponseCode(answer.status, phrase(answer.status))
        self.setHeader("Content-Type", answer.content_type)
        for name, value in answer.headers:
            self.setHeader(name, value)
        if isinstance(producer, StreamingAnswer):
            channel.stream = producer
        self._is_streaming = True
        self.registerProducer(producer, True)
        self.write(b"")

    def end_stream(self) -> None:
        """All of the body has come, but for the last that is written."""
        channel = self.channel
        channel.stream = None
        self._is_streaming = False
        self.unregisterProducer()
        if channel.is_last_answer():
            channel.persistent = False

    def end_import(self) -> None:
        """All is answered, whether the body has come or not."""
        self.end_stream()
        if self.channel.is_answering:
            self.finish()
            return
        # What comes behind is no request: the connection ends here.
        if self.chunked:
            self.channel.write(b"0\r\n\r\n")
        self._site.log(self)
        self.channel.linger()

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""
        if self._is_streaming:
            # That is how most watches end.
            self._site.log(self)
        if self.intake is not None:
            self.intake.cancel()
        super().connectionLost(reason)

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
    path = origin_form(path)
    # Klein would complete a missing first slash and drop a second one, and it fails on what is not ASCII.
    if not path.startswith(b"/") or path.startswith(b"//") or not path.isascii():
        return [b"*"]
    return path[1:].split(b"/")
