"""The native server and its clients in one thread: no socket, no thread, no time but what a test lets pass."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hpack import Encoder
from twisted.logger import LogLevel

from kvtwisted.backends.server import ServerCommands
from kvtwisted.config.settings import GrpcSettings, LimitSettings, Settings
from kvtwisted.core.health import Health
from kvtwisted.core.limits import Limits
from kvtwisted.observability.health_checks import HealthChecks
from kvtwisted.reactor.fair_pool import FairPool
from kvtwisted.rpc.calls import Terms
from kvtwisted.rpc.http2.connection import Connection
from kvtwisted.rpc.http2.inbound import Incoming
from kvtwisted.rpc.http2.lifetime import LAST_CALLS_SECONDS
from kvtwisted.rpc.http2.server import LOOK_SECONDS, NativeGrpcServer
from kvtwisted.rpc.messages import message_limit
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.gate import Gate
from tests.support.backends import make_backend
from tests.support.configuration import FakeConfiguration
from tests.support.recorders import CountingRecorder
from tests.support.storage import Storage
from tests.support.transports import ManualReactor, ManualTransport, cut

from ..support import logged
from .observer import PREFACE, Observer
from .wire import Request, settings

#: Processor seconds that one example may take.
_PATIENCE = 60.0
#: Bytes of keys and values of one request.
MAX_REQUEST_BYTES = 150_000


class Hang(BaseException):
    """The server did not come to an end. No Exception, so that nobody catches it."""


def _hang(number: int, where: FrameType | None) -> None:
    raise Hang


def counted(incoming: Incoming) -> int:
    """The bytes of a stream's requests that the budget counts."""
    return incoming.held + incoming._kept + (0 if incoming._asking else incoming.promised)


class _Server(NativeGrpcServer):
    def seconds(self) -> float:  # type: ignore[override]
        return float(self._reactor.seconds())

    def start(self) -> int:
        # The same without a look at whether the port is free.
        self._port = self._reactor.listenTCP(1, self)
        self._health.start()
        self._looking.start(LOOK_SECONDS, now=False)
        return 1


class Link:
    """One connection: the client's side of it, and the server's."""

    def __init__(self, reactor: ManualReactor, connection: Connection, *, eager: bool, capacity: int) -> None:
        self.connection = connection
        self.observer = Observer()
        self.transport = ManualTransport(reactor.callLater, capacity=capacity, eager=eager)
        self.transport.written, self.transport.resumed = self.observer.received, self.read
        self.transport.connect(connection)
        self.encoder = Encoder()
        self.next_id = 1
        #: Calls that are not all sent: stream and frames.
        self.unsent: list[tuple[int, deque[bytes]]] = []
        #: Sizes of the chunks that the server is given; none: whatever was sent at once.
        self.sizes: tuple[int, ...] = ()
        self._waiting: deque[bytes] = deque()
        self._held = b""

    def greet(self, *values: tuple[int, int]) -> None:
        """The client's preface."""
        self.send(PREFACE + settings(*values))

    def send(self, data: bytes, *, hold: bool = False) -> None:
        """Give the server these bytes, when it reads; with `hold`, together with those that come next."""
        self._held += data
        if not hold:
            self._waiting += cut(self._held, self.sizes)
            self._held = b""
            self.read()

    def read(self) -> None:
        """Give the server what waits, as long as it reads."""
        while self._waiting and self.transport.reading:
            chunk = self._waiting.popleft()
            self.observer.sent(chunk)
            self.connection.dataReceived(chunk)
        if not self.transport.connected:
            self._waiting.clear()

    def begin(self, request: Request) -> tuple[int, deque[bytes]]:
        """A new stream, and the frames of a call on it, none of them sent."""
        stream_id, self.next_id = self.next_id, self.next_id + 2
        call = stream_id, deque(request.frames(stream_id, self.encoder))
        self.unsent.append(call)
        return call

    def check(self) -> None:
        """What is true of a connection between any two events."""
        if self.transport.connected and not self.connection.lifetime.failed:
            self.observer.settled()
        streams, lifetime = self.connection.streams, self.connection.lifetime
        responder, control = streams.responder, self.connection._control
        # While a header block waits for its turn, what came with it does too; nothing more is read.
        assert len(self.connection._rest) <= 9 + 16_384 or self.connection._turn.waiting
        assert not (self.connection._turn.waiting and self.transport.reading)
        assert not self.connection._out or not self.transport.connected
        assert len(responder.resets) <= 1000
        assert responder.count <= 1000
        assert len(responder.parked.by_id) <= len(responder.promised)
        assert len(streams.blocks.remembered) <= 64
        assert control._block is None or len(control._block) <= 32_768
        assert not streams.opened or lifetime.failed
        sender = responder.sender
        assert sender.queued - sender._kept == sum(stream.queued for stream in responder.streams.values()) >= 0
        assert not sender.ended
        assert not sender.drained
        # What has ended stays there until the peer reads on; till then nothing else comes.
        assert sender.paused or lifetime.failed or len(sender.ready) <= responder.count + 1
        # Calls under way when the peer does wrong are answered first, and have some seconds for that.
        if not self.transport.connected or lifetime._said:
            assert responder.count == 0
        elif lifetime.failed and not self.transport.aborting:
            assert lifetime._closing_at is not None
            assert lifetime._seconds() - lifetime._closing_at <= LAST_CALLS_SECONDS + LOOK_SECONDS


