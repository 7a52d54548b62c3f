"""The gRPC server on Twisted's reactor: it listens, knows its connections, and lets them end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import monotonic
from typing import Any, Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ...config.settings import Settings
from ...core.health import Health
from ...observability.health_checks import HealthChecks
from ...reactor.fair_pool import FairPool
from ...sessions.connections import IN_ALL, ON_TRIAL, Connections
from ...sessions.door import Door
from ...sessions.gate import Gate
from ...tls.listening import over_tls
from ...tls.renewal import Certificates
from ..calls import Terms
from ..errors import CallError, Code
from ..listening import BACKLOG, cannot_listen, check_address
from ..stream_slots import make_slots
from .answering import StreamedAnswers
from .connection import Connection
from .header_turn import HEADERS_WORK
from .inbound import Budget
from .lifetime import HANDSHAKE, REASONS, UNSENT
from .outbound import Backlog
from .pipelines import PipelineService
from .route_tables import RouteTables
from .streaming import HealthService, ReflectionService
from .turns import Turns
from .unary import UnaryCalls

#: Seconds between two looks at what takes too long.
LOOK_SECONDS = 0.25

_log = Logger(namespace="kvtwisted.rpc")


class NativeGrpcServer(Factory):
    """All services of this server on HTTP/2 connections of our own. Reactor thread."""

    noisy = False
    seconds = staticmethod(monotonic)

    def __init__(
        self,
        reactor: Any,
        gate: Gate,
        door: Door,
        pool: FairPool,
        health: Health,
        settings: Settings,
        *,
        certificates: Certificates | None = None,
        checks: HealthChecks,
        terms: Terms,
        connections: Connections | None = None,
    ) -> None:
        """What takes long to decode is decoded in `pool`. Without `connections` any number may be open, and without
        `certificates` there is no TLS. The settings are those of the start: see `retune`.
        """
        self._reactor = reactor
        self._settings = settings.grpc
        self._certificates = certificates
        self.terms = terms
        self.budget = Budget(settings.limits.max_unfinished_bytes, self.seconds)
        self.backlog = Backlog(settings.limits.max_unsent_bytes)
        self.header_turns = Turns(reactor, HEADERS_WORK, self.flush)
        #: Connections that were cut off, by reason (`lifetime.REASONS`), since the start.
        self.cut_off = dict.fromkeys(REASONS, 0)
        #: Those of streams that stay open.
        self.slots = make_slots(settings.limits)
        self._health = HealthService(reactor, checks, health, self.flush, self.slots.watch)
        self._reflection = ReflectionService(self.seconds, self.slots.reflection)
        self._pipelines = PipelineService(reactor, self.slots.pipeline, terms, self.flush)
        self._answers = StreamedAnswers(reactor, terms, self.flush)
        door.on_settled(self._pipelines.settled)
        door.on_settled(self.flush)
        others = [*self._health.routes(), *self._reflection.routes()]
        self._routes = RouteTables(
            gate,
            lambda session: UnaryCalls(pool, session, terms, self.flush),
            self._pipelines,
            self._answers,
            others,
            self._revoke,
        )
        #: What a visitor finds who asks for a path. Raises CallError.
        self.enter = self._routes.of
        #: The session of a visitor who is known, without an attempt to log in.
        self.find = gate.find
        #: What counts them, on all listeners together.
        self.counted = connections or Connections(lambda: sys.maxsize, lambda: sys.maxsize, 0)
        self.counted.of(lambda: self._connections)
        self._connections: set[Connection] = set()
        #: Connections that have something to send, which `flush` sends.
        self.dirty: list[Connection] = []
        self._port: Any = None
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._stopped: Deferred[None] | None = None

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    @property
    def calls(self) -> int:
        """Calls that have not ended, on all connections."""
        return sum([connection.streams.responder.count for connection in self._connections])

    def start(self, listen: Callable[[Any], Any] | None = None) -> int:
        """Listen, and return the port. Raises Unavailable, naming host and port, when that is not possible.

        `listen` makes Twisted's port of a factory where the socket is bound already, and raises OSError.
        """
        host, port = self._settings.host, self._settings.port
        factory = over_tls(self._reactor, self._certificates, self, self._too_late)
        try:
            if listen is not None:
                self._port = listen(factory)
            else:
                check_address(host, port)
                self._port = self._reactor.listenTCP(port, factory, BACKLOG, host)
        except CannotListenError as error:
            raise cannot_listen(host, port, str(error.socketError)) from None
        except OSError as error:
            raise cannot_listen(host, port, error.strerror or str(error)) from None
        self._health.start()
        self._looking.start(LOOK_SECONDS, now=False)
        return int(self._port.getHost().port)

    def retune(self, max_unfinished_bytes: int, max_unsent_bytes: int) -> None:
        """These hold from now on: bytes of incomplete requests, and of answers that clients have not taken."""
        self.budget.retune(max_unfinished_bytes)
        self.backlog.retune(max_unsent_bytes)
        self._relieve()
        self.flush()

    def stop(self, grace: float) -> Deferred[None]:
        """Stop: watchers hear NOT_SERVING, no new calls are taken, running ones have `grace` seconds to finish.

        Fires when no connection is left.
        """
        if self._port is None:
            return maybeDeferred(lambda: None)
        port, self._port = self._port, None
        stopped = self._stopped = Deferred()
        listening: Deferred[Any] = maybeDeferred(port.stopListening)
        self._health.stop()
        self._reflection.stop()
        self._pipelines.stop()
        self._answers.stop()
        for connection in tuple(self._connections):
            connection.drain()
        cutting_off = self._reactor.callLater(grace, self._abort)
        self._check_stopped()

        def ended(_: object) -> None:
            if cutting_off.active():
                cutting_off.cancel()
            self._looking.stop()

        return stopped.addCallback(lambda _: listening).addCallback(ended)

    def _too_late(self) -> None:
        self.cut_off[HANDSHAKE] += 1

    def _revoke(self, routes: Mapping[int, CallError]) -> None:
        for connection in tuple(self._connections):
            try:
                connection.revoke(routes)
            except Exception:
                # What is shown on the others must be looked at again all the same.
                _log.failure("a gRPC connection could not be made to look again who calls")
                connection.abort()
        self.flush()

    def _abort(self) -> None:
        for connection in tuple(self._connections):
            connection.abort()

    def _check_stopped(self) -> None:
        stopped = self._stopped
        if stopped is not None and not self._connections:
            self._stopped = None
            stopped.callback(None)

    def buildProtocol(self, addr: IAddress | None) -> Connection | None:
        """A new connection, or none when there are too many, or once the server stops: then it is closed at once."""
        if self._port is None:
            return None
        address = getattr(addr, "host", "")
        reason = self.counted.enter("grpc", address)
        if reason is not None and reason != ON_TRIAL:
            return None
        connection = Connection(self, address, on_trial=reason == ON_TRIAL)
        if reason == ON_TRIAL:
            self.counted.try_out(connection, "grpc")
        return connection

    def _look(self) -> None:
        now = self.seconds()
        for connection in tuple(self._connections):
            try:
                connection.look(now)
            except Exception:
                _log.failure("a gRPC connection could not be looked after")
                connection.abort()
        try:
            self.budget.look(now)
            self._relieve()
            self.flush()
        except Exception:
            # The next look is to come all the same: all deadlines hang on it.
            _log.failure("gRPC connections could not be looked after")

    def end_expired(self, wall: float) -> None:
        """End connections whose client's certificate has ended at `wall` (Unix time, seconds)."""
        now = self.seconds()
        for connection in tuple(self._connections):
            connection.end_expired(wall, now)

    def _relieve(self) -> None:
        """When far too many answers wait, cut those connections off that have not got on for the longest."""
        queued = self.backlog.queued
        if queued.bytes > 2 * queued.limit:
            slowest = sorted(self._connections, key=lambda connection: connection.lifetime.moved_at)
            waiting = [(connection, connection.streams.responder.sender.waiting) for connection in slowest]
            for connection in queued.victims(waiting, 2 * queued.limit):
                connection.cut_off(UNSENT)

    # For connections.

    def opened(self, connection: Connection) -> None:
        """One more."""
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """One less."""
        is_open = connection in self._connections
        self._connections.discard(connection)
        self._check_stopped()
        if is_open:
            self.counted.leave(connection.address, connection)

    def refused_on_trial(self) -> CallError:
        """One that is on trial is no administrator's; what to answer."""
        counted = self.counted
        in_all = counted.refused_on_trial("grpc") == IN_ALL
        name = "limits.max_connections" if in_all else "limits.max_connections_per_address"
        limit = counted.limit if in_all else counted.limit_per_address
        return CallError(Code.UNAVAILABLE, f"too many connections: {name} allows {limit}; try again")

    def flush(self) -> None:
        """Send what has gathered. Whoever answers calls, or frees memory that others wait for, sees to this."""
        while self.dirty:
            dirty, self.dirty = self.dirty, []
            for connection in dirty:
                try:
                    connection.flush()
                except Exception:
                    # It must not keep the others from being flushed.
                    _log.failure("a gRPC connection could not be flushed")
                    connection.abort()
