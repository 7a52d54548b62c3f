"""The HTTP interface in memory: a site over the memory engine, without threads, sockets or real time.

`World` is the server with everything behind it, `Wire` one connection to it: bytes in, answers out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Callable, ClassVar, NamedTuple

from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock as FakeClock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure

from kvtwisted.backends.server import Configuration, ServerCommands
from kvtwisted.core.health import Health
from kvtwisted.core.limits import Limits
from kvtwisted.http.routes import Bounds, MetricsText
from kvtwisted.http.site import HttpOptions, make_site
from kvtwisted.observability.health_checks import HealthChecks
from kvtwisted.reactor.fair_pool import FairPool
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.connections import Connections
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.gate import Gate

from ..support.administration import FakeTasks
from ..support.backends import make_backend
from ..support.configuration import FakeConfiguration
from ..support.pools import ImmediateReactor, ManualPool
from ..support.recorders import CountingRecorder
from .streams import streamed

METRICS = ("text/plain; version=0.0.4; charset=utf-8", b"kv_gets_total 1.0\n")


def small_configuration() -> FakeConfiguration:
    """Two keys, one of which needs a restart."""
    return FakeConfiguration({"http.port": 8080, "eviction.enabled": True}, restart=("http.port",))


class FakeReactor(FakeClock, ImmediateReactor):
    """Timers that a test advances, and calls from threads that are made at once."""


class Reply(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def problem(reply: Reply) -> tuple[int, str, str]:
    """Status, code and sentence of an error, whose form is checked."""
    document = reply.json()
    assert document["success"] is False
    assert reply.headers["content-type"] == "application/json"
    return reply.status, document["code"], document["error"]


def parse_replies(raw: bytes, *, head: bool = False) -> list[Reply]:
    """The whole answers in `raw`; `head` says that they have no bodies, whatever their Content-Length."""
    replies = []
    while raw:
        start, separator, raw = raw.partition(b"\r\n\r\n")
        if not separator:
            raise AssertionError(f"a cut answer: {start!r}")
        status_line, *lines = start.decode("ascii").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if "transfer-encoding" in headers:
            found = streamed(start + separator + raw)
            replies.append(Reply(found.status, found.headers, found.body))
            raw = found.rest if found.is_whole else b""
            continue
        length = 0 if head else int(headers.get("content-length", 0))
        if len(raw) < length:
            raise AssertionError(f"a cut body: {len(raw)} of {length} bytes")
        replies.append(Reply(int(status_line.split(" ")[1]), headers, raw[:length]))
        raw = raw[length:]
    return replies


class WireTransport(StringTransportWithDisconnection):
    """A connection whose client reads everything at once, unless it is `stalled`."""

    stalled = False
    half_closed = False
    aborted = False

    def loseConnection(self) -> None:
        """Close, once all has been sent."""
        if not self.stalled:
            super().loseConnection()

    def loseWriteConnection(self) -> None:
        """Close the server's side."""
        self.half_closed = True

    def abortConnection(self) -> None:
        """Close at once."""
        self.aborted = True
        self.disconnect()

    def disconnect(self) -> None:
        """The client goes away, or the connection breaks."""
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionLost()))


