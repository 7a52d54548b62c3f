"""TLS connections: Twisted's, with a deadline for the handshake, and with half-close as TCP has it.

Note [How TLS connections close]: Twisted sends its closing alert and then waits for the peer's without a limit: a
client that keeps its connection in a pool would hold up a shutdown. Neither side has to wait (RFC 8446, section 6.1).
So `loseConnection` closes as it does without TLS, once all data is sent. `loseWriteConnection`, which Twisted's TLS
does not have, sends the alert, closes our side of the TCP connection, and still reads.

The peer's alert, or its end of TCP, means only that it sends no more: a protocol that can go on without input
(IHalfCloseableProtocol) still answers. Any other protocol's connection is closed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Callable

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from .direct_send import send_now
from .renewal import Certificates

#: Seconds from the acceptance of a connection to the end of its handshake.
HANDSHAKE_SECONDS = 10.0
#: Bytes taken from OpenSSL at once: at first, and when there are more.
_FEW_BYTES, _MANY_BYTES = 4096, 65_536
#: Bytes asked from OpenSSL at once of what the peer has sent; a record has at most half of that.
_RECEIVED_BYTES = 32_768


# Twisted's connection provides one interface of the socket's at random; twisted.web looks for this one.
@implementer(IPushProducer, IHalfCloseableProtocol)
class TlsConnection(TLSMemoryBIOProtocol):
    """One connection. Reactor thread. Writes go out at once; twisted.web and our HTTP/2 gather them themselves."""

    factory: TlsFactory
    transport: Any
    _deadline: IDelayedCall | None = None
    _write_closed = False
    _input_ended = False

    def makeConnection(self, transport: Any) -> None:
        """The connection is accepted; what remains is the handshake."""
        if ITCPTransport.providedBy(transport):
            # Small writes must not wait for the peer's ACK of earlier ones. twisted.web does not see the TCP connection
            # below, and cannot set this itself.
            transport.setTcpNoDelay(True)
        self._deadline = self.factory.reactor.callLater(self.factory.handshake_seconds, self._too_late)
        super().makeConnection(transport)

    def _too_late(self) -> None:
        self._deadline = None
        self.factory.too_late()
        self.abortConnection()

    def _no_deadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def _checkHandshakeStatus(self) -> None:
        super()._checkHandshakeStatus()
        if self._handshakeDone:
            self._no_deadline()

    def _flushSendBIO(self) -> None:
        if self._tlsConnection is None:
            return  # it is gone: once our side is closed, TCP's end comes from within `loseConnection`
        # Twisted's method reads 32 KiB once. Allocating that costs more than a small answer, and a long chain of
        # certificates would not fit.
        read = self._tlsConnection.bio_read
        try:
            data = read(_FEW_BYTES)
            if len(data) == _FEW_BYTES:
                more = [data]
                with suppress(SSL.WantReadError):
                    while True:
                        more.append(read(_MANY_BYTES))
                data = b"".join(more)
        except SSL.WantReadError:
            return
        send_now(self.transport, data)

    def _flushReceiveBIO(self) -> None:
        # As Twisted's, but for the peer's closing alert.
        while not self._lostTLSConnection:
            try:
                data = self._tlsConnection.recv(_RECEIVED_BYTES)
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                self._end_of_input()
                break
            except SSL.Error:
                self._tlsShutdownFinished(Failure())
            else:
                if not self._aborted:
                    ProtocolWrapper.dataReceived(self, data)
        self._flushSendBIO()

    def _end_of_input(self) -> None:
        inner = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if inner is None or self._write_closed:
            self._shutdownTLS()
            self._tlsShutdownFinished(None)
        elif not self._input_ended:
            self._input_ended = True
            # Data that still comes would not be read, and must not be kept.
            self.transport.pauseProducing()
            inner.readConnectionLost()

    def readConnectionLost(self) -> None:
        """The peer has closed its side of TCP, with an alert before it or without."""
        inner = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if inner is None or not self._handshakeDone:
            self.transport.connectionLost(connectionDone)
        elif not self._input_ended:
            self._input_ended = True
            inner.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Our side of TCP is closed, which is our own doing."""

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        if reason is not None and reason.value is not None:
            # Its traceback holds the caller's frame, which holds the failure: a cycle that would keep the connection in
            # memory.
            reason.tb = reason.value.__traceback__ = None
        super()._tlsShutdownFinished(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is lost."""
        self._no_deadline()
        super().connectionLost(reason)
        # Which has the other protocol, which has this: the two would wait for Python's cyclic collector.
        self._producer = None

    # The end: see Note [How TLS connections close].

    def write(self, data: bytes) -> None:
        """Send. Data written after our side was closed is dropped, as TCP does."""
        if not self._write_closed:
            super().write(data)

    def loseWriteConnection(self) -> None:
        """Send no more, and go on reading until the peer closes. Before the end of the handshake it is an abort."""
        if self._write_closed or self.disconnecting:
            return
        if not self._handshakeDone:
            self.abortConnection()
            return
        self._write_closed = True
        self._shutdownTLS()
        self.transport.loseWriteConnection()

    def _shutdownTLS(self) -> None:
        if self._tlsConnection is None:
            return
        super()._shutdownTLS()
        if self.disconnecting and not self._aborted:
            self.transport.loseConnection()

    # HTTP asks for this when a client sends too much.

    def pauseProducing(self) -> None:
        """Read no more from the socket."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read again, unless there is nothing more to come."""
        if not self._input_ended:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """As the interface has it: close."""
        self.loseConnection()


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    """Makes each connection's OpenSSL object from the certificate in use at that time."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """OpenSSL's object for one connection."""
        return SSL.Connection(self._certificates.context)


class TlsFactory(TLSMemoryBIOFactory):
    """For `listenTCP`: the connections of another factory, over TLS. Not for `listenSSL`, which does the same later."""

    protocol = TlsConnection
    #: See HANDSHAKE_SECONDS.
    handshake_seconds = HANDSHAKE_SECONDS

    def __init__(
        self,
        reactor: Any,
        certificates: Certificates,
        wrapped: IProtocolFactory,
        too_late: Callable[[], None] = lambda: None,
    ) -> None:
        """`too_late` is called for each connection whose handshake is cut off."""
        super().__init__(_Creator(certificates), False, wrapped, clock=reactor)
        self.reactor = reactor
        self.too_late = too_late

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """None when the other factory refuses the connection; Twisted would wrap None too."""
        inner = self.wrappedFactory.buildProtocol(addr)
        return None if inner is None else self.protocol(self, inner)
