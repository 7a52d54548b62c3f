"""How a native server ends: connections are told first, calls that were taken are answered, nobody holds it up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from grpc import StatusCode
from hyperframe.frame import GoAwayFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from kvtwisted.rpc.http2 import server
from kvtwisted.rpc.http2.connection import Connection
from kvtwisted.rpc.http2.lifetime import REASONS
from kvtwisted.rpc.http2.server import NativeGrpcServer

from ...support.reactors import on
from ..support import MIB, PATIENCE, Client, NativeServer, World, wait_until
from .bystander import Skew, eventually
from .peer import Peer

_CHANNELS, _CALLERS = 3, 8
_REFUSED_STREAM = 7


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Skew:
    """The servers' time; they look at what takes too long all the time."""
    clock = Skew()
    monkeypatch.setattr(NativeGrpcServer, "seconds", staticmethod(clock))
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.01)
    return clock


@pytest.fixture(params=["native", "native, by the pool"])
def world(request: pytest.FixtureRequest, clock: Skew) -> Iterator[World]:
    """A native server."""
    world = World(transport=request.param)
    world.start()
    yield world
    world.stop()


@contextmanager
def stopping(world: World, grace: float = PATIENCE) -> Iterator[None]:
    """The server is being stopped within the block, and has ended after it."""
    thread = threading.Thread(target=world.server.stop, args=(grace,), name="stopping")
    thread.start()
    yield
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the server did not end"


def goodbye(peer: Peer) -> int:
    """The last stream that the next GOAWAY to come promises to serve."""
    frame = peer.read(lambda frame: isinstance(frame, GoAwayFrame))
    assert isinstance(frame, GoAwayFrame)
    assert frame.error_code == 0
    return frame.last_stream_id


def set_key(peer: Peer, key: str) -> int:
    """Begin to set a key; returns the stream."""
    length = bytes((len(key),))
    return peer.start("/kv.v1.KeyValueService/Set", b"\x0a" + length + key.encode())


class Caller:
    """Sets one key after the other until a call fails."""

    def __init__(self, client: Client, name: str, enough: threading.Semaphore) -> None:
        self.acknowledged: set[str] = set()
        self.failure: grpc.RpcError | None = None
        self._client, self._name, self._enough = client, name, enough
        self.thread = threading.Thread(target=self._run, name=name)
        self.thread.start()

    def _run(self) -> None:
        while self.failure is None:
            key = f"{self._name}-{len(self.acknowledged)}"
            call = self._client.start("Set", key=key, value=key)
            self.failure = call.exception()
            if self.failure is None:
                self.acknowledged.add(key)
                self._enough.release()


def test_no_call_is_lost(world: World) -> None:
    """Clients that never pause get an answer to every call that was taken; what fails was never begun."""
    enough = threading.Semaphore(0)
    channels = [world.connect() for _ in range(_CHANNELS)]
    callers = [
        Caller(Client(channel), f"{number}-{caller}", enough)
        for number, channel in enumerate(channels)
        for caller in range(_CALLERS)
    ]
    for _ in range(20 * len(callers)):
        assert enough.acquire(timeout=PATIENCE)
    with stopping(world):
        for caller in callers:
            caller.thread.join(PATIENCE)
    assert {caller.failure.code() for caller in callers if caller.failure} == {StatusCode.UNAVAILABLE}
    assert set(world.stored()) == set().union(*[caller.acknowledged for caller in callers])
    for channel in channels:
        channel.close()


def test_goodbyes(world: World) -> None:
    """The first GOAWAY takes calls still on their way; the second, once the client knows, names the last one served."""
    hold = world.hold("write")
    with Peer(world.address) as peer:
        first = set_key(peer, "first")
        hold.reached()
        with stopping(world):
            peer.answers_pings = False
            assert goodbye(peer) == 2**31 - 1
            ping = peer.read(lambda frame: isinstance(frame, PingFrame))
            assert isinstance(ping, PingFrame)
            second = set_key(peer, "second")
            peer.sync()
            peer.send(PingFrame(opaque_data=ping.opaque_data, flags=["ACK"]))
            assert goodbye(peer) == second
            late = set_key(peer, "late")
            assert peer.answer(late).reset == _REFUSED_STREAM
            hold.release()
            assert [peer.answer(stream).status for stream in (first, second)] == ["0", "0"]
            peer.read_all()
            peer.socket.close()
    assert set(world.stored()) == {"first", "second"}


