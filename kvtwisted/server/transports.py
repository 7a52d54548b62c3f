"""The two listeners, HTTP and gRPC, started and drained together."""

from __future__ import annotations

from time import time
from typing import Any, Callable, NamedTuple

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from ..background.ticker import Ticker
from ..config.settings import Settings
from ..observability.metrics import Metrics
from .grpc_listener import GrpcListener
from .http_listener import HttpListener

#: Seconds between two looks at the ends of clients' certificates.
EXPIRY_LOOK_SECONDS = 1.0

_log = Logger(namespace="kvtwisted")


class Addresses(NamedTuple):
    """Where a started server listens: host and port of each interface."""

    http: tuple[str, int]
    grpc: tuple[str, int]


class Transports:
    """Both. Reactor thread."""

    def __init__(self, settings: Callable[[], Settings], http: HttpListener, grpc: GrpcListener) -> None:
        """`settings` gives those in force."""
        self._settings = settings
        self.http = http
        self.grpc = grpc
        self._both: tuple[HttpListener | GrpcListener, ...] = http, grpc

    def start(self) -> Addresses:
        """Listen. Raises Unavailable, naming host and port; then nothing listens."""
        http = self.http.start()
        try:
            return Addresses(http, self.grpc.start())
        except BaseException:
            self.http.drain(0)  # at once: nothing has been accepted before the reactor runs
            raise

    def announce(self) -> None:
        """Log where they listen."""
        for listener in self._both:
            listener.announce()

    def drain(self) -> Deferred[Any]:
        """Stop listening; running requests get `limits.shutdown_grace` seconds. Fires when no connection is left."""
        grace = self._settings().limits.shutdown_grace
        return gatherResults([listener.drain(grace) for listener in self._both], consumeErrors=True)

    def retune(self) -> None:
        """Apply the current limits to both. If one fails that is logged, and the other goes on."""
        for listener in self._both:
            try:
                listener.retune()
            except Exception:
                _log.failure("limits did not all get to {listener}", listener=type(listener).__name__)

    def tickers(self, reactor: Any) -> list[Ticker]:
        """What ends connections whose client's certificate has ended, if clients show any. Not yet started."""
        settings = self._settings()
        if not (settings.http.tls_client_ca or settings.grpc.tls_client_ca):
            return []
        return [Ticker("client certificates", reactor, EXPIRY_LOOK_SECONDS, self._end_expired)]

    def _end_expired(self) -> None:
        wall = time()
        for listener in self._both:
            listener.end_expired(wall)

    def show(self, metrics: Metrics) -> None:
        """Show metrics of connections, of what they hold, and of certificates."""
        for listener in self._both:
            listener.show(metrics)