class Wire:
    """One connection to the world's site, seen from the client."""

    transport: WireTransport

    def __init__(self, world: World, transport: WireTransport | None = None) -> None:
        self._world = world
        self.transport = transport or WireTransport()
        self.channel = world.site.buildProtocol(None)
        self.transport.protocol = self.channel
        self.channel.makeConnection(self.transport)

    @property
    def open(self) -> bool:
        """Whether the connection stands."""
        return bool(self.transport.connected)

    def send(self, data: bytes) -> None:
        """Send bytes as they are, and let the threads work unless the world is held."""
        self.channel.dataReceived(data)
        self._world.reactor.advance(0)
        if not self._world.held:
            self._world.work()

    def replies(self, *, head: bool = False) -> list[Reply]:
        """The answers since the last call."""
        raw = self.transport.value()
        self.transport.clear()
        return parse_replies(raw, head=head)

    def request(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send one request and return its answer. A body is JSON unless `content_type` says otherwise."""
        self.send(request_bytes(method, target, body, **headers))
        (reply,) = self.replies(head=method == "HEAD")
        return reply


def request_bytes(method: str, target: str, body: bytes | None = None, **headers: str) -> bytes:
    """One request as it goes over the wire; underscores in header names stand for hyphens."""
    fields = {"host": "localhost", **headers}
    if body is not None:
        fields.setdefault("content_type", "application/json")
        fields["content_length"] = str(len(body))
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + (body or b"")


class World:
    """A site with everything behind it. While `held`, nothing runs in the threads."""

    #: Whether new ones have a fast lane; the fixture `lane` says so for each test.
    fast_lane: ClassVar[bool] = True

    def __init__(
        self,
        *,
        capacity: int = 1024,
        configuration: Configuration | None = None,
        on_disk: bool = True,
        metrics_text: MetricsText | None = lambda is_open: METRICS,
        make_gate: Callable[[Door, Admission], Gate] = Gate,
        capabilities: frozenset[str] | None = None,
        connections: Connections | None = None,
        **options: Any,
    ) -> None:
        self.held = False
        self.reactor = FakeReactor()
        self.pool = ManualPool()
        #: That of the health checks.
        self.health_pool = ManualPool()
        self.recorder = CountingRecorder()
        self.health = Health()
        self.admission = Admission(capacity)
        self.bounds = Bounds(16 * 1_048_576, 30.0, Limits().max_batch_keys)
        self.tasks = FakeTasks()
        #: Event, who and facts of what the operator did.
        self.audited: list[tuple[str, str, Mapping[str, object]]] = []
        reactor: Any = self.reactor
        manual: Any = self.pool
        pool = FairPool(reactor, manual)
        self.storage, self.backend = make_backend(reactor, manual, self.health)
        if capabilities is not None:
            self.backend.capabilities = capabilities
        self.engine = self.storage.engine
        # What memory answers at once needs no thread, and could not be held.
        self.engine.slow = True
        self.server = ServerCommands(
            reactor, pool, configuration or small_configuration(), self.recorder.config_update,
            tasks=self.tasks.tasks if on_disk else None, task_pool=manual,
            audit=lambda *line: self.audited.append(line),
        )  # fmt: skip
        self.door = Door(reactor, self.backend, self.server, self.recorder, Limits(), self.health)
        self.site = make_site(
            make_gate(self.door, self.admission),
            pool,
            HealthChecks(self.reactor, self.health_pool, self.door.health),
            reactor=self.reactor,
            options=HttpOptions(**{"fast_lane": self.fast_lane, **options}),
            metrics_text=metrics_text,
            bounds=self.bounds,
            connections=connections,
            seconds=self.reactor.seconds,
        )

    @property
    def request_timeout(self) -> float:
        """Seconds."""
        return self.bounds.request_timeout

    @request_timeout.setter
    def request_timeout(self, seconds: float) -> None:
        self.bounds.request_timeout = seconds

    def work(self) -> None:
        """Let reactor and threads take turns until nothing waits for either."""
        self.reactor.advance(0)
        while self.pool.waiting or self.health_pool.waiting:
            self.pool.run_all()
            self.health_pool.run_all()
            self.reactor.advance(0)

    def wire(self) -> Wire:
        """A new connection."""
        return Wire(self)

    def request(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own; see `Wire.request`."""
        return self.wire().request(method, target, body, **headers)

    def post(self, target: str, document: Any) -> Reply:
        """POST `document` as JSON."""
        return self.request("POST", target, json.dumps(document).encode())

    def stored(self) -> dict[bytes, bytes]:
        """All records."""
        return self.storage.data()
