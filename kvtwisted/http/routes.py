"""The one table of routes: a row says everything about its route.

Klein and the fast lane serve it. Authorization uses what it requires, connections use which bodies it takes. Tests
compare it with the OpenAPI document and the pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any, Callable, NamedTuple

from twisted.internet.defer import Deferred, succeed

from ..commands.administration import CollectOrphans, CreateBackup, ListBackups, PlanEviction
from ..commands.command import Command
from ..commands.conditional import ConditionalDelete, ConditionalSet, Increment, Touch
from ..commands.configuration import GetConfig, UpdateConfig
from ..commands.delete import Delete
from ..commands.delete_range import DeleteRange
from ..commands.get import Get
from ..commands.mdelete import MDelete
from ..commands.mget import MGet
from ..commands.mset import MSet
from ..commands.mutations import DeleteKey
from ..commands.scan import Scan
from ..commands.scan_stream import ScanStream
from ..commands.set import Set
from ..commands.transact import Transact
from ..commands.watch import Watch
from ..observability.health_checks import HealthChecks
from ..sessions import grants, policy
from . import answers, bodies, event_stream, export, fields, large_bodies, raw, stream_urls, urls
from .answers import Answer
from .preconditions import UNCONDITIONAL, Preconditions
from .streaming import Style

#: What GET on the metrics path answers: content type and body, in the format OpenMetrics or else in that of Prometheus.
MetricsText = Callable[[bool], "tuple[str, bytes]"]

#: The OpenAPI 3.1 description, as it ships with the package. UTF-8 JSON. It names the default paths of metrics and
#: health, which the configuration may change.
OPENAPI: bytes = files(__package__).joinpath("openapi.json").read_bytes()


class Received(NamedTuple):
    """What a route may need of a request."""

    #: The path behind the route, as it was sent (percent-encoded).
    tail: bytes = b""
    #: What follows the first `?`, as it was sent.
    query: bytes = b""
    content_type: str | None = None
    body: bytes = b""
    #: The content codings of the body, and the lines of Accept.
    codings: tuple[bytes, ...] = ()
    accept: tuple[bytes, ...] = ()
    preconditions: Preconditions = UNCONDITIONAL
    #: Whether the body is a part of something: it has a Content-Range.
    is_part: bool = False
    #: The header Last-Event-ID, for routes whose answers come in parts.
    last_event_id: bytes | None = None


@dataclass
class Bounds:
    """Limits of one request. They follow the configuration from the next request on."""

    #: Bytes of keys and values in one answer.
    max_response_bytes: int
    #: Seconds.
    request_timeout: float
    #: Keys in one request.
    max_batch_keys: int

    def become(self, other: Bounds) -> None:
        """Take over the limits of another."""
        self.max_response_bytes = other.max_response_bytes
        self.request_timeout = other.request_timeout
        self.max_batch_keys = other.max_batch_keys


class Services(NamedTuple):
    """What routes without a command need. Without `metrics_text` there is no route for metrics."""

    checks: HealthChecks
    metrics_text: MetricsText | None


#: Makes the command of a request; of one with a large body in a pool thread. Raises InvalidRequest.
Read = Callable[[Received, Bounds], Command]
#: Answers a request that is no command. Reactor thread. Fails, at once or later, with what `errors.answer` can answer.
Handle = Callable[[Services, Received], "Deferred[Answer]"]


class Route(NamedTuple):
    """One path and method; HEAD is as GET. It has either `read` or `handle`, or else `takes_lines`."""

    #: The operation's, as in logs and in the OpenAPI document.
    name: str
    method: str
    #: As Klein takes it; `<tail:tail>` is all that is left.
    path: str
    #: What a grant must have, or a word of `policy`. It is looked at before anything of a request but its head is.
    requirement: str
    read: Read | None = None
    #: Makes the answer of the command's result; None: the command says it by itself. See `Command.encode`.
    encode: Callable[[Any], Answer] | None = None
    #: What is answered when the command is carried out; None: the command's encoded result is the answer.
    done: Answer | None = None
    handle: Handle | None = None
    #: Whether it has a body, and whether that may be large, since it has keys and values; from how many bytes on it is
    #: read in a pool thread; and whether it is a value as it is, not JSON.
    has_body: bool = False
    may_be_large: bool = False
    large: int = bodies.LARGE
    is_value: bool = False
    #: Whether it heeds If-Match and If-None-Match. Others than GET refuse them.
    is_conditional: bool = False
    #: How the answer is sent, if the command is a stream; and whether the body is stored while it comes in: see
    #: `importing`.
    stream: Style | None = None
    takes_lines: bool = False
    #: Whether the fast lane answers it, too.
    is_fast: bool = False

    @property
    def prefix(self) -> str:
        """What its paths begin with, or are."""
        return self.path.partition("<")[0]


def _set(received: Received, bounds: Bounds) -> Command:
    body = received.body
    read = bodies.set_arguments if len(body) <= bodies.LARGE else large_bodies.set_arguments
    written, condition = read(body)
    if condition is None:
        return Set(*written)
    return ConditionalSet(written, condition, encode=answers.key_set)


def read_get(received: Received, bounds: Bounds) -> Get:
    """The command of a get."""
    query = received.query
    if not query:
        key = urls.path_key(received.tail, query)
        return Get(key.encode(), encode=partial(answers.found, key=key))
    key, in_base64, with_etag = urls.get_arguments(received.tail, query)
    return Get(key.encode(), encode=partial(answers.found, key=key, in_base64=in_base64, with_etag=with_etag))


def read_delete(received: Received, bounds: Bounds) -> Command:
    """The command of a delete."""
    key = urls.path_key(received.tail, received.query).encode()
    condition = received.preconditions.for_writing()
    if condition is None:
        return Delete(key)
    return ConditionalDelete(DeleteKey(key), condition, encode=answers.key_deleted)


def _scan(received: Received, bounds: Bounds) -> Command:
    asked = urls.scan_arguments(received.query)
    return Scan(
        asked.prefix.encode(),
        cursor=asked.cursor.encode(),
        limit=asked.limit,
        keys_only=asked.keys_only,
        start=asked.start.encode(),
        end=asked.end.encode(),
        reverse=asked.reverse,
        count_only=asked.count_only,
        delimiter=asked.delimiter.encode(),
        budget=bounds.max_response_bytes,
        encode=partial(answers.page, asked=asked),
    )


def _mset(received: Received, bounds: Bounds) -> Command:
    body = received.body
    read = bodies.mset_arguments if len(body) <= bodies.LARGE else large_bodies.mset_arguments
    return MSet(*read(body, bounds.max_batch_keys))


def _mget(received: Received, bounds: Bounds) -> Command:
    body = received.body
    read = bodies.mget_arguments if len(body) <= bodies.LARGE else large_bodies.mget_arguments
    keys, in_base64 = read(body, bounds.max_batch_keys)
    encode = partial(answers.values, in_base64=True) if in_base64 else answers.values
    return MGet(keys, budget=bounds.max_response_bytes, encode=encode)


def _mdelete(received: Received, bounds: Bounds) -> Command:
    body = received.body
    read = bodies.mdelete_arguments if len(body) <= bodies.LARGE else large_bodies.mdelete_arguments
    return MDelete(read(body, bounds.max_batch_keys))


def _increment(received: Received, bounds: Bounds) -> Command:
    return Increment(bodies.increment_argument(received.body))


def _touch(received: Received, bounds: Bounds) -> Command:
    body = received.body
    read = bodies.touch_arguments if len(body) <= bodies.LARGE else large_bodies.touch_arguments
    return Touch(*read(body))


def _transact(received: Received, bounds: Bounds) -> Command:
    body = received.body
    read = bodies.transaction if len(body) <= TRANSACT_LARGE else large_bodies.transaction
    checks, mutations = read(body, bounds.max_batch_keys)
    return Transact(checks, mutations, encode=partial(answers.transacted, mutations=mutations))


def _delete_range(received: Received, bounds: Bounds) -> Command:
    prefix, start, end, everything, dry_run = bodies.range_argument(received.body)
    return DeleteRange(prefix, start, end, everything=everything, dry_run=dry_run)


def _export(received: Received, bounds: Bounds) -> Command:
    arguments = stream_urls.export_arguments(received.query)
    return ScanStream(
        arguments.prefix.encode(),
        arguments.start.encode(),
        arguments.end.encode(),
        cursor=arguments.cursor.encode(),
        limit=arguments.limit,
        budget=export.PART_BYTES,
        encode=export.ExportLines(base64=arguments.base64),
    )


def _watch(received: Received, bounds: Bounds) -> Command:
    arguments = stream_urls.watch_arguments(received.query, received.last_event_id)
    return Watch(
        key=arguments.key.encode(),
        prefix=arguments.prefix.encode(),
        after_revision=arguments.after_revision,
        with_values=arguments.with_values,
        budget=event_stream.PART_BYTES,
        encode=event_stream.ENCODERS[arguments.with_values, arguments.base64],
    )


def _update_config(received: Received, bounds: Bounds) -> Command:
    return UpdateConfig(bodies.config_argument(received.body))


def _create_backup(received: Received, bounds: Bounds) -> Command:
    return CreateBackup(bodies.backup_argument(received.body))


def _collect_orphans(received: Received, bounds: Bounds) -> Command:
    bodies.no_arguments(received.body, "orphans")
    return CollectOrphans()


def _bare(make: Callable[[], Command]) -> Read:
    """For a command that takes nothing of its request."""
    return lambda received, bounds: make()


def _openapi(services: Services, received: Received) -> Deferred[Answer]:
    return succeed(Answer(200, OPENAPI))


def _health(services: Services, received: Received) -> Deferred[Answer]:
    """If the check gives no answer, that is the reason for being unavailable."""
    checks = services.checks
    return checks.result().addCallback(lambda reason: answers.health(reason, checks.warnings()))


def _metrics(services: Services, received: Received) -> Deferred[Answer]:
    assert services.metrics_text is not None  # noqa: S101 - or there would be no route
    content_type, body = services.metrics_text(_prefers_open_metrics(received.accept))
    return succeed(Answer(200, body, content_type))


#: The path of values as they are.
RAW = "/api/v1/raw/<tail:tail>"
_RAW_PREFIX = b"/api/v1/raw/"
#: Bytes of a transact's body from which a pool thread reads it: a small mutation takes the parser as long as a long
#: string.
TRANSACT_LARGE = 16_384

SET = Route(
    "set", "POST", "/api/v1/set", grants.SET,
    read=_set, done=answers.KEY_SET, has_body=True, may_be_large=True, is_fast=True,
)  # fmt: skip
GET = Route("get", "GET", "/api/v1/get/<tail:tail>", grants.GET, read=read_get, is_fast=True)
DELETE = Route(
    "delete", "DELETE", "/api/v1/delete/<tail:tail>", grants.DELETE,
    read=read_delete, done=answers.KEY_DELETED, is_fast=True, is_conditional=True,
)  # fmt: skip
SCAN = Route("scan", "GET", "/api/v1/scan", grants.SCAN, read=_scan, is_fast=True)
RAW_GET = Route("get_raw", "GET", RAW, grants.GET, read=raw.read_get, is_conditional=True, is_fast=True)
RAW_PUT = Route(
    "put_raw", "PUT", RAW, grants.SET,
    read=raw.read_put, has_body=True, may_be_large=True, is_value=True, is_conditional=True, is_fast=True,
)  # fmt: skip
RAW_DELETE = Route(
    "delete_raw", "DELETE", RAW, grants.DELETE,
    read=read_delete, done=answers.KEY_DELETED, is_conditional=True, is_fast=True,
)  # fmt: skip
_HEALTH = Route("health", "GET", "/api/v1/health", policy.PUBLIC, handle=_health)
_METRICS = Route("metrics", "GET", "/metrics", grants.METRICS, handle=_metrics)

#: All, with their default paths.
ROUTES: Sequence[Route] = (
    SET,
    GET,
    DELETE,
    SCAN,
    Route(
        "mset", "POST", "/api/v1/mset", grants.SET,
        read=_mset, done=answers.KEYS_SET, has_body=True, may_be_large=True, is_fast=True,
    ),
    Route(
        "mget", "POST", "/api/v1/mget", grants.GET,
        read=_mget, has_body=True, may_be_large=True, is_fast=True,
    ),
    Route(
        "mdelete", "POST", "/api/v1/mdelete", grants.DELETE,
        read=_mdelete, done=answers.KEYS_DELETED, has_body=True, may_be_large=True,
    ),
    Route("export", "GET", "/api/v1/export", grants.SCAN, read=_export, stream=export.STYLE),
    Route("import", "POST", "/api/v1/import", grants.SET, takes_lines=True),
    Route("watch", "GET", "/api/v1/watch", grants.SCAN, read=_watch, stream=event_stream.STYLE),
    Route(
        "increment", "POST", "/api/v1/increment", grants.SET,
        read=_increment, encode=answers.incremented, has_body=True, is_fast=True,
    ),
    Route(
        "touch", "POST", "/api/v1/touch", grants.SET,
        read=_touch, encode=answers.touched, has_body=True, may_be_large=True, is_fast=True,
    ),
    Route(
        "transact", "POST", "/api/v1/transact", grants.SET,
        read=_transact, has_body=True, may_be_large=True, large=TRANSACT_LARGE, is_fast=True,
    ),
    Route(
        "delete_range", "POST", "/api/v1/delete_range", grants.DELETE,
        read=_delete_range, encode=answers.range_deleted, has_body=True,
    ),
    RAW_GET,
    RAW_PUT,
    RAW_DELETE,
    Route(
        "get_config", "GET", "/api/v1/config", grants.CONFIG_READ,
        read=_bare(GetConfig), encode=answers.configuration,
    ),
    Route(
        "update_config", "POST", "/api/v1/config", grants.CONFIG_WRITE,
        read=_update_config, encode=answers.config_updated, has_body=True,
    ),
    Route(
        "admin_backup", "POST", "/api/v1/admin/backup", grants.ADMIN,
        read=_create_backup, encode=answers.backup_made, has_body=True,
    ),
    Route(
        "admin_backups", "GET", "/api/v1/admin/backups", grants.ADMIN,
        read=_bare(ListBackups), encode=answers.backups,
    ),
    Route(
        "admin_eviction", "GET", "/api/v1/admin/eviction", grants.ADMIN,
        read=_bare(PlanEviction), encode=answers.eviction,
    ),
    Route(
        "admin_orphans", "POST", "/api/v1/admin/orphans", grants.ADMIN,
        read=_collect_orphans, encode=answers.orphans, has_body=True,
    ),
    Route("openapi", "GET", "/api/v1/openapi.json", policy.AUTHENTICATED, handle=_openapi),
    _HEALTH,
    _METRICS,
)  # fmt: skip

#: Those whose bodies may be large, by path; and the paths of others that take a body.
KEYED: Mapping[bytes, Route] = {
    route.path.encode(): route for route in ROUTES if route.may_be_large and not route.is_value
}
KEYLESS = frozenset(route.path.encode() for route in ROUTES if route.has_body and not route.may_be_large)
#: Those whose bodies are stored while they come in, by path.
STREAMED: Mapping[bytes, Route] = {route.path.encode(): route for route in ROUTES if route.takes_lines}


def keyed(method: bytes, path: bytes) -> Route | None:
    """The route of a request whose body may be large, by its method and path."""
    if method == b"PUT" and path.startswith(_RAW_PREFIX):
        return RAW_PUT
    return KEYED.get(path)


def make_routes(metrics_path: str | None, health_path: str) -> list[Route]:
    """All routes of a server; without `metrics_path` there is no such one."""
    paths = {_HEALTH: health_path, _METRICS: metrics_path}
    placed = [(route, paths.get(route, route.path)) for route in ROUTES]
    return [route._replace(path=path) for route, path in placed if path is not None]


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
    # The most specific name counts.
    weight = next((text[name] for name in (b"text/plain", b"text/*", b"*/*") if name in text), 0.0)
    return open_metrics > 0 and open_metrics >= weight