class Simulation:
    """A server over an engine in memory."""

    def __init__(self, *, in_flight: int = 16, budget: int | None = None, slow: bool = False) -> None:
        """`slow`: the engine may block, so that everything goes by the pool. `budget`: half of what `Budget` gets."""
        self.reactor = ManualReactor()
        self.health = Health()
        self.admission = Admission(in_flight)
        pool: Any = self.reactor.pool
        fair, recorder = FairPool(self.reactor, pool), CountingRecorder()
        storage, backend = make_backend(self.reactor, pool, self.health)
        self.store, self.engine = storage.store, storage.engine
        self.engine.slow = slow
        if isinstance(storage, Storage):
            # Not the time of the start: two simulations are to give the same answers.
            commits = storage.writer.commits
            commits.revisions.last = commits.history.begin = commits.history.last = 1000
        commands = ServerCommands(
            self.reactor, fair, FakeConfiguration({"http": {}}), recorder.config_update
        )  # fmt: skip
        door = Door(self.reactor, backend, commands, recorder, Limits(), self.health)
        self.server = _Server(
            self.reactor, Gate(door, self.admission), door, fair, self.health,
            Settings(grpc=GrpcSettings("", 0), limits=LimitSettings(max_unfinished_bytes=20 * MAX_REQUEST_BYTES)),
            terms=Terms(message_limit(MAX_REQUEST_BYTES), 4 << 20, 60.0, 10_000),
            checks=HealthChecks(self.reactor, pool, door.health),
        )  # fmt: skip
        if budget is not None:
            self.server.budget.retune(2 * budget)
        self.server.start()
        self.links: list[Link] = []
        self._living: dict[int, Link] = {}
        #: How clients connect: their settings, and `connect`'s arguments.
        self.greeting: tuple[tuple[int, int], ...] = ()
        self.manner: dict[str, Any] = {}

    def living(self, place: int) -> Link:
        """The client of this place; a new one when the server has done with the last."""
        link = self._living.get(place)
        if link is None or not link.transport.connected or link.connection.lifetime.failed:
            link = self._living[place] = self.connect(**self.manner)
            link.greet(*self.greeting)
        return link

    def connect(self, *, eager: bool = True, capacity: int = 65_536) -> Link:
        """One more client."""
        connection = self.server.buildProtocol(None)
        assert connection is not None
        self.links.append(Link(self.reactor, connection, eager=eager, capacity=capacity))
        return self.links[-1]

    def check(self) -> None:
        """What is true between any two events."""
        for link in self.links:
            link.check()
        held = [
            counted(stream.incoming)
            for link in self.links
            for stream in link.connection.streams.responder.streams.values()
            if stream.incoming is not None
        ]
        parked = [
            len(call.message[0])
            for link in self.links
            for call in link.connection.streams.responder.parked.by_id.values()
        ]
        assert self.server.budget.used == sum(held) + sum(parked)
        waiting = sum(
            link.connection.streams.responder.sender.queued + link.connection.streams.responder.expected.bytes
            for link in self.links
        )
        assert self.server.backlog.bytes == waiting
        assert self.server.backlog.bytes >= sum(link.connection.streams.responder.sender.queued for link in self.links)

    def end(self) -> None:
        """Let everything end, and assert that nothing is left."""
        self.reactor.settle()
        for link in self.links:
            link.transport.lose()
        self.reactor.settle()
        self.check()
        server = self.server
        assert server.connections == 0
        assert server.budget.used == 0
        assert server.budget.waiting == 0
        assert server.backlog.bytes == 0
        assert self.admission.in_flight == 0
        assert not server._health._watches
        assert [slots.open for slots in server.slots] == [0, 0, 0]
        assert not server._reflection._open
        assert not server._pipelines._open
        assert not server.dirty
        for link in self.links:
            assert link.connection.streams.responder.expected.bytes == 0


@contextmanager
def simulation(**options: Any) -> Iterator[Simulation]:
    """A Simulation that must end well: in time, with nothing left, and without anything logged as a failure."""
    before = signal.signal(signal.SIGVTALRM, _hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, _PATIENCE)
    try:
        with logged() as events:
            made = Simulation(**options)
            yield made
            made.end()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    bad = [event for event in events if event.get("log_level") in (LogLevel.error, LogLevel.critical)]
    assert not bad, "\n".join(
        event["log_failure"].getTraceback() if "log_failure" in event else str(event) for event in bad
    )
