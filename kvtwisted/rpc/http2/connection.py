"""One connection: bytes in, frames apart, answers out, once for each chunk of bytes (RFC 9113).

Note [Work chunk by chunk]: a client that has many calls under way sends many in one segment. All frames of what
`dataReceived` is given are handled in one go, what they are answered is gathered, and one write sends it. A call whose
HEADERS and DATA are whole and in the same chunk, and whose header block is known, is answered on the shortest way there
is: no object is made for it. Its DATA need not come right after its HEADERS; some clients send the HEADERS of many
calls first.

Note [Header blocks take turns]: a block that is not known has to be decoded, and who calls to be looked up. A peer may
send such blocks without end, at no cost of its own. So all connections together have HEADERS_WORK for them in a turn
of the reactor; a connection that comes to one when that is used up reads nothing more until it has its turn, those with
a small one before those with a large one. If others wait it is a short turn, of one block at least. Known blocks never
wait. Work is counted by bytes (`HpackDecoder.work`), not by a clock, so that the same bytes always do the same.

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
from ...tls.peers import peer
from ..errors import CallError, Code
from . import frames
from .control import Control
from .frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    read_header,
    read_word,
)
from .lifetime import EXPIRED_SECONDS, FLOOD, PROTOCOL_ERROR
from .owner import Owner
from .responses import with_size_update

#: Bytes that a DATA frame of an uncompressed message has beside the message.
_PREFIX = 5
#: Work on header blocks that are not known in a turn of the reactor, some 4 ms; see Note [Header blocks take turns].
HEADERS_WORK = 128 * 1024
#: What a connection has of that in its turn, if others wait: one block at least.
SLICE_WORK = HEADERS_WORK // 8
#: What each block takes beside what it takes to decode it.
BLOCK_WORK = 1024
#: Bytes of a block that is a small one.
_SMALL_BLOCK = 2048

_log = Logger(namespace="kvtwisted.rpc")


@implementer(IPushProducer, IHandshakeListener, IHalfCloseableProtocol)
class Connection(Protocol):
    """An HTTP/2 connection that serves gRPC. Reactor thread."""

    #: A TCP or TLS transport of Twisted's; no interface names all that both have.
    transport: Any

    def __init__(self, owner: Owner, address: str = "", *, on_trial: bool = False) -> None:
        """`address` is the peer's; `on_trial` says that it stays only for an administrator."""
        self._owner = owner
        self._rest = b""
        self._out: list[bytes] = []
        self._in_chunk = False
        self._dirty = False
        self._closed = False
        self._greeted = False
        self._cut_off = False
        #: Whether a header block waits for its turn.
        self._waiting = False
        #: In its turn: what is left to all when the turn ends, and whether it has had a block yet.
        self._turn_ends: int | None = None
        self._had_block = False
        #: Whether the peer has ended its side.
        self._half_closed = False
        self._expired_at: float | None = None
        self._write_now: Callable[[], object] | None = None
        self.control = Control(owner, self._out, self._touch)
        self._streams = self.control.streams
        self._streams.visitor = Visitor(address)
        self.address = address
        self._trial_ends = owner.seconds() + TRIAL_SECONDS
        if on_trial:
            self._streams.on_trial = self._try_out

    # The transport's side.

    def connectionMade(self) -> None:
        """Greet; with TLS when that is agreed on. What was written earlier would wait, and pause the reading too."""
        self._owner.opened(self)
        self.transport.setTcpNoDelay(True)
        if not ISSLTransport.providedBy(self.transport):
            # Of IWriteDescriptor. What it might say of a lost connection the reactor finds out by itself.
            self._write_now = getattr(self.transport, "doWrite", None)
            self._greet()

    def handshakeCompleted(self) -> None:
        """TLS is agreed on, and HTTP/2 should be (RFC 9113, section 3.2)."""
        self._streams.visitor = Visitor(self.address, (), *peer(self.transport))
        self._greet()
        if self.transport.negotiatedProtocol != b"h2":
            self._count(PROTOCOL_ERROR)
            # With a line end, for people and programs that look with `openssl s_client`.
            self._fail(ErrorCode.PROTOCOL_ERROR, "this is a gRPC server: ask for h2 by ALPN\n")
            self.flush()

    def _greet(self) -> None:
        self._greeted = True
        self.transport.registerProducer(self, True)
        self.control.greet()
        self.flush()

    def dataReceived(self, data: bytes) -> None:
        """Handle a chunk of bytes."""
        if self.control.failed:
            return
        if self._rest:
            data = self._rest + data
        if self._waiting:
            self._rest = data
            return
        self._in_chunk = True
        self._streams.before_chunk = self._streams.last_id
        try:
            self._rest = data[self._parse(data) :]
        except ConnectionFault as fault:
            self._count(FLOOD if fault.code == ErrorCode.ENHANCE_YOUR_CALM else PROTOCOL_ERROR)
            self._fail(fault.code, str(fault))
        except Exception:
            _log.failure("a gRPC connection broke")
            self._fail(ErrorCode.INTERNAL_ERROR, "the server failed")
        finally:
            self._in_chunk = False
        self.flush()
        self._owner.flush()

    def go_on(self) -> None:
        """The header block that waited has its turn."""
        self._waiting = self._had_block = False
        self._turn_ends = self._owner.header_turns.left - SLICE_WORK
        self.dataReceived(b"")
        self._turn_ends = None
        if not self._waiting:
            self._stop_waiting()
            if self._half_closed:
                self._no_more()

    def _wait(self, size: int) -> None:
        self._waiting = True
        self.transport.pauseProducing()
        self._owner.header_turns.wait(self, longer=size > _SMALL_BLOCK)

    def _stop_waiting(self) -> None:
        self._waiting = False
        self._owner.header_turns.forget(self)
        if not self._streams.sender.paused and not self._half_closed:
            self.transport.resumeProducing()

    def readConnectionLost(self) -> None:
        """The peer has ended its side: see Note [Half-closed connections]."""
        self._half_closed = True
        if self._closed:
            self.transport.loseConnection()
        elif not self._waiting:
            self._no_more()

    def _no_more(self) -> None:
        control = self.control
        if not self._greeted or control.preface:
            self.abort()
        elif not control.failed:
            control.half_closed()
            error = CallError(
                Code.INVALID_ARGUMENT, "the client ended its side of the connection before the call's end"
            )
            self._streams.no_more(error, tell=True)
        self.flush()

    def writeConnectionLost(self) -> None:
        """Our side is ended, by `_close`."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone, and with it all calls."""
        self.control.failed = True
        # The transport has no socket any more, and calls that end below may leave something to send.
        self._closed, self._write_now = True, None
        self._streams.drop_all()
        self._streams.sender.resume()
        self._rest = b""
        self._waiting = False
        self._owner.header_turns.forget(self)
        self._owner.closed(self)
        self._owner.flush()
        self._streams.let_go()

    def pauseProducing(self) -> None:
        """The peer does not read as fast as we write: read nothing either, until it does."""
        self._streams.sender.paused = True
        self._streams.consider()
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """It has caught up."""
        self._streams.sender.resume()
        self.control.moved()
        self._streams.consider()
        if not self._waiting and not self._half_closed:
            self.transport.resumeProducing()
        if not self._in_chunk:  # else it was `flush` itself whose write went out whole; it goes on
            self.flush()

    def stopProducing(self) -> None:
        """The transport takes no more; `connectionLost` follows."""

    # Going out.

    def _touch(self) -> None:
        if not self._in_chunk and not self._dirty:
            self._dirty = True
            self._owner.touched(self)

    def flush(self) -> None:
        """Write what there is to write."""
        self._dirty = False
        self._in_chunk = True  # whatever is begun here is written here
        streams, out = self._streams, self._out
        while True:
            if streams.sender.can_send:
                streams.pump()
            if streams.parked:
                streams.unpark()
            if out:
                data = b"".join(out) if self.control.size_update_after is None else self._with_size_update()
                out.clear()
                self._write(data)
            if not streams.sender.can_send and (not streams.parked or streams.backlogged):
                if not (self._half_closed or self.control.failed) or streams.sender.paused or not streams.sender.queued:
                    break
                # Nobody says any more that there is room.
                streams.drop_stuck()
                if not out and (not streams.parked or streams.backlogged):
                    break
        self._in_chunk = False
        if not streams.quick:
            streams.consider()
        control = self.control
        # A peer that reads slowly has its last answers still before it: the seconds to close count from then on.
        if control.finished and not self._closed and (control.failed or not streams.sender.paused):
            self._closed = True
            self._close()

    def _with_size_update(self) -> bytes:
        """What there is to write, with word of the table's size in front of the first header block, if there is one."""
        control, out = self.control, self._out
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
        if self._streams.sender.paused:
            self._streams.sender.keep(len(data))

    def _fail(self, code: ErrorCode, sentence: str) -> None:
        self.control.fail(code, sentence)
        self._rest = b""
        # Those of others, where it is a proxy's connection: see Note [Mistakes and floods].
        error = CallError(Code.UNAVAILABLE, f"the connection is closed: {sentence.rstrip()}")
        self._streams.no_more(error, tell=False)

    def _close(self) -> None:
        """End it, once what was written has gone out."""
        self.control.closing()
        self._write_now = None
        self.transport.unregisterProducer()
        if self._half_closed:
            self.transport.loseConnection()
            return
        if self._waiting:
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
            self._owner.cut_off[reason] += 1

    # Coming in.

    def _parse(self, data: bytes) -> int:
        """Handle every whole frame in `data`; returns where the first one begins that is not whole."""
        control, streams = self.control, self._streams
        position, end = 0, len(data)
        if control.preface:
            position = control.read_preface(data)
        remembered, opened = streams.blocks.remembered, streams.opened
        calls = received = 0
        while end - position >= 9:
            word, flags, stream_id = read_header(data, position)
            payload = position + 9
            after = payload + (word >> 8)
            # The short way: see Note [Work chunk by chunk].
            if word & 0xFF == HEADERS:
                if (
                    flags == END_HEADERS
                    and after <= end
                    and (head := remembered.get(data[payload:after])) is not None
                    and head.unary is not None
                    and streams.last_id < stream_id <= frames.STREAM_BITS
                    and stream_id & 1
                    and streams.quick
                    and control.quick
                    and len(opened) + streams.count < streams.allowed
                ):
                    streams.last_id = stream_id
                    opened[stream_id] = head
                    position = after
                    continue
            elif (
                word & 0xFF == DATA
                and flags == END_STREAM
                and stream_id in opened
                and after <= end
                and streams.quick  # which calls before it in this chunk may have changed
                and _PREFIX <= word >> 8 <= frames.DEFAULT_FRAME_SIZE
                and data[payload] == 0
                and read_word(data, payload + 1)[0] == (word >> 8) - _PREFIX
                and (opened[stream_id].length < 0 or opened[stream_id].length == word >> 8)
            ):
                head = opened.pop(stream_id)
                position = after
                calls += 1
                received += word >> 8
                head.unary(streams, stream_id, data[payload + _PREFIX : after], head.timeout)  # type: ignore[misc]
                continue
            if word >> 8 > frames.DEFAULT_FRAME_SIZE:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame is over {frames.DEFAULT_FRAME_SIZE} bytes")
            if after > end:
                break
            ends_block = flags & END_HEADERS and word & 0xFF in (HEADERS, CONTINUATION)
            if ends_block and data[payload:after] not in remembered and self._must_wait():
                self._wait(word >> 8)
                break
            position = after
            if opened:
                control.called(len(opened))
                streams.open_all()
            try:
                control.handle(word & 0xFF, flags, stream_id & frames.STREAM_BITS, data[payload:after])
            except StreamFault as fault:
                streams.fault(stream_id & frames.STREAM_BITS, fault)
            finally:
                if ends_block and streams.blocks.work:
                    self._owner.header_turns.spend(BLOCK_WORK + streams.blocks.work)
        if opened:
            control.called(len(opened))
            streams.open_all()
        control.received(received, calls)
        return position

    def _must_wait(self) -> bool:
        """Whether a header block that is not known has to wait for its turn, or for the next one."""
        turns = self._owner.header_turns
        if self._turn_ends is None:
            return turns.left <= 0
        if not self._had_block:
            self._had_block = True
            return False
        return turns.left <= (self._turn_ends if turns.wanted else 0)

    # Looked at by the server from time to time.

    def look(self, now: float) -> None:
        """See to deadlines."""
        reason = self.control.look(now)
        if self._streams.on_trial is not None and now > self._trial_ends:
            self._streams.on_trial = None
            self._owner.refused_on_trial()
            self.make_way()
        elif reason is not None:
            self.cut_off(reason)
        elif self._out or self._streams.parked:  # other connections may have made room
            self.flush()

    def revoke(self, routes: Mapping[int, CallError]) -> None:
        """Look again who calls, from the next header block on, and see `Streams.revoke`."""
        self._streams.blocks.remembered.clear()
        self._streams.revoke(routes)

    # When there are too many connections; see `sessions.connections.Member`.

    def _try_out(self, visitor: Visitor) -> None:
        if not self._owner.administers(visitor):
            self.control.drain()
            raise self._owner.refused_on_trial()
        self._streams.on_trial = None
        self._owner.passed_trial(self)

    def idle_seconds(self) -> float | None:
        """For how long no call was under way; None: one is."""
        return self.control.idle_seconds()

    def is_of_somebody(self) -> bool:
        """Whether somebody known has called on it."""
        return self._streams.shown is not None and self._owner.knows(self._streams.shown)

    def make_way(self) -> None:
        """Close, for others to have the place. What was called meanwhile was not served, which the goodbye says."""
        if self._greeted and not self._closed:
            self.control.last_goodbye()
            self.flush()
            self.transport.loseConnection()
        else:
            self.abort()

    def end_expired(self, wall: float, now: float) -> None:
        """End it if the client's certificate has: `wall` is Unix time, `now` the time of `look`, both in seconds.

        Calls that run have EXPIRED_SECONDS; new ones come from nobody.
        """
        if wall < self._streams.visitor.certificate_until:
            return
        if self._expired_at is None:
            self._expired_at = now
            self._streams.blocks.remembered.clear()
            self.drain()
        elif now - self._expired_at > EXPIRED_SECONDS:
            self.abort()

    def drain(self) -> None:
        """Take no new calls, and close when those that run have ended."""
        if not self._greeted:
            self.abort()
            return
        self.control.drain()
        self.flush()

    def __repr__(self) -> str:
        return f"<Connection {self.transport.getPeer() if self.transport else None}>"
