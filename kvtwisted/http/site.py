"""The HTTP server: Twisted's, with bodies kept in memory and bounded, and a shutdown that lets requests finish."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.web.http import Request
from twisted.web.resource import IResource
from twisted.web.server import Site

from ..security.connections import Connections
from ..threaded.administration import Administration
from ..threaded.facade import AsyncOperations
from . import errors
from .admin import AdminHandlers
from .channel import KvChannel, KvRequest
from .deadlines import Deadlines, Patience
from .fast_lane import FastLane
from .handlers import Handlers
from .lanes import TwoLaneChannel
from .refusing import Refusals
from .routes import MetricsText, make_app, make_routes


@dataclass(frozen=True)
class HttpOptions:
    """What the server needs to know when it starts."""

    #: Bytes of one request's body at most.
    max_body_bytes: int = 16 * 1_048_576
    #: Seconds without traffic after which a connection is closed.
    idle_timeout: float = 60
    #: Seconds for the parts of a request to come, and for answers to go.
    patience: Patience = field(default_factory=Patience)
    metrics_path: str = "/metrics"
    health_path: str = "/api/v1/health"
    #: Whether plain requests of the hot routes are answered without twisted.web and Klein.
    fast_lane: bool = True


class KvSite(Site):
    """The factory of connections. Reactor thread."""

    # Twisted's default wraps its channel to negotiate HTTP/2, which is not offered here.
    protocol = KvChannel  # type: ignore[assignment]
    requestFactory = KvRequest
    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: Any,
        options: HttpOptions,
        lane: FastLane | None = None,
        *,
        connections: Connections | None = None,
        seconds: Callable[[], float] = time.monotonic,
        give_back: Callable[[], object] = lambda: None,
    ) -> None:
        """Without `lane` every request goes to twisted.web and `resource`; without `connections` there is no limit."""
        super().__init__(resource, reactor=reactor, timeout=options.idle_timeout)
        if lane is not None:
            self.protocol = partial(TwoLaneChannel, lane)  # type: ignore[assignment]  # any factory does
        self.max_body_bytes = options.max_body_bytes
        #: Connections that are open; they enter and leave by themselves.
        self.channels: set[KvChannel] = set()
        self.deadlines = Deadlines(reactor, seconds, options.patience, give_back)
        self._counted = connections
        self._refusals = Refusals(reactor, errors.too_many_connections())
        #: Whether `drain` has been called.
        self.draining = False
        self._drained: Deferred[None] = Deferred()
        self._end_of_grace: IDelayedCall | None = None

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self.channels)

    def drain(self, grace: float) -> Deferred[None]:
        """Let every request under way be answered, then close its connection. Call it once, when listening ends.

        Idle connections are closed at once. What is left after `grace` seconds is aborted. The Deferred fires when no
        connection is left.
        """
        self.draining = True
        self._refusals.abort()
        self._end_of_grace = self.reactor.callLater(grace, self._abort)
        for channel in list(self.channels):
            channel.drain()
        self._check_drained()
        return self._drained

    def closed(self, channel: KvChannel) -> None:
        """`channel` has lost its connection."""
        if self._counted is not None and channel in self.channels:
            self._counted.leave(channel.address)
        self.channels.discard(channel)
        self._check_drained()

    def _abort(self) -> None:
        for channel in list(self.channels):
            channel.abort()

    def _check_drained(self) -> None:
        end_of_grace = self._end_of_grace
        if end_of_grace is not None and not self.channels:
            self._end_of_grace = None
            if end_of_grace.active():
                end_of_grace.cancel()
            self._drained.callback(None)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A new connection, or what refuses it; none for those that the kernel still had when `drain` was called."""
        if self.draining:
            return None
        address = getattr(addr, "host", "")
        if self._counted is not None and self._counted.enter("http", address) is not None:
            return self._refusals.refuse()
        channel: Any = super().buildProtocol(addr)
        channel.address = address
        return channel

    def log(self, request: Request) -> None:
        """No access log: metrics count, and errors have their own log."""

    def startFactory(self) -> None:
        """Nothing to prepare: Twisted's own would keep a clock for the access log."""

    def stopFactory(self) -> None:
        """Nothing to end."""


def make_site(
    operations: AsyncOperations,
    administration: Administration,
    *,
    reactor: Any,
    options: HttpOptions,
    metrics_text: MetricsText | None,
    max_response_bytes: Callable[[], int],
    request_timeout: Callable[[], float],
    connections: Connections | None = None,
    seconds: Callable[[], float] = time.monotonic,
    give_back: Callable[[], object] = lambda: None,
) -> KvSite:
    """The HTTP interface over `operations` and `administration`, ready to be listened with.

    `metrics_text` gives the content type and text of the metrics and runs on the reactor thread; None when monitoring
    is off. `max_response_bytes` (keys and values of one answer) and `request_timeout` (seconds) are asked anew for
    each request. `connections` counts and limits connections; `seconds` is the clock of the deadlines;
    `give_back` is called when much memory was freed.
    """
    handlers = Handlers(operations, reactor, max_response_bytes, request_timeout)
    admin = AdminHandlers(administration)
    routes = make_routes(handlers, admin, options.metrics_path, options.health_path, metrics_text)
    lane = None
    if options.fast_lane:
        lane = FastLane(operations.direct, handlers, reactor, request_timeout, options.max_body_bytes)
    return KvSite(
        make_app(routes).resource(),
        reactor,
        options,
        lane,
        connections=connections,
        seconds=seconds,
        give_back=give_back,
    )
