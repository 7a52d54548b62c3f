"""A connection whose client takes what it was sent only when a test says so."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from kvtwisted.http.deadlines import REASONS, Patience

from .support import Wire, WireTransport, World, request_bytes

#: Short, to be waited for.
PATIENCE = Patience(head=5, body=10, sending=20)
#: What is counted while nobody was cut off.
NONE_CUT_OFF = dict.fromkeys(REASONS, 0)
GET = request_bytes("GET", "/api/v1/get/k")


class SlowTransport(WireTransport):
    """Keeps what is written as Twisted's does, pauses whoever writes too much, and can itself be paused."""

    bufferSize = 65_536

    def __init__(self) -> None:
        super().__init__()
        self.dataBuffer = b""
        self.offset = 0
        self._paused = False

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.dataBuffer += data
        if self.producer is not None and len(self.dataBuffer) > self.bufferSize:
            self._paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        """Keep all of it."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close, once all was taken."""
        self.disconnecting = True
        if not self.dataBuffer:
            self.disconnect()

    def take(self, count: int) -> bytes:
        """The client reads so many bytes."""
        data, self.dataBuffer = self.dataBuffer[:count], self.dataBuffer[count:]
        if not self.dataBuffer and self._paused and self.producer is not None:
            self._paused = False
            self.producer.resumeProducing()
        elif not self.dataBuffer and self.disconnecting and self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionLost()))
        return data


class SlowWire(Wire):
    """A connection with such a client. What it sends waits while the server does not read."""

    transport: SlowTransport

    def __init__(self, world: World) -> None:
        self.sent = b""
        super().__init__(world, SlowTransport())

    def send(self, data: bytes) -> None:
        """Send bytes, of which the server reads what it wants: at most 64 KiB at a time, as from a socket."""
        self.sent += data
        while self.sent and self.open and self.transport.producerState == "producing":
            part, self.sent = self.sent[:65_536], self.sent[65_536:]
            super().send(part)

    def read(self, count: int = 1 << 30) -> bytes:
        """Take so many bytes of what the server has to send, and let it go on."""
        taken = b""
        while self.transport.dataBuffer and len(taken) < count:
            taken += self.transport.take(count - len(taken))
            self.send(b"")
            self._world.work()
        return taken


def world_of(**options: Any) -> World:
    """A site without an idle timeout that would matter."""
    return World(idle_timeout=1000, patience=PATIENCE, **options)


def pass_time(world: World, seconds: float) -> None:
    """Let time pass in small steps, as it does."""
    steps = round(seconds / 0.25)
    for _ in range(steps):
        world.reactor.advance(seconds / steps)
