"""A TCP transport without a socket, and a reactor without turns of its own, for protocols under a test's control."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from .pools import ManualPool


class ManualTransport:
    """What a protocol sees of Twisted's TCP connections: a bounded buffer, a producer to pause, a peer who may wait.

    `write` gathers in a buffer; `carry` lets the peer take of it as many bytes as it `accepts`. Above `capacity` the
    producer is paused, and resumed when all has gone. With `eager`, the transport has the `doWrite` of a real one, and
    what goes with it.
    """

    def __init__(self, later: Callable[..., object], *, capacity: int = 65_536, eager: bool = False) -> None:
        """`later(0, function, argument)` calls it in the next turn, as a reactor's callLater does."""
        self._later = later
        self._capacity = capacity
        if eager:
            self.doWrite = self.carry
        self.protocol: Any = None
        #: Told of all bytes as they are written.
        self.written: Callable[[bytes], object] = lambda data: None
        #: Told, in the next turn, that the protocol reads again.
        self.resumed: Callable[[], object] = lambda: None
        #: Bytes that the peer still takes.
        self.accepts = float("inf")
        #: Bytes that were written and have not gone out.
        self.buffered = 0
        self.connected = self.reading = False
        self.aborting = self.write_closing = self.write_closed = False
        self.no_delay = False
        self.producer: Any = None
        self.producer_paused = False

    def connect(self, protocol: Any) -> None:
        """Make `protocol` the one whose connection this is."""
        self.protocol = protocol
        self.connected = self.reading = True
        protocol.makeConnection(self)

    def lose(self, reason: BaseException | None = None) -> None:
        """The connection is gone."""
        if not self.connected:
            return
        self.connected = self.reading = False
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason or ConnectionDone()))

    def carry(self) -> None:
        """Take to the peer what it accepts."""
        if self.aborting or not self.connected:
            return
        taken = min(self.accepts, self.buffered)
        self.accepts -= taken
        self.buffered -= int(taken)
        if self.buffered:
            return
        if self.producer is not None and self.producer_paused:
            self.producer_paused = False
            self.producer.resumeProducing()
        elif self.write_closing:
            self.write_closed = True

    # The protocol's side.

    def write(self, data: bytes) -> None:
        """See ITransport."""
        assert type(data) is bytes
        if not self.connected or self.write_closed or not data:
            return
        self.written(data)
        self.buffered += len(data)
        if self.producer is not None and self.buffered > self._capacity:
            self.producer_paused = True
            self.producer.pauseProducing()

    @property
    def dataBuffer(self) -> bytes:
        """See FileDescriptor: what was written and has not gone out; here only whether there is any."""
        return b"some" if self.buffered else b""

    def writeSomeData(self, data: bytes) -> int:
        """See FileDescriptor: what the peer takes of `data` goes to it, past the buffer."""
        assert not self.buffered
        assert type(data) is bytes
        if not self.connected or self.aborting or self.write_closed:
            return len(data)
        taken = int(min(self.accepts, len(data)))
        self.accepts -= taken
        self.written(data[:taken])
        return taken

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See IConsumer."""
        assert streaming
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        """See IConsumer."""
        self.producer = None

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self.reading = False

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        if not self.reading and self.connected and not self.aborting:
            self.reading = True
            self._later(0, self.resumed)

    def loseWriteConnection(self) -> None:
        """See IHalfCloseableDescriptor."""
        self.write_closing = True
        self.write_closed = not self.buffered

    def abortConnection(self) -> None:
        """See IAbortingTransport."""
        if self.connected and not self.aborting:
            self.aborting, self.reading = True, False
            self._later(0, self.lose, ConnectionAborted())

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See ITCPTransport."""
        self.no_delay = enabled

    def getPeer(self) -> str:
        """See ITransport."""
        return "nobody"


class ManualReactor(Clock):
    """A Clock that listens to nobody; its pool's threads are the test, and their results come in the next turn."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ManualPool()

    def turn(self) -> None:
        """What is due now."""
        self.advance(0)

    def settle(self) -> None:
        """Run the pool's jobs and what is due, until nothing is left of either."""
        self.turn()
        while self.pool.waiting:
            self.pool.run_all()
            self.turn()

    def getThreadPool(self) -> ManualPool:
        """See IReactorThreads."""
        return self.pool

    def callFromThread(self, function: Callable[..., object], *args: Any, **kw: Any) -> None:
        """See IReactorFromThreads."""
        self.callLater(0, function, *args, **kw)

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> Any:
        """See IReactorTCP: a port that nobody can connect to."""
        return _ManualPort(port)


class _ManualPort:
    def __init__(self, port: int) -> None:
        self._port = port

    def getHost(self) -> SimpleNamespace:
        return SimpleNamespace(port=self._port or 1)

    def stopListening(self) -> Deferred[None]:
        return succeed(None)


def cut(data: bytes, sizes: tuple[int, ...], most: int = 3000) -> deque[bytes]:
    """`data` in pieces of these sizes, over and over, at `most` so many; all in one when there are no sizes."""
    pieces: deque[bytes] = deque()
    position, turn = 0, 0
    while sizes and position < len(data) and len(pieces) < most - 1:
        pieces.append(data[position : position + sizes[turn % len(sizes)]])
        position += sizes[turn % len(sizes)]
        turn += 1
    if position < len(data):
        pieces.append(data[position:])
    return pieces
