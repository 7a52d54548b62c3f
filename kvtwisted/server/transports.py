"""The two listeners of the assembly: HTTP and gRPC over the same operations, started and drained together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from time import time
from typing import Any, Callable, NamedTuple

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.logger import Logger

from ..backends.administration import Administration
from ..background.ticker import Ticker
from ..config.origins import cors_origins
from ..config.settings import Settings
from ..core.health import Health
from ..http.bodies import body_limit
from ..http.cors import Cors
from ..http.deadlines import HANDSHAKE, ByteLimits, Patience
from ..http.hosts import Hosts, words
from ..http.received import Bounds
from ..http.site import HttpOptions, KvSite, make_site
from ..observability import catalogue
from ..observability.health_checks import HealthChecks
from ..observability.metrics import Metrics
from ..reactor.fair_pool import FairPool
from ..reactor.pool import defer_to_pool
from ..rpc.grpcio.server import ThreadedGrpcServer
from ..rpc.http2.server import NativeGrpcServer
from ..rpc.listening import joined
from ..rpc.options import GrpcOptions
from ..rpc.stream_slots import StreamSlots
from ..sessions.connections import Connections
from ..sessions.door import Door
from ..sessions.gate import Gate
from ..tls.listening import over_tls
from ..tls.renewal import ListenerCertificates
from .sockets import GRPC, HTTP, Sockets, refused

#: Seconds between two looks at the ends of clients' certificates.
EXPIRY_LOOK_SECONDS = 1.0

_log = Logger(namespace="kvtwisted")


class Addresses(NamedTuple):
    """Where a started server listens: host and port of each interface."""

    http: tuple[str, int]
    grpc: tuple[str, int]


def _bounds(settings: Settings) -> Bounds:
    limits = settings.limits
    return Bounds(settings.http.max_response_bytes, limits.request_timeout, limits.max_batch_keys)


class Behind(NamedTuple):
    """What the transports stand on."""

    health: Health
    checks: HealthChecks
    door: Door
    #: Threads that decode what is large.
    pool: FairPool
    administration: Administration
    metrics: Metrics
    gate: Gate
    #: Whether that lets everybody in.
    is_open: bool
    connections: Connections
    certificates: ListenerCertificates
    #: Bound for those on the reactor, or bound when they start.
    sockets: Sockets
    #: What takes the lines of the access log, if there is one.
    access_log: Callable[[bytes], None] | None


class _GrpcServer(NamedTuple):
    """A gRPC server of either transport: what starts it and returns the port, what stops it within a grace in seconds,
    its streams that stay open, and the server itself if it is ours, which counts and limits what grpcio does not.
    """

    start: Callable[[], int]
    stop: Callable[[float], Deferred[Any]]
    slots: StreamSlots
    native: NativeGrpcServer | None = None


class Transports:
    """Both. Reactor thread. Construction opens nothing."""

    def __init__(self, reactor: Any, settings: Callable[[], Settings], behind: Behind) -> None:
        """`settings` gives those in force."""
        self._reactor = reactor
        self._settings = settings
        self._behind = behind
        self._bounds = _bounds(settings())
        self._site = self._make_site()
        self._grpc = self._make_grpc()
        self._port: Any = None

    def start(self) -> Addresses:
        """Listen. Raises Unavailable, naming host and port; then nothing listens."""
        settings, certificates, sockets = self._settings(), self._behind.certificates, self._behind.sockets
        http = settings.http
        sockets.bind(settings)
        try:
            factory = over_tls(self._reactor, certificates.http, self._site, self._too_late)
            port = sockets.listen(self._reactor, HTTP, factory)
        except OSError as error:
            raise refused(HTTP, http.host, http.port, error) from None
        try:
            grpc_port = self._grpc.start()
        except BaseException:
            port.stopListening()  # at once: nothing has been accepted before the reactor runs
            raise
        self._port = port
        return Addresses((http.host, port.getHost().port), (self._settings().grpc.host, grpc_port))

    def announce(self, addresses: Addresses) -> None:
        """Log where they listen."""
        certificates = self._behind.certificates
        scheme = "https" if certificates.http else "http"
        _log.info("HTTP on {scheme}://{address}", scheme=scheme, address=joined(*addresses.http))
        over = " over TLS" if certificates.grpc else ""
        _log.info("gRPC on {address}{over}", address=joined(*addresses.grpc), over=over)

    def drain(self) -> Deferred[Any]:
        """Stop listening; running requests get `limits.shutdown_grace` seconds. Fires when no connection is left."""
        grace = self._settings().limits.shutdown_grace
        grpc_stopped = self._grpc.stop(grace)
        http_stopped: Deferred[Any] = maybeDeferred(self._port.stopListening)
        return gatherResults([http_stopped, self._site.drain(grace), grpc_stopped], consumeErrors=True)

    def retune(self) -> None:
        """Have the limits hold that are in force now. A failure of one is logged; the other goes on."""
        limits, native = self._settings().limits, self._grpc.native
        self._bounds.become(_bounds(self._settings()))
        try:
            self._site.deadlines.retune(self._byte_limits())
        except Exception:
            _log.failure("limits of bytes did not all get to HTTP")
        try:
            if native is not None:
                native.retune(limits.max_unfinished_bytes, limits.max_unsent_bytes)
        except Exception:
            _log.failure("limits of bytes did not all get to gRPC")

    def tickers(self) -> list[Ticker]:
        """What ends connections whose client's certificate has ended, if clients show any. Not yet started."""
        settings = self._settings()
        if not (settings.http.tls_client_ca or settings.grpc.tls_client_ca):
            return []
        return [Ticker("client certificates", self._reactor, lambda: EXPIRY_LOOK_SECONDS, self._end_expired)]

    def _end_expired(self) -> None:
        wall = time()
        self._site.end_expired(wall)
        if self._grpc.native is not None:
            self._grpc.native.end_expired(wall)

    def show(self, metrics: Metrics) -> None:
        """Have the connections, what they hold, and certificates shown."""
        site, deadlines, native = self._site, self._site.deadlines, self._grpc.native
        _show(
            metrics, "http", lambda: site.connections, lambda: deadlines.unfinished, lambda: deadlines.unsent,
            lambda: deadlines.refused, deadlines.cut_off,
        )  # fmt: skip
        if native is not None:
            budget, backlog = native.budget, native.backlog
            _show(
                metrics, "grpc", lambda: native.connections, lambda: budget.used, lambda: backlog.queued.bytes,
                lambda: budget.refused, native.cut_off,
            )  # fmt: skip
        connections = self._behind.connections
        metrics.show(catalogue.CONNECTIONS_MADE_WAY, lambda: connections.made_way)
        for reason in site.refused:
            metrics.show(catalogue.HTTP_REFUSED, partial(site.refused.__getitem__, reason), reason=reason)
        for kind, slots in self._grpc.slots._asdict().items():
            metrics.show(catalogue.STREAMS, partial(getattr, slots, "open"), kind=kind)
            metrics.show(catalogue.STREAMS_REFUSED, partial(getattr, slots, "refused"), kind=kind)
        for certificates in self._behind.certificates.all:
            read = partial(getattr, certificates, "expiry")
            metrics.show(catalogue.CERTIFICATE_EXPIRY, read, listener=certificates.files.listener)

    def _too_late(self) -> None:
        self._site.deadlines.cut_off[HANDSHAKE] += 1

    def _byte_limits(self) -> ByteLimits:
        settings = self._settings()
        return ByteLimits(
            settings.limits.max_unfinished_bytes,
            settings.limits.max_unsent_bytes,
            settings.security.unauthenticated_body_bytes,
        )

    def _make_site(self) -> KvSite:
        settings, behind = self._settings(), self._behind
        options = HttpOptions(
            max_body_bytes=body_limit(settings.limits.max_request_bytes),
            idle_timeout=settings.http.idle_timeout,
            patience=Patience(settings.http.header_timeout, settings.http.body_timeout, settings.http.send_timeout),
            byte_limits=self._byte_limits(),
            metrics_path=settings.monitoring.metrics_path,
            health_path=settings.monitoring.health_path,
            fast_lane=settings.http.fast_lane,
            hosts=Hosts([settings.http.host, *words(settings.http.allowed_hosts)]) if behind.is_open else None,
            cors=Cors(cors_origins(settings.http.cors_origins)),
            access_log=behind.access_log,
        )
        monitored = settings.monitoring.enabled
        return make_site(
            behind.gate,
            behind.pool,
            behind.administration,
            behind.checks,
            reactor=self._reactor,
            options=options,
            metrics_text=behind.metrics.exposition if monitored else None,
            bounds=self._bounds,
            connections=behind.connections,
        )

    def _make_grpc(self) -> _GrpcServer:
        settings, behind = self._settings(), self._behind
        options = GrpcOptions(
            host=settings.grpc.host,
            port=settings.grpc.port,
            threads=settings.grpc.threads,
            max_in_flight=settings.limits.max_in_flight,
            max_request_bytes=settings.limits.max_request_bytes,
            certificates=behind.certificates.grpc,
            max_unfinished_bytes=settings.limits.max_unfinished_bytes,
            max_unsent_bytes=settings.limits.max_unsent_bytes,
            max_pipelines=settings.limits.max_pipelines,
            max_watches=settings.limits.max_watches,
        )
        more: dict[str, Any] = {
            "max_response_bytes": lambda: self._settings().grpc.max_response_bytes,
            "max_batch_keys": lambda: self._settings().limits.max_batch_keys,
            "request_timeout": lambda: self._settings().limits.request_timeout,
            "checks": behind.checks,
        }
        gate, health = behind.gate, behind.health
        if settings.grpc.transport == "native":
            native = NativeGrpcServer(
                self._reactor, gate, behind.door, behind.pool, health, options, **more,
                connections=behind.connections,
            )  # fmt: skip
            listen = partial(behind.sockets.listen, self._reactor, GRPC)
            return _GrpcServer(partial(native.start, listen), native.stop, native.slots, native)
        threaded = ThreadedGrpcServer(self._reactor, gate, health, options, **more)
        reactor = self._reactor
        return _GrpcServer(
            threaded.start,
            lambda grace: defer_to_pool(reactor, reactor.getThreadPool(), threaded.stop, grace),
            threaded.slots,
        )


def _show(
    metrics: Metrics,
    transport: str,
    connections: Callable[[], int],
    unfinished: Callable[[], int],
    unsent: Callable[[], int],
    refused: Callable[[], int],
    cut_off: Mapping[str, int],
) -> None:
    """Have what one of our own transports counts shown."""
    metrics.show(catalogue.CONNECTIONS, connections, transport=transport)
    metrics.show(catalogue.UNFINISHED_REQUEST_BYTES, unfinished, transport=transport)
    metrics.show(catalogue.UNSENT_ANSWER_BYTES, unsent, transport=transport)
    metrics.show(catalogue.UNFINISHED_REFUSED, refused, transport=transport)
    for reason in cut_off:
        metrics.show(catalogue.CUT_OFF, partial(cut_off.__getitem__, reason), transport=transport, reason=reason)