def test_idle_connections(world: World) -> None:
    """Those without calls are told, and closed at once."""
    peers = [Peer(world.address) for _ in range(20)]
    with stopping(world):
        for peer in peers:
            goodbyes = [frame for frame in peer.read_all() if isinstance(frame, GoAwayFrame)]
            assert [frame.last_stream_id for frame in goodbyes] == [2**31 - 1, 0]
            peer.socket.close()


def test_a_client_that_does_not_answer_the_ping(world: World, clock: Skew) -> None:
    """It gets the second GOAWAY after a while, and its running call is answered."""
    hold = world.hold("write")
    with Peer(world.address) as peer:
        peer.answers_pings = False
        stream = set_key(peer, "a")
        hold.reached()
        with stopping(world):
            assert goodbye(peer) == 2**31 - 1
            clock.jump(1.5)
            assert goodbye(peer) == stream
            hold.release()
            assert peer.answer(stream).status == "0"
            peer.read_all()
            peer.socket.close()


def test_an_answer_that_waits_for_the_window(world: World) -> None:
    """It comes whole before the connection closes."""
    world.fill(["large"], "v" * MIB)
    with Peer(world.address) as peer:
        stream = peer.start("/kv.v1.KeyValueService/Get", b"\x0a\x05large")
        # All that the first window allows.
        peer.read(lambda frame: sum(len(answer.data) for answer in peer.answers.values()) == 65_535)
        with stopping(world):
            assert goodbye(peer) == 2**31 - 1
            assert goodbye(peer) == stream
            peer.send(WindowUpdateFrame(0, window_increment=2 * MIB), WindowUpdateFrame(stream, window_increment=MIB))
            assert len(peer.answer(stream).messages[0]) > MIB
            peer.read_all()
            peer.socket.close()


def test_a_slow_reader(world: World, clock: Skew, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is not closed, and then cut off, while its last answer waits in the transport's buffer."""
    connected = Connection.connectionMade

    def with_a_small_buffer(connection: Connection) -> None:
        connection.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        connected(connection)

    monkeypatch.setattr(Connection, "connectionMade", with_a_small_buffer)
    world.fill(["large"], "v" * 240_000)
    settings = {SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1}
    with Peer(world.address, settings, receive_buffer=16_384) as peer:
        peer.send(WindowUpdateFrame(0, window_increment=2**31 - 1 - 65_535))
        stream = peer.start("/kv.v1.KeyValueService/Get", b"\x0a\x05large")
        peer.read(lambda frame: frame.stream_id == stream)
        with stopping(world):
            for _ in range(4):
                threading.Event().wait(0.03)  # the server looks at what takes too long
                clock.jump(1.5)
            assert len(peer.answer(stream).messages[0]) > 240_000
            peer.read_all()
            peer.socket.close()


def test_a_stubborn_client(world: World, clock: Skew) -> None:
    """One that never closes its side is cut off, long before the grace period ends."""
    with Peer(world.address) as peer, stopping(world):
        peer.read_all()
        clock.jump(2.5)
    native = world.server.native  # type: ignore[union-attr]
    assert native.cut_off == {**dict.fromkeys(REASONS, 0), "goodbye": 1}


def test_calls_beyond_the_grace_period(world: World) -> None:
    """The connection is cut off; the write that ran is finished all the same."""
    hold = world.hold("write")
    with Peer(world.address) as peer:
        peer.answers_pings = False
        stream = set_key(peer, "a")
        hold.reached()
        with stopping(world, grace=0.0):
            peer.read_all()
            hold.release()
        assert stream not in peer.answers
    wait_until(lambda: set(world.stored()) == {"a"})


def test_a_connection_ends_with_its_client_s_certificate(world: World) -> None:
    """It is told so; what still comes on it comes from nobody."""
    assert isinstance(world.server, NativeServer)
    native, reactor = world.server.native, world.server.reactor
    with Peer(world.address) as peer, Peer(world.address) as other:
        peer.sync()
        other.sync()
        connections = {connection.transport.getPeer().port: connection for connection in native._connections}
        ending = connections[peer.socket.getsockname()[1]]
        ending._streams.visitor = ending._streams.visitor._replace(certificate_until=1000.0)
        on(reactor, native.end_expired, 999.0)
        assert native.connections == 2
        on(reactor, native.end_expired, 1000.0)
        assert goodbye(peer) == 2**31 - 1
        eventually(lambda: native.connections == 1)
        other.sync()
