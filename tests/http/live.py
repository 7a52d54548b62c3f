"""A site on a real port, and a client that sends and receives bytes."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from kvtwisted.backends.server import Configuration, ServerCommands
from kvtwisted.core.health import Health
from kvtwisted.core.limits import Limits
from kvtwisted.http.routes import Bounds
from kvtwisted.http.site import HttpOptions, make_site
from kvtwisted.observability.health_checks import HealthChecks
from kvtwisted.reactor.fair_pool import FairPool
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.gate import Gate
from kvtwisted.tls.listening import over_tls
from kvtwisted.tls.renewal import Certificates

from ..support.administration import FakeTasks
from ..support.backends import make_backend
from ..support.recorders import CountingRecorder
from .support import METRICS

MAX_BODY_BYTES = 4 * 1_048_576

#: Environment of the programs that ask a live site: ours, but never through a proxy.
CLIENT_ENVIRONMENT = {**os.environ, "no_proxy": "*"}


class Client(Protocol):
    """A TCP client that keeps all it receives."""

    def __init__(self) -> None:
        self.received = b""
        self.open = True
        self._waiting: list[tuple[bytes, Deferred[None]]] = []
        self._closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Keep the bytes and wake who waits for them."""
        self.received += data
        still = []
        for wanted, waiter in self._waiting:
            if wanted in self.received:
                waiter.callback(None)
            else:
                still.append((wanted, waiter))
        self._waiting = still

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Wake who waits for the end, and fail who waits for more."""
        self.open = False
        self._closed.callback(None)
        for wanted, waiter in self._waiting:
            waiter.errback(AssertionError(f"closed before {wanted!r}; received {self.received!r}"))

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.write(data)

    def until(self, wanted: bytes) -> Deferred[None]:
        """Fires once `wanted` has been received."""
        if wanted in self.received:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiting.append((wanted, waiter))
        return waiter

    def closed(self) -> Deferred[None]:
        """Fires once the connection is gone, whoever closed it."""
        return self._closed


class LiveSite:
    """A site with everything behind it, listening."""

    def __init__(
        self,
        reactor: Any,
        pool: ThreadPool,
        configuration: Configuration,
        *,
        fast_lane: bool,
        certificates: Certificates | None = None,
    ) -> None:
        self._reactor = reactor
        tasks = FakeTasks()
        health, recorder = Health(), CountingRecorder()
        self.storage, backend = make_backend(reactor, pool, health)
        self.engine = self.storage.engine
        self.engine.slow = True
        fair = FairPool(reactor, pool)
        server = ServerCommands(reactor, fair, configuration, recorder.config_update, tasks=tasks.tasks, task_pool=pool)
        door = Door(reactor, backend, server, recorder, Limits(), health)
        self.site = make_site(
            Gate(door, Admission(1024)),
            fair,
            HealthChecks(reactor, pool, door.health),
            reactor=reactor,
            options=HttpOptions(max_body_bytes=MAX_BODY_BYTES, fast_lane=fast_lane),
            metrics_text=lambda is_open: METRICS,
            bounds=Bounds(16 * 1_048_576, 30.0, Limits().max_batch_keys),
        )
        #: Handshakes that were cut off.
        self.too_late: list[int] = []
        factory = over_tls(reactor, certificates, self.site, lambda: self.too_late.append(1))
        self._listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.port: int = self._listening.getHost().port
        self._drained: Deferred[None] | None = None

    async def connect(self) -> Client:
        """A new connection, once the site knows of it."""
        before = self.site.connections
        client: Client = await connectProtocol(TCP4ClientEndpoint(self._reactor, "127.0.0.1", self.port), Client())
        # The server's side is made when the kernel says so; an answer is the proof.
        client.send(b"HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.until(b"\r\n\r\n")
        client.received = b""
        assert self.site.connections == before + 1
        return client

    def drain(self, grace: float) -> Deferred[None]:
        """Stop listening and drain, as the server does when it stops."""
        self._listening.stopListening()
        self._drained = self.site.drain(grace)
        return self._drained

    async def stop(self) -> None:
        """Stop, unless a test did."""
        if self._drained is None:
            await self.drain(0)
