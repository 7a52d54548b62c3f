"""One connection as Twisted has it: chunks of bytes come in, and what is to be sent goes out, once for each chunk.

Note [Half-closed connections]: a client that ends its side of the connection has said all it has to say; it may still
want the answers (RFC 9112, section 9.6, has the same for HTTP/1). Calls that have come whole are answered, the rest
ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...sessions.connections import TRIAL_SECONDS
from ...sessions.gate import Visitor
from ...tls.listening import peer
from ..errors import CallError, Code
from .chunk_reader import ChunkReader
from .collaborators import ConnectionServer
from .control import Control
from .frames import ConnectionFault, ErrorCode
from .header_turn import HeaderTurn
from .lifetime import EXPIRED_SECONDS, FLOOD, PROTOCOL_ERROR, Lifetime
from .responses import with_size_update
from .streams import Streams

_log = Logger(namespace="kvtwisted.rpc")


@implementer(IPushProducer, IHandshakeListener, IHalfCloseableProtocol)
class Connection(Protocol):
    """An HTTP/2 connection that serves gRPC. Reactor thread."""

    #: A TCP or TLS transport of Twisted's; no interface names all that both have.
    transport: Any

    def __init__(self, server: ConnectionServer, address: str = "", *, on_trial: bool = False) -> None:
        """`address` is the peer's; `on_trial` says that it stays only for an administrator."""
        self._server = server
        self._rest = b""
        self._out: list[bytes] = []
        self._in_chunk = False
        self._dirty = False
        self._closed = False
        self._greeted = False
        self._cut_off = False
        #: Whether the peer has ended its side.
        self._half_closed = False
        self._expired_at: float | None = None
        self._write_now: Callable[[], object] | None = None
        self.streams = Streams(server, Visitor(address), self._out, self._touch)
        self._responder = self.streams.responder
        self._sender = self._responder.sender
        self.lifetime = Lifetime(self.streams, self._out, server.seconds)
        self._control = Control(self.streams, self.lifetime, self._out)
        self._turn = HeaderTurn(server.header_turns)
        self._read = ChunkReader(self.streams, self._control, self.lifetime, self._turn, server.seconds).read
        self.address = address
        self._trial_ends = server.seconds() + TRIAL_SECONDS
        if on_trial:
            self.streams.on_trial = self._try_out

    # The transport's side.

    def connectionMade(self) -> None:
        """Greet; with TLS when that is agreed on. What was written earlier would wait, and pause the reading too."""
        self._server.opened(self)
        self.transport.setTcpNoDelay(True)
        if not ISSLTransport.providedBy(self.transport):
            # Of IWriteDescriptor. What it might say of a lost connection the reactor finds out by itself.
            self._write_now = getattr(self.transport, "doWrite", None)
            self._greet()

    def handshakeCompleted(self) -> None:
        """TLS is agreed on, and HTTP/2 should be (RFC 9113, section 3.2)."""
        self.streams.visitor = Visitor(self.address, (), *peer(self.transport))
        self._greet()
        if self.transport.negotiatedProtocol != b"h2":
            self._count(PROTOCOL_ERROR)
            # With a line end, for people and programs that look with `openssl s_client`.
            self._fail(ErrorCode.PROTOCOL_ERROR, "this is a gRPC server: ask for h2 by ALPN\n")
            self.flush()

    def _greet(self) -> None:
        self._greeted = True
        self.transport.registerProducer(self, True)
        self._control.greet()
        self.flush()

    def dataReceived(self, data: bytes) -> None:
        """Handle a chunk of bytes."""
        if self.lifetime.failed:
            return
        if self._rest:
            data = self._rest + data
        if self._turn.waiting:
            self._rest = data
            return
        self._in_chunk = True
        try:
            self._rest = data[self._read(data) :]
        except ConnectionFault as fault:
            self._count(FLOOD if fault.code == ErrorCode.ENHANCE_YOUR_CALM else PROTOCOL_ERROR)
            self._fail(fault.code, str(fault))
        except Exception:
            _log.failure("a gRPC connection broke")
            self._fail(ErrorCode.INTERNAL_ERROR, "the server failed")
        finally:
            self._in_chunk = False
        if self._turn.waiting:
            self.transport.pauseProducing()
            self._server.header_turns.wait(self, longer=self._turn.is_long)
        self.flush()
        if self._server.dirty:
            self._server.flush()

    def go_on(self) -> None:
        """The header block that waited has its turn."""
        self._turn.begin()
        self.dataReceived(b"")
        self._turn.end()
        if not self._turn.waiting:
            self._stop_waiting()
            if self._half_closed:
                self._no_more()

    def _stop_waiting(self) -> None:
        self._turn.waiting = False
        self._server.header_turns.forget(self)
        if not self._sender.paused and not self._half_closed:
            self.transport.resumeProducing()

    def readConnectionLost(self) -> None:
        """The peer has ended its side: see Note [Half-closed connections]."""
        self._half_closed = True
        if self._closed:
            self.transport.loseConnection()
        elif not self._turn.waiting:
            self._no_more()

    def _no_more(self) -> None:
        if not self._greeted or self._control.preface:
            self.abort()
        elif not self.lifetime.failed:
            self.lifetime.half_closed()
            error = CallError(
                Code.INVALID_ARGUMENT, "the client ended its side of the connection before the call's end"
            )
            self.streams.no_more(error, tell=True)
        self.flush()

    def writeConnectionLost(self) -> None:
        """Our side is ended, by `_close`."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone, and with it all calls."""
        self.lifetime.failed = True
        # The transport has no socket any more, and calls that end below may leave something to send.
        self._closed, self._write_now = True, None
        self._responder.drop_all()
        self._sender.resume()
        self._rest = b""
        self._turn.waiting = False
        self._server.header_turns.forget(self)
        self._server.closed(self)
        self._server.flush()
        self.streams.let_go()

    def pauseProducing(self) -> None:
        """The peer does not read as fast as we write: read nothing either, until it does."""
        self._sender.paused = True
        self._responder.consider()
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """It has caught up."""
        self._sender.resume()
        self.lifetime.moved()
        self._responder.consider()
        if not self._turn.waiting and not self._half_closed:
            self.transport.resumeProducing()
        if not self._in_chunk:  # else it was `flush` itself whose write went out whole; it goes on
            self.flush()

    def stopProducing(self) -> None:
        """The transport takes no more; `connectionLost` follows."""

    # Going out.

    def _touch(self) -> None:
        if not self._in_chunk and not self._dirty:
            self._dirty = True
            self._server.dirty.append(self)

    def flush(self) -> None:
        """Write what there is to write."""
        self._dirty = False
        self._in_chunk = True  # whatever is begun here is written here
        responder, sender, out = self._responder, self._sender, self._out
        parked = responder.parked.by_id
        while True:
            if sender.ready and sender.can_send:
                responder.pump()
            if parked:
                self.streams.unpark()
            if out:
                data = b"".join(out) if self._control.size_update_after is None else self._with_size_update()
                out.clear()
                self._write(data)
            if (sender.ready and sender.can_send) or (parked and not responder.backlogged):
                continue
            if not sender.paused and (self._half_closed or self.lifetime.failed) and sender.queued:
                # Nobody says any more that there is room.
                responder.drop_stuck()
                if out or (parked and not responder.backlogged):
                    continue
            break
        self._in_chunk = False
        if not responder.quick:
            responder.consider()
        if not self._closed and (self.lifetime.failed or self.streams.last_served is not None):
            self._close_when_finished()

    def _close_when_finished(self) -> None:
        # A peer that reads slowly has its last answers still before it: the seconds to close count from then on.
        if self.lifetime.finished and (self.lifetime.failed or not self._sender.paused):
            self._closed = True
            self._close()

    def _with_size_update(self) -> bytes:
        """What there is to write, with word of the table's size in front of the first header block, if there is one."""
        control, out = self._control, self._out
        first = control.size_update_after or 0
        before, after = b"".join(out[:first]), b"".join(out[first:])
        changed = with_size_update(after)
        control.size_update_after = 0 if changed is None else None
        return before + (after if changed is None else changed)

    def _write(self, data: bytes) -> None:
        if self._write_now is not None and not self.transport.dataBuffer:
            # Past the transport's buffer, which is empty: telling the reactor of something to write, and then that
            # there is nothing, would be two more system calls.
            sent = self.transport.writeSomeData(data)
            if sent == len(data):
                return
            if not isinstance(sent, Exception):
                data = data[sent:]
        self.transport.write(data)
        if self._write_now is not None:
            # At once, not in the reactor's next turn: that saves a turn, and a wait for it.
            self._write_now()
        if self._sender.paused:
            self._sender.keep(len(data))

    def _fail(self, code: ErrorCode, sentence: str) -> None:
        self.lifetime.fail(code, sentence)
        self._rest = b""
        # Those of others, where it is a proxy's connection: see Note [Mistakes and floods].
        error = CallError(Code.UNAVAILABLE, f"the connection is closed: {sentence.rstrip()}")
        self.streams.no_more(error, tell=False)

    def _close(self) -> None:
        """End it, once what was written has gone out."""
        self.lifetime.closing()
        self._write_now = None
        self.transport.unregisterProducer()
        if self._half_closed:
            self.transport.loseConnection()
            return
        if self._turn.waiting:
            self._stop_waiting()
        # What the peer has sent and nobody has read would make a close a reset, and take away what is on its way.
        self.transport.loseWriteConnection()

    def abort(self) -> None:
        """End it at once."""
        self.transport.abortConnection()

    def cut_off(self, reason: str) -> None:
        """End it at once for what its peer did or did not do (one of `lifetime.REASONS`), which is counted."""
        self._count(reason)
        self.abort()

    def _count(self, reason: str) -> None:
        if not self._cut_off:
            self._cut_off = True
            self._server.cut_off[reason] += 1

    # Looked at by the server from time to time.

    def look(self, now: float) -> None:
        """See to deadlines."""
        reason = self.lifetime.look(now)
        if self.streams.on_trial is not None and now > self._trial_ends:
            self.streams.on_trial = None
            self._server.refused_on_trial()
            self.make_way()
        elif reason is not None:
            self.cut_off(reason)
        elif self._out or self._responder.parked.by_id:  # other connections may have made room
            self.flush()

    def revoke(self, routes: Mapping[int, CallError]) -> None:
        """Look again who calls, from the next header block on, and see `Streams.revoke`."""
        self.streams.blocks.remembered.clear()
        self.streams.revoke(routes)

    # When there are too many connections; see `sessions.connections.Member`.

    def _try_out(self, visitor: Visitor) -> None:
        if not self._server.administers(visitor):
            self.lifetime.drain()
            raise self._server.refused_on_trial()
        self.streams.on_trial = None
        self._server.passed_trial(self)

    def idle_seconds(self) -> float | None:
        """For how long no call was under way; None: one is."""
        return self.lifetime.idle_seconds()

    def is_of_somebody(self) -> bool:
        """Whether somebody known has called on it."""
        return self.streams.shown is not None and self._server.knows(self.streams.shown)

    def make_way(self) -> None:
        """Close, for others to have the place. What was called meanwhile was not served, which the goodbye says."""
        if self._greeted and not self._closed:
            self.lifetime.last_goodbye()
            self.flush()
            self.transport.loseConnection()
        else:
            self.abort()

    def end_expired(self, wall: float, now: float) -> None:
        """End it if the client's certificate has: `wall` is Unix time, `now` the time of `look`, both in seconds.

        Calls that run have EXPIRED_SECONDS; new ones come from nobody.
        """
        if wall < self.streams.visitor.certificate_until:
            return
        if self._expired_at is None:
            self._expired_at = now
            self.streams.blocks.remembered.clear()
            self.drain()
        elif now - self._expired_at > EXPIRED_SECONDS:
            self.abort()

    def drain(self) -> None:
        """Take no new calls, and close when those that run have ended."""
        if not self._greeted:
            self.abort()
            return
        self.lifetime.drain()
        self.flush()

    def __repr__(self) -> str:
        return f"<Connection {self.transport.getPeer() if self.transport else None}>"
