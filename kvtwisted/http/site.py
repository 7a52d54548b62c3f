"""The HTTP server: Twisted's, with bodies kept in memory and bounded, and a shutdown that lets requests finish.

Note [One more request when draining]: a client may send its next request on a connection that it has kept at any time,
also just when that is closed, and then cannot know whether it was carried out. So when the server stops, connections
are not simply closed. Each request that comes is still answered, with `Connection: close`, which tells the client not
to use the connection any more, and then it is closed. What has come in behind is answered first. Those that say nothing
for PARTING_SECONDS are closed, unless something has just come for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.web.http import Request
from twisted.web.resource import IResource
from twisted.web.server import Site

from ..observability.health_checks import HealthChecks
from ..reactor.fair_pool import FairPool
from ..sessions.connections import IN_ALL, ON_TRIAL, TRIAL_SECONDS, Connections
from ..sessions.gate import Gate
from . import errors
from .access_log import AccessLog
from .answers import Answer
from .application import KvRequest, make_app
from .authorization import Authorization
from .channel import KvChannel
from .collaborators import Collaborators, Ending
from .cors import Cors
from .deadlines import ByteLimits, Deadlines, Patience
from .dispatch import Dispatch
from .fast_lane import MAX_BODY, FastLane
from .fast_requests import RequestReader
from .fields import Hosts
from .heads import Rules
from .importing import Imports
from .lanes import Lanes
from .refusing import Refusals, Refuser
from .routes import Bounds, MetricsText, Services, make_routes

#: Makes what begins imports, from the deadlines of the connections.
MakeImports = Callable[[Deadlines], Imports]

#: Seconds that an idle connection has for one request more when the server stops.
PARTING_SECONDS = 2.0


@dataclass(frozen=True)
class HttpOptions:
    """What the server needs to know when it starts."""

    #: Bytes of one request's body at most.
    max_body_bytes: int = 16 * 1_048_576
    #: Seconds without traffic after which a connection is closed.
    idle_timeout: float = 75
    #: Seconds for the parts of a request to come, and for answers to go.
    patience: Patience = field(default_factory=Patience)
    #: Bytes that clients may make the server hold.
    byte_limits: ByteLimits = field(default_factory=ByteLimits)
    metrics_path: str = "/metrics"
    health_path: str = "/api/v1/health"
    #: Whether plain requests of the hot routes are answered without twisted.web and Klein.
    fast_lane: bool = True
    #: The names that the server goes by; None: any.
    hosts: Hosts | None = None
    #: The origins whose pages may read answers.
    cors: Cors = field(default_factory=Cors)
    #: What takes the lines of the access log; None: there is none.
    access_log: Callable[[bytes], None] | None = None


class KvSite(Site):
    """The factory of connections. Reactor thread."""

    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: Any,
        options: HttpOptions,
        authorization: Authorization,
        imports: MakeImports,
        *,
        rest: Callable[[], object] = lambda: None,
        connections: Connections | None = None,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """`resource` is what answers all but plain requests and imports; without `connections` there is no limit to
        them.

        `rest` is called when no connection is left.
        """
        super().__init__(resource, reactor=reactor, timeout=options.idle_timeout)
        #: Who may do what.
        self.authorization = authorization
        self.access_log = None if options.access_log is None else AccessLog(options.access_log)
        refuser = Refuser(options.cors, self.access_log)
        #: Requests refused before they were complete, by reason (`refusing.REASONS`).
        self.refused = refuser.counts
        #: Connections that are open; they enter and leave by themselves.
        self.channels: set[KvChannel] = set()
        self.deadlines = Deadlines(reactor, seconds, options.patience, options.byte_limits)
        self._rest = rest
        self._counted = connections
        if connections is not None:
            connections.of(lambda: self.channels)
        self._refusals = Refusals(reactor)
        self._ending = Ending()
        self._drained: Deferred[None] = Deferred()
        self._ends: list[IDelayedCall] = []
        make_lanes = None
        if options.fast_lane:
            max_body_bytes = min(options.max_body_bytes, MAX_BODY)
            reader = RequestReader(max_body_bytes, options.hosts, takes_origins=not options.cors)
            make_lanes = partial(Lanes, reactor, self._ending, authorization, self.access_log, reader.read)
            authorization.on_withdrawal(self._forget)
        self._collaborators = Collaborators(
            clock=reactor,
            authorization=authorization,
            deadlines=self.deadlines,
            members=self,
            ending=self._ending,
            rules=Rules(options.hosts, options.max_body_bytes, self.deadlines, authorization),
            refuser=refuser,
            begin_import=imports(self.deadlines).begin,
            make_request=partial(KvRequest, options.cors, self),
            make_lanes=make_lanes,
            idle_timeout=options.idle_timeout,
        )

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self.channels)

    def drain(self, grace: float) -> Deferred[None]:
        """Let every request under way be answered, then close its connection. Call it once, when listening ends.

        Idle connections may send one request more; see Note [One more request when draining]. What is left after
        `grace` seconds is aborted. The Deferred fires when no connection is left.
        """
        self._ending.draining = True
        self._refusals.abort()
        self._ends = [
            self.reactor.callLater(min(grace, PARTING_SECONDS), self._part),
            self.reactor.callLater(grace, self._abort),
        ]
        self._check_drained()
        return self._drained

    def opened(self, channel: KvChannel) -> None:
        """`channel` has got its connection."""
        self.channels.add(channel)

    def closed(self, channel: KvChannel) -> None:
        """`channel` has lost its connection."""
        is_open = channel in self.channels
        self.channels.discard(channel)
        if not self.channels:
            self._rest()
        self._check_drained()
        if self._counted is not None and is_open:
            self._counted.leave(channel.address, channel)

    def end_expired(self, wall: float) -> None:
        """End connections whose client's certificate has ended at `wall` (Unix time, seconds)."""
        now = self.deadlines.seconds()
        for channel in tuple(self.channels):
            channel.end_expired(wall, now)

    def _forget(self, withdrawn: object) -> None:
        for channel in self.channels:
            channel.forget()

    def _part(self) -> None:
        self._ending.parting = True
        for channel in list(self.channels):
            channel.part()

    def _abort(self) -> None:
        for channel in list(self.channels):
            channel.abort()

    def _check_drained(self) -> None:
        if self._ends and not self.channels:
            ends, self._ends = self._ends, []
            for end in ends:
                if end.active():
                    end.cancel()
            self._drained.callback(None)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A new connection, or what refuses it; none for those that the kernel still had when `drain` was called."""
        if self._ending.draining:
            return None
        address = getattr(addr, "host", "")
        reason = None if self._counted is None else self._counted.enter("http", address)
        if reason is not None and reason != ON_TRIAL:
            return self._refusals.refuse(self._too_many(reason))
        channel = KvChannel(self._collaborators, address)
        # Twisted's requests look for these.
        channel.factory = channel.site = self
        if reason == ON_TRIAL:
            self._counted.try_out(channel, "http")  # type: ignore[union-attr]  # it has said so
            channel.on_trial = self.reactor.callLater(TRIAL_SECONDS, channel.fail_trial)
        return channel

    def passed_trial(self, channel: KvChannel) -> None:
        """A connection on trial is an administrator's."""
        if self._counted is not None:
            self._counted.passed(channel)

    def refused_on_trial(self) -> Answer:
        """The answer to a connection on trial that is no administrator's."""
        assert self._counted is not None  # noqa: S101 - or nobody would be on trial
        return self._too_many(self._counted.refused_on_trial("http"))

    def _too_many(self, reason: str) -> Answer:
        counted, in_all = self._counted, reason == IN_ALL
        assert counted is not None  # noqa: S101 - or nobody would be refused
        return errors.too_many_connections(counted.limit if in_all else counted.limit_per_address, in_all=in_all)

    def log(self, request: Request) -> None:
        """Twisted has answered a request."""
        if self.access_log is not None and isinstance(request, KvRequest):
            self.access_log.other(
                request.channel.peer, request.method, request.uri, request.code, request.sentLength,
                monotonic() - request.received_at,
            )  # fmt: skip

    def startFactory(self) -> None:
        """Nothing to prepare: Twisted's own would keep a clock for the access log."""

    def stopFactory(self) -> None:
        """Nothing to end."""


def make_site(
    gate: Gate,
    pool: FairPool,
    checks: HealthChecks,
    *,
    reactor: Any,
    options: HttpOptions,
    metrics_text: MetricsText | None,
    bounds: Bounds,
    connections: Connections | None = None,
    seconds: Callable[[], float] = monotonic,
) -> KvSite:
    """The HTTP interface, ready to be listened with.

    Visitors whom `gate` admits find what is behind the door of their session; all find `checks`, which answer the
    health's. Large bodies are read in `pool`. `metrics_text` gives the content type and text of the
    metrics and runs on the reactor thread; None when monitoring is off. `connections` counts and limits connections;
    `seconds` is the clock of the deadlines.
    """
    dispatch = Dispatch(reactor, pool, Services(checks, metrics_text), bounds)
    authorization = Authorization(gate, lambda session: FastLane(session, dispatch, options.cors.always))

    routes = make_routes(options.metrics_path if metrics_text else None, options.health_path)
    return KvSite(
        make_app(routes, authorization.session, dispatch.answer, dispatch.stream).resource(),
        reactor,
        options,
        authorization,
        lambda deadlines: Imports(reactor, pool, bounds, authorization, deadlines),
        rest=dispatch.rest,
        connections=connections,
        seconds=seconds,
    )
