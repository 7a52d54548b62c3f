"""The Klein application: which handler answers which path and method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, NamedTuple

from klein import Klein
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter

from . import errors
from .admin import AdminHandlers
from .answers import Answer
from .channel import KvRequest
from .handlers import Handler, Handlers, Received, respond
from .openapi import OPENAPI

#: What GET on the metrics path answers: content type and body.
MetricsText = Callable[[], "tuple[str, bytes]"]


class Route(NamedTuple):
    """One path and method. The name is the operation's, as in logs."""

    name: str
    method: str
    path: str
    handler: Handler


class _Tail(BaseConverter):
    """All that is left of the path, slashes included, as it was sent."""

    regex = ".*"
    part_isolating = False
    weight = 200


def make_routes(
    handlers: Handlers, admin: AdminHandlers, metrics_path: str, health_path: str, metrics_text: MetricsText | None
) -> list[Route]:
    """All routes; without `metrics_text` there is no metrics path."""
    routes = [
        Route("set", "POST", "/api/v1/set", handlers.set),
        Route("get", "GET", "/api/v1/get/<tail:tail>", handlers.get),
        Route("delete", "DELETE", "/api/v1/delete/<tail:tail>", handlers.delete),
        Route("scan", "GET", "/api/v1/scan", handlers.scan),
        Route("mset", "POST", "/api/v1/mset", handlers.mset),
        Route("mget", "POST", "/api/v1/mget", handlers.mget),
        Route("mdelete", "POST", "/api/v1/mdelete", handlers.mdelete),
        Route("get_config", "GET", "/api/v1/config", handlers.get_config),
        Route("update_config", "POST", "/api/v1/config", handlers.update_config),
        Route("admin_backup", "POST", "/api/v1/admin/backup", admin.backup),
        Route("admin_backups", "GET", "/api/v1/admin/backups", admin.backups),
        Route("admin_eviction", "GET", "/api/v1/admin/eviction", admin.eviction),
        Route("admin_orphans", "POST", "/api/v1/admin/orphans", admin.orphans),
        Route("openapi", "GET", "/api/v1/openapi.json", lambda _: succeed(Answer(200, OPENAPI))),
        Route("health", "GET", health_path, handlers.health),
    ]
    if metrics_text is not None:
        routes.append(Route("metrics", "GET", metrics_path, _metrics_handler(metrics_text)))
    return routes


def make_app(routes: Sequence[Route]) -> Klein:
    """The routes as a Klein application. HEAD is answered wherever GET is."""
    app = Klein()
    app.url_map.converters["tail"] = _Tail
    # A key may hold any slashes, and no path is ever answered with a redirect.
    app.url_map.merge_slashes = False
    for route in routes:
        app.route(route.path, methods=[route.method], endpoint=route.name)(_serving(route))
    app.handle_errors(HTTPException)(_unrouted)  # type: ignore[arg-type]  # the requests are the site's own
    return app


def _serving(route: Route) -> Callable[..., Deferred[bytes]]:
    def serve(request: KvRequest, tail: str = "") -> Deferred[bytes]:
        _, _, query = request.uri.partition(b"?")
        content_type = request.getHeader(b"Content-Type")
        # Any byte may come; as Latin-1 none fails to decode.
        named = None if content_type is None else content_type.decode("latin-1")
        received = Received(tail.encode(), query, named, request.content.getvalue())
        return respond(route.name, route.handler, received).addCallback(request.begin)

    return serve


def _unrouted(request: KvRequest, failure: Failure) -> bytes:
    if isinstance(failure.value, MethodNotAllowed):
        method = request.method.decode("ascii")
        return request.begin(errors.method_not_allowed(method, list(failure.value.valid_methods or ())))
    return request.begin(errors.not_found())


def _metrics_handler(metrics_text: MetricsText) -> Handler:
    def metrics(_: Received) -> Deferred[Answer]:
        content_type, body = metrics_text()
        return succeed(Answer(200, body, content_type))

    return metrics
