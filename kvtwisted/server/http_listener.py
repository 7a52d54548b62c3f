"""HTTP as the assembly has it: the site made as the settings say, its listening, and what it shows."""

from __future__ import annotations

from typing import Any, Callable

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.logger import Logger

from ..config.origins import cors_origins
from ..config.settings import Settings
from ..http.bodies import body_limit
from ..http.cors import Cors
from ..http.deadlines import HANDSHAKE, ByteLimits, Patience
from ..http.hosts import Hosts, words
from ..http.received import Bounds
from ..http.routes import MetricsText
from ..http.site import HttpOptions, make_site
from ..observability import catalogue
from ..observability.health_checks import HealthChecks
from ..observability.metrics import Metrics
from ..reactor.fair_pool import FairPool
from ..rpc.listening import joined
from ..sessions.connections import Connections
from ..sessions.gate import Gate
from ..tls.listening import over_tls
from ..tls.renewal import Certificates
from .sockets import HTTP, Sockets, refused

_log = Logger(namespace="kvtwisted")


class HttpListener:
    """From `start` to `drain`. Reactor thread. Construction opens nothing."""

    def __init__(
        self,
        reactor: Any,
        settings: Callable[[], Settings],
        sockets: Sockets,
        gate: Gate,
        pool: FairPool,
        checks: HealthChecks,
        connections: Connections,
        *,
        certificates: Certificates | None,
        is_open: bool,
        metrics_text: MetricsText,
        access_log: Callable[[bytes], None] | None,
    ) -> None:
        """`is_open` says that the gate lets everybody in, so that other sites' pages must be kept out by name.

        `access_log` takes the lines of the access log, if there is one.
        """
        now = settings()
        self._reactor = reactor
        self._settings = settings
        self._certificates = certificates
        self._sockets = sockets
        self._bounds = _bounds(now)
        self._port: Any = None
        self._address = ("", 0)
        hosts = Hosts([now.http.host, *words(now.http.allowed_hosts)]) if is_open else None
        self.site = make_site(
            gate,
            pool,
            checks,
            reactor=reactor,
            options=_options(now, hosts, access_log),
            metrics_text=metrics_text if now.monitoring.enabled else None,
            bounds=self._bounds,
            connections=connections,
        )

    def start(self) -> tuple[str, int]:
        """Listen; host and port. Raises Unavailable, naming those; then nothing listens."""
        http = self._settings().http
        try:
            factory = over_tls(self._reactor, self._certificates, self.site, self._too_late)
            self._port = self._sockets.listen(self._reactor, HTTP, factory)
        except OSError as error:
            raise refused(HTTP, http.host, http.port, error) from None
        self._address = http.host, self._port.getHost().port
        return self._address

    def announce(self) -> None:
        """Log where it listens."""
        scheme = "https" if self._certificates else "http"
        _log.info("HTTP on {scheme}://{address}", scheme=scheme, address=joined(*self._address))

    def drain(self, grace: float) -> Deferred[Any]:
        """Stop listening; running requests get `grace` seconds. Fires when no connection is left."""
        stopped: Deferred[Any] = maybeDeferred(self._port.stopListening)
        return gatherResults([stopped, self.site.drain(grace)], consumeErrors=True)

    def retune(self) -> None:
        """Apply the limits that are in force now."""
        now = self._settings()
        self._bounds.become(_bounds(now))
        self.site.deadlines.retune(_byte_limits(now))

    def end_expired(self, wall: float) -> None:
        """End connections whose client's certificate has ended at `wall` (Unix time, seconds)."""
        self.site.end_expired(wall)

    def show(self, metrics: Metrics) -> None:
        """Show the figures of its connections in the metrics."""
        site, deadlines = self.site, self.site.deadlines
        metrics.show(catalogue.CONNECTIONS, lambda: site.connections, transport=HTTP)
        metrics.show(catalogue.UNFINISHED_REQUEST_BYTES, lambda: deadlines.unfinished, transport=HTTP)
        metrics.show(catalogue.UNSENT_ANSWER_BYTES, lambda: deadlines.unsent, transport=HTTP)
        metrics.show(catalogue.UNFINISHED_REFUSED, lambda: deadlines.refused, transport=HTTP)
        metrics.show_counts(catalogue.CUT_OFF, deadlines.cut_off, "reason", transport=HTTP)
        metrics.show_counts(catalogue.HTTP_REFUSED, site.refused, "reason")

    def _too_late(self) -> None:
        self.site.deadlines.cut_off[HANDSHAKE] += 1


def _bounds(settings: Settings) -> Bounds:
    limits = settings.limits
    return Bounds(settings.http.max_response_bytes, limits.request_timeout, limits.max_batch_keys)


def _byte_limits(settings: Settings) -> ByteLimits:
    limits = settings.limits
    return ByteLimits(
        limits.max_unfinished_bytes, limits.max_unsent_bytes, settings.security.unauthenticated_body_bytes
    )


def _options(settings: Settings, hosts: Hosts | None, access_log: Callable[[bytes], None] | None) -> HttpOptions:
    http = settings.http
    return HttpOptions(
        max_body_bytes=body_limit(settings.limits.max_request_bytes),
        idle_timeout=http.idle_timeout,
        patience=Patience(http.header_timeout, http.body_timeout, http.send_timeout),
        byte_limits=_byte_limits(settings),
        metrics_path=settings.monitoring.metrics_path,
        health_path=settings.monitoring.health_path,
        fast_lane=http.fast_lane,
        hosts=hosts,
        cors=Cors(cors_origins(http.cors_origins)),
        access_log=access_log,
    )
