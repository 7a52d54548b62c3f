"""The Klein application: which handler answers which path and method."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Callable, NamedTuple

from klein import Klein
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter

from ..security.gate import Visitor
from . import errors, fields
from .admin import AdminHandlers
from .answers import Answer
from .handlers import Handler, Handlers, Received, respond
from .openapi import OPENAPI
from .requests import KvRequest

#: What GET on the metrics path answers: content type and body, in the format OpenMetrics or else in that of Prometheus.
MetricsText = Callable[[bool], "tuple[str, bytes]"]


class Route(NamedTuple):
    """One path and method. The name is the operation's, as in logs."""

    name: str
    method: str
    path: str


class _Tail(BaseConverter):
    """All that is left of the path, slashes included, as it was sent."""

    regex = ".*"
    part_isolating = False
    weight = 200


def make_routes(metrics_path: str | None, health_path: str) -> list[Route]:
    """All routes; without `metrics_path` there is no such one."""
    routes = [
        Route("set", "POST", "/api/v1/set"),
        Route("get", "GET", "/api/v1/get/<tail:tail>"),
        Route("delete", "DELETE", "/api/v1/delete/<tail:tail>"),
        Route("scan", "GET", "/api/v1/scan"),
        Route("mset", "POST", "/api/v1/mset"),
        Route("mget", "POST", "/api/v1/mget"),
        Route("mdelete", "POST", "/api/v1/mdelete"),
        Route("get_config", "GET", "/api/v1/config"),
        Route("update_config", "POST", "/api/v1/config"),
        Route("admin_backup", "POST", "/api/v1/admin/backup"),
        Route("admin_backups", "GET", "/api/v1/admin/backups"),
        Route("admin_eviction", "GET", "/api/v1/admin/eviction"),
        Route("admin_orphans", "POST", "/api/v1/admin/orphans"),
        Route("openapi", "GET", "/api/v1/openapi.json"),
        Route("health", "GET", health_path),
    ]
    if metrics_path is not None:
        routes.append(Route("metrics", "GET", metrics_path))
    return routes


def make_handlers(handlers: Handlers, admin: AdminHandlers, metrics_text: MetricsText | None) -> dict[str, Handler]:
    """What answers each route, by its name; without `metrics_text` nothing answers that one."""
    by_name: dict[str, Handler] = {
        "set": handlers.set,
        "get": handlers.get,
        "delete": handlers.delete,
        "scan": handlers.scan,
        "mset": handlers.mset,
        "mget": handlers.mget,
        "mdelete": handlers.mdelete,
        "get_config": handlers.get_config,
        "update_config": handlers.update_config,
        "admin_backup": admin.backup,
        "admin_backups": admin.backups,
        "admin_eviction": admin.eviction,
        "admin_orphans": admin.orphans,
        "openapi": lambda _: succeed(Answer(200, OPENAPI)),
        "health": handlers.health,
    }
    if metrics_text is not None:
        by_name["metrics"] = _metrics_handler(metrics_text)
    return by_name


#: What answers a request: the route's name, the visitor, what came.
Serve = Callable[[str, Visitor, Received], "Deferred[Answer]"]


def make_app(routes: Sequence[Route], serve: Serve) -> Klein:
    """The routes as a Klein application that `serve` answers for. HEAD is answered wherever GET is."""
    app = Klein()
    app.url_map.converters["tail"] = _Tail
    # A key may hold any slashes, and no path is ever answered with a redirect.
    app.url_map.merge_slashes = False
    for route in routes:
        app.route(route.path, methods=[route.method], endpoint=route.name)(_serving(route.name, serve))
    app.handle_errors(HTTPException)(_unrouted)  # type: ignore[arg-type]  # the requests are the site's own
    return app


def _serving(name: str, serve: Serve) -> Callable[..., Deferred[bytes]]:
    def handle(request: KvRequest, tail: str = "") -> Deferred[bytes]:
        _, _, query = request.uri.partition(b"?")
        headers = request.requestHeaders
        content_type = request.getHeader(b"Content-Type")
        # Any byte may come; as Latin-1 none fails to decode.
        named = None if content_type is None else content_type.decode("latin-1")
        codings = tuple(fields.members(headers.getRawHeaders(b"content-encoding", ())))
        accept = tuple(headers.getRawHeaders(b"accept", ()))
        received = Received(tail.encode(), query, named, request.content.getvalue(), codings, accept)
        return respond(name, partial(serve, name, request.visitor), received).addCallback(request.begin)

    return handle


def _unrouted(request: KvRequest, failure: Failure) -> bytes:
    if isinstance(failure.value, MethodNotAllowed):
        method = request.method.decode("ascii")
        return request.begin(errors.method_not_allowed(method, list(failure.value.valid_methods or ())))
    return request.begin(errors.not_found())


def _metrics_handler(metrics_text: MetricsText) -> Handler:
    def metrics(received: Received) -> Deferred[Answer]:
        content_type, body = metrics_text(_prefers_open_metrics(received.accept))
        return succeed(Answer(200, body, content_type))

    return metrics


def _prefers_open_metrics(accept: Sequence[bytes]) -> bool:
    """Whether these lines of Accept name OpenMetrics 1.0.0, and do not weigh it less than the text format 0.0.4.

    Whoever names neither gets the text format: a scrape in a format that was not asked for is better than none.
    """
    text: dict[bytes, float] = {}
    open_metrics = 0.0
    for name, parameters, weight in fields.weighted(accept):
        version = parameters.get(b"version")
        if name == b"application/openmetrics-text":
            if version in (None, b"1.0.0"):
                open_metrics = max(open_metrics, weight)
        elif name in (b"*/*", b"text/*") or (name == b"text/plain" and version in (None, b"0.0.4")):
            text[name] = max(text.get(name, 0.0), weight)
    # What is named most exactly counts.
    weight = next((text[name] for name in (b"text/plain", b"text/*", b"*/*") if name in text), 0.0)
    return open_metrics > 0 and open_metrics >= weight
