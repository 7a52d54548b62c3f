"""Connections that read straight from the poller meet what they meet with Twisted's own way."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Callable

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python import context, log
from twisted.python.failure import Failure

from kvtwisted.reactor.polling import read_straight

from ..e2e.harness import PATIENCE


class _Told(Protocol):
    """Keeps what it is told, and answers; fails when it is asked to."""

    def __init__(self, events: list[object]) -> None:
        self._events = events

    def dataReceived(self, data: bytes) -> None:
        """A word of the client."""
        self._events.append(data)
        if data == b"fail":
            raise ValueError("asked to")
        if data == b"abort":
            self.transport.abortConnection()  # type: ignore[union-attr]  # it has one
        elif data == b"close":
            self.transport.loseConnection()
        elif data == b"context":
            self._events.append(context.get(log.ILogContext)["system"])
        self.transport.write(data.upper() * (100_000 if data == b"much" else 1))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        self._events.append(reason.type.__name__)


class _World:
    """A reactor that the test drives, with a listening socket."""

    def __init__(self, straight: bool) -> None:
        self.reactor: Any = EPollReactor()
        if straight:
            read_straight(self.reactor)
        self.events: list[object] = []
        factory = Factory.forProtocol(lambda: _Told(self.events))  # type: ignore[arg-type]  # any callable does
        factory.noisy = False
        self._port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.address = ("127.0.0.1", self._port.getHost().port)

    def until(self, done: Callable[[], object]) -> None:
        """Turn until that is so."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline
            self.reactor.iterate(0.01)

    def connect(self) -> socket.socket:
        """A client, which the reactor has accepted."""
        before = len(self.reactor.getReaders())
        client = socket.create_connection(self.address, PATIENCE)
        self.until(lambda: len(self.reactor.getReaders()) > before)
        return client

    def say(self, client: socket.socket, word: bytes, events: int = 1) -> None:
        """Send a word; as many events follow."""
        before = len(self.events)
        client.sendall(word)
        self.until(lambda: len(self.events) >= before + events)
        self.reactor.iterate(0)  # the answer goes

    def close(self) -> None:
        """Let go of everything."""
        self.reactor.removeAll()
        self.reactor.fireSystemEvent("shutdown")
        self._port.socket.close()


@pytest.fixture(params=[False, True], ids=["Twisted's way", "straight"])
def world(request: pytest.FixtureRequest) -> Iterator[_World]:
    """Each test runs both ways."""
    made = _World(request.param)
    yield made
    made.close()


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """What is logged meanwhile."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def test_words_and_a_goodbye(world: _World) -> None:
    """What a client sends is read and answered; its end is told."""
    client, other = world.connect(), world.connect()
    world.say(client, b"one")
    world.say(other, b"two")
    assert (client.recv(9), other.recv(9)) == (b"ONE", b"TWO")
    client.close()
    world.until(lambda: len(world.events) == 3)
    world.say(other, b"three")
    assert world.events == [b"one", b"two", "ConnectionDone", b"three"]


def test_the_last_word_and_the_end_at_once(world: _World) -> None:
    """Both are told, in order, as with a client whose side alone has ended."""
    client = world.connect()
    client.sendall(b"last")
    client.shutdown(socket.SHUT_WR)
    world.until(lambda: len(world.events) == 2)
    assert world.events == [b"last", "ConnectionDone"]


def test_a_reset(world: _World) -> None:
    """It is the loss of the connection."""
    client = world.connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    world.until(lambda: world.events)
    assert world.events == ["ConnectionLost"]


@pytest.mark.parametrize(("word", "reason"), [(b"abort", "ConnectionAborted"), (b"close", "ConnectionDone")])
def test_our_own_end(world: _World, word: bytes, reason: str) -> None:
    """A protocol that ends its connection while it reads is told once."""
    client = world.connect()
    client.sendall(word)
    world.until(lambda: len(world.events) == 2)
    for _ in range(3):
        world.reactor.iterate(0)
    assert world.events == [word, reason]


def test_a_defect(world: _World, logged: list[LogEvent]) -> None:
    """It is logged with the connection's name, and ends that connection alone."""
    client, other = world.connect(), world.connect()
    world.say(client, b"fail", events=2)
    assert world.events == [b"fail", "ValueError"]
    assert client.recv(9) == b""
    (event,) = [event for event in logged if event.get("isError")]
    assert event["failure"].type is ValueError
    assert event["system"].startswith("_Told,")
    world.say(other, b"two")


def test_more_than_a_socket_takes(world: _World) -> None:
    """What is left goes when the client reads, and it is read from meanwhile."""
    client = world.connect()
    client.setblocking(False)
    for _ in range(20):
        world.say(client, b"much")
    received = 0

    def all_there() -> bool:
        nonlocal received
        with suppress(BlockingIOError):
            received += len(client.recv(1 << 20))
        return received == 20 * 400_000

    world.until(all_there)


def test_threads_and_timers(world: _World) -> None:
    """They have their turns as ever."""
    told: list[str] = []
    world.reactor.callLater(0.01, told.append, "timer")
    threading.Thread(target=world.reactor.callFromThread, args=(told.append, "thread")).start()
    world.until(lambda: sorted(told) == ["thread", "timer"])


def test_no_context_is_made() -> None:
    """This is what the shorter way is for."""
    world = _World(straight=True)
    world.say(world.connect(), b"context", events=2)
    assert world.events == [b"context", "-"]
    world.close()


def test_other_reactors_stay_as_they_are() -> None:
    """What waits in another way is not touched."""
    reactor = SelectReactor()
    iteration = reactor.doIteration
    read_straight(reactor)
    assert reactor.doIteration == iteration
    reactor.removeAll()
    reactor.fireSystemEvent("shutdown")
