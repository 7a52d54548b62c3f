"""The transport without a socket, and the reactor that stands still, keep their word."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThreadPool

from .transports import ManualReactor, ManualTransport, cut


class _Noting(Protocol):
    """A protocol and producer that keeps what happens to it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]

    def pauseProducing(self) -> None:
        self.seen.append("pause")

    def resumeProducing(self) -> None:
        self.seen.append("resume")

    def stopProducing(self) -> None:
        self.seen.append("stop")

    def connectionLost(self, reason: object = None) -> None:
        self.seen.append("lost")


@pytest.mark.parametrize("eager", [False, True])
def test_manual_transport_pauses_its_producer_while_much_waits(eager: bool) -> None:
    """Above its capacity until all is taken; a real transport's doWrite is there when asked for."""
    noting, reactor = _Noting(), ManualReactor()
    transport = ManualTransport(reactor.callLater, capacity=10, eager=eager)
    assert hasattr(transport, "doWrite") == eager
    written: list[bytes] = []
    transport.written = written.append
    transport.connect(noting)
    transport.write(b"0123456789")
    assert noting.seen == []
    transport.write(b"x")
    assert noting.seen == ["pause"]
    transport.accepts = 5
    transport.carry()
    assert (noting.seen, transport.buffered) == (["pause"], 6)
    transport.accepts = 6
    transport.carry()
    assert (noting.seen, transport.buffered) == (["pause", "resume"], 0)
    assert written == [b"0123456789", b"x"]


def test_manual_transport_takes_what_the_peer_accepts() -> None:
    """Past the buffer goes what the peer takes; whether anything is in the buffer can be seen."""
    transport = ManualTransport(ManualReactor().callLater)
    written: list[bytes] = []
    transport.written = written.append
    transport.connect(_Noting())
    transport.accepts = 4
    assert transport.writeSomeData(b"0123456789") == 4
    assert written == [b"0123"]
    assert not transport.dataBuffer
    transport.write(b"456789")
    assert transport.dataBuffer


def test_manual_transport_ends_in_the_next_turn() -> None:
    """An aborted connection is lost then, once, and its producer stopped."""
    noting, reactor = _Noting(), ManualReactor()
    transport = ManualTransport(reactor.callLater)
    transport.connect(noting)
    transport.abortConnection()
    transport.abortConnection()
    assert noting.seen == []
    assert not transport.reading
    reactor.turn()
    transport.lose(ConnectionAborted())
    assert noting.seen == ["stop", "lost"]


def test_manual_transport_closes_its_side_once_all_is_out() -> None:
    """After what was written before; what comes later goes nowhere."""
    transport = ManualTransport(ManualReactor().callLater)
    transport.connect(_Noting())
    transport.write(b"last")
    transport.unregisterProducer()
    transport.loseWriteConnection()
    assert not transport.write_closed
    transport.carry()
    assert transport.write_closed
    transport.write(b"late")
    assert transport.buffered == 0


def test_manual_transport_reads_while_its_protocol_likes() -> None:
    """`reading` says whether bytes may be given to the protocol."""
    transport = ManualTransport(ManualReactor().callLater)
    transport.connect(_Noting())
    transport.setTcpNoDelay(True)
    transport.pauseProducing()
    assert (transport.reading, transport.no_delay) == (False, True)
    transport.resumeProducing()
    assert transport.reading


def test_manual_reactor_runs_its_pool_when_told() -> None:
    """Results come in the turn after the job."""
    reactor = ManualReactor()
    results: list[int] = []
    deferToThreadPool(reactor, reactor.getThreadPool(), lambda: 7).addCallback(results.append)
    reactor.pool.run_all()
    assert results == []
    reactor.settle()
    assert results == [7]


def test_cut_loses_nothing() -> None:
    """The pieces make the whole, whatever their sizes."""
    assert list(cut(b"abcdefg", (2, 1))) == [b"ab", b"c", b"de", b"f", b"g"]
    assert list(cut(b"abcdefg", ())) == [b"abcdefg"]
    assert list(cut(b"abcdefg", (1,), most=3)) == [b"a", b"b", b"cdefg"]
