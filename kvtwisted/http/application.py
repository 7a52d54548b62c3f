"""The Klein application: the routes of the table, by path and method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter

from ..sessions.gate import Visitor
from . import errors, fields
from .answers import Answer
from .dispatch import Done, Running
from .received import Received
from .requests import KvRequest
from .routes import Route

#: Answers a request: called with the route, the visitor, what was received, and a function that is called once with the
#: answer, now or later. Returns what can be cancelled if nobody waits for the answer any more; then the function is not
#: called.
Serve = Callable[[Route, Visitor, Received, Done], "Running | None"]


class _Tail(BaseConverter):
    """The rest of the path, slashes included, as it was sent."""

    regex = ".*"
    part_isolating = False
    weight = 200


def make_app(routes: Sequence[Route], serve: Serve) -> Klein:
    """The routes as a Klein application that `serve` answers for. HEAD is answered wherever GET is."""
    app = Klein()
    app.url_map.converters["tail"] = _Tail
    # A key may hold any slashes, and no path is ever answered with a redirect.
    app.url_map.merge_slashes = False
    for route in routes:
        app.route(route.path, methods=[route.method], endpoint=route.name)(_serving(route, serve))
    app.handle_errors(HTTPException)(_unrouted)  # type: ignore[arg-type]  # the requests are the site's own
    return app


def _serving(route: Route, serve: Serve) -> Callable[..., Deferred[bytes]]:
    def handle(request: KvRequest, tail: str = "") -> Deferred[bytes]:
        _, _, query = request.uri.partition(b"?")
        headers = request.requestHeaders
        content_type = request.getHeader(b"Content-Type")
        # Any byte may come; as Latin-1 none fails to decode.
        named = None if content_type is None else content_type.decode("latin-1")
        codings = tuple(fields.members(headers.getRawHeaders(b"content-encoding", ())))
        accept = tuple(headers.getRawHeaders(b"accept", ()))
        received = Received(tail.encode(), query, named, request.content.getvalue(), codings, accept)
        running: Running | None = None

        def cancel(_: object) -> None:
            if running is not None:
                running.cancel()

        answered: Deferred[Answer] = Deferred(cancel)
        running = serve(route, request.visitor, received, answered.callback)
        return answered.addCallback(request.begin)

    return handle


def _unrouted(request: KvRequest, failure: Failure) -> bytes:
    if isinstance(failure.value, MethodNotAllowed):
        method = request.method.decode("ascii")
        return request.begin(errors.method_not_allowed(method, list(failure.value.valid_methods or ())))
    return request.begin(errors.not_found())
