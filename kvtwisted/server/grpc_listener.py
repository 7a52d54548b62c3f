"""gRPC as the assembly has it, over either transport: the server made as the settings say, and what it shows."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..config.settings import Settings
from ..core.health import Health
from ..observability import catalogue
from ..observability.health_checks import HealthChecks
from ..observability.metrics import Metrics
from ..reactor.fair_pool import FairPool
from ..reactor.pool import defer_to_pool
from ..rpc.calls import Terms
from ..rpc.grpcio.server import ThreadedGrpcServer
from ..rpc.http2.server import NativeGrpcServer
from ..rpc.listening import joined
from ..rpc.messages import message_limit
from ..sessions.connections import Connections
from ..sessions.door import Door
from ..sessions.gate import Gate
from ..tls.renewal import Certificates
from .sockets import GRPC, Sockets

_log = Logger(namespace="kvtwisted")


class GrpcListener:
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
        door: Door,
        health: Health,
    ) -> None:
        """`health` has the conditions that Watch streams follow."""
        self._reactor = reactor
        self._settings = settings
        self._certificates = certificates
        self._address = ("", 0)
        now = settings()
        terms = self._terms = _terms(now)
        #: The server if it is ours, which counts and limits what grpcio's does not.
        self.native: NativeGrpcServer | None = None
        self._start: Callable[[], int]
        #: Stops listening; running requests get that many seconds. Fires when no connection is left.
        self.drain: Callable[[float], Deferred[Any]]
        if now.grpc.transport == "native":
            native = self.native = NativeGrpcServer(
                reactor, gate, door, pool, health, now,
                certificates=certificates, checks=checks, terms=terms, connections=connections,
            )  # fmt: skip
            self._start, self.drain = partial(native.start, partial(sockets.listen, reactor, GRPC)), native.stop
            self.slots = native.slots
        else:
            threaded = ThreadedGrpcServer(
                reactor, gate, health, now, certificates=certificates, checks=checks, terms=terms
            )
            self._start = threaded.start
            self.drain = lambda grace: defer_to_pool(reactor, reactor.getThreadPool(), threaded.stop, grace)
            self.slots = threaded.slots

    def start(self) -> tuple[str, int]:
        """Listen; host and port. Raises Unavailable, naming those; then nothing listens."""
        self._address = self._settings().grpc.host, self._start()
        return self._address

    def announce(self) -> None:
        """Log where it listens."""
        over = " over TLS" if self._certificates else ""
        _log.info("gRPC on {address}{over}", address=joined(*self._address), over=over)

    def retune(self) -> None:
        """Apply the limits that are in force now."""
        self._terms.become(_terms(self._settings()))
        if self.native is not None:
            limits = self._settings().limits
            self.native.retune(limits.max_unfinished_bytes, limits.max_unsent_bytes)

    def end_expired(self, wall: float) -> None:
        """End connections whose client's certificate has ended at `wall` (Unix time, seconds)."""
        if self.native is not None:
            self.native.end_expired(wall)

    def show(self, metrics: Metrics) -> None:
        """Show the figures of its connections in the metrics."""
        native = self.native
        if native is not None:
            budget, backlog = native.budget, native.backlog
            metrics.show(catalogue.CONNECTIONS, lambda: native.connections, transport=GRPC)
            metrics.show(catalogue.UNFINISHED_REQUEST_BYTES, lambda: budget.used, transport=GRPC)
            metrics.show(catalogue.UNSENT_ANSWER_BYTES, lambda: backlog.queued.bytes, transport=GRPC)
            metrics.show(catalogue.UNFINISHED_REFUSED, lambda: budget.refused, transport=GRPC)
            metrics.show_counts(catalogue.CUT_OFF, native.cut_off, "reason", transport=GRPC)
        for kind, slots in self.slots._asdict().items():
            metrics.show(catalogue.STREAMS, partial(getattr, slots, "open"), kind=kind)
            metrics.show(catalogue.STREAMS_REFUSED, partial(getattr, slots, "refused"), kind=kind)


def _terms(settings: Settings) -> Terms:
    limits = settings.limits
    return Terms(
        message_limit(limits.max_request_bytes), settings.grpc.max_response_bytes, limits.request_timeout,
        limits.max_batch_keys,
    )  # fmt: skip
