"""HTTP/1.1 connections: Twisted's, with stricter parsing, deadlines, limits and two lanes.

Note [Refusing a request before it is read]: if a TCP connection is closed while the client is still sending, the kernel
sends a reset, and the client may drop the answer that explains the refusal. So after a refusal only our side is closed,
further input is thrown away, and the connection is aborted if the client has not closed it in LINGER_TIMEOUT seconds.
Input behind the refused request is never read.

Note [The end of input]: a client may close its sending side behind its last request and still wait for the answers (RFC
9112, section 9.6). So the end of input is not the end of the connection: all complete requests are answered, an
incomplete one is dropped, and then the connection is closed. A client that is gone without a reset looks the same. Its
cost is bounded as usual: by the deadline of a request, and by that of an answer which nobody reads.
"""

from __future__ import annotations

import math
from functools import cached_property, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, Callable

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers
from twisted.web.server import Site
from zope.interface import implementer

from ..reactor.twisted_internals import answers_malformed, has_data_behind, has_unread_lines, unsent_bytes
from ..sessions.gate import Visitor
from ..tls.listening import peer
from . import errors, fields, heads
from .access_log import peer_text
from .answers import Answer
from .collaborators import Collaborators
from .deadlines import unread_bytes
from .heads import Head, Refusal
from .progress import Progress
from .refusing import NOT_ALLOWED
from .streaming import StreamingAnswer

if TYPE_CHECKING:
    from .application import KvRequest
    from .importing import Import

#: Seconds that a refused client gets to read the refusal and close.
LINGER_TIMEOUT = 5.0
#: Seconds that a request gets to finish when the certificate of its client has ended.
EXPIRED_TIMEOUT = 10.0
#: Seconds that the idle timeout may end too early: no timer is set for less.
CLOSE_ENOUGH = 0.001
#: Bytes of chunk sizes, extensions and trailers that a chunked body may have besides as many as it has content. What is
#: below that costs work without a limit: chunks of one byte, each with an extension.
MAX_FRAMING = 65_536


@answers_malformed
@implementer(IHalfCloseableProtocol)
class KvChannel(http.HTTPChannel):
    """One connection. Requests on it are answered one after the other, as Twisted does it. Reactor thread."""

    transport: Any
    site: Site
    #: The client's address and port, for the access log.
    peer = b""
    #: When an administrator's token must have been shown, on a connection that was let in for that: see Note [Reserved
    #: for administrators] in `sessions.connections`.
    on_trial: IDelayedCall | None = None
    #: The headers Authorization of the last request; None: nothing has been asked.
    shown: tuple[bytes, ...] | None = None
    #: Whether input is ignored from now on; and whether that is because a request was refused.
    closing = refused = False
    #: The client sends no more.
    input_ended = False
    #: The client does not take its answers: see Note [One answer at a time] in `progress`.
    is_blocked = False
    #: Twisted.web works on a request.
    is_answering = False
    #: What comes in parts in answer to the request that is being answered.
    stream: StreamingAnswer | None = None
    #: When it was noticed that the client's certificate has ended.
    expired_at: float | None = None
    # Twisted.web reads what has come.
    _is_reading = False
    # Bytes of a chunked body as they came, framing included.
    _chunked = 0
    # Of the request whose head comes in.
    _method = _target = _http_version = b""
    # Whether nothing is read because what has come of a body is not taken.
    _holds_body = False
    # Bytes that its body may have.
    _body_limit = 0
    # The idle timeout; it runs while `active`.
    _timer: IDelayedCall | None = None
    # When it began (the clock's time). Its timer may have begun earlier: it is not moved for each request.
    _active_at = 0.0

    def __init__(self, site: Collaborators, address: str) -> None:
        """`address` is what the connection is counted by in `sessions.connections`."""
        super().__init__()
        self.address = address
        self.requestFactory = site.make_request  # type: ignore[assignment]  # any factory does
        self.timeOut = site.idle_timeout  # type: ignore[assignment]  # seconds need not be whole
        self.progress = Progress(site.deadlines)
        self._seconds = site.clock.seconds
        self._site = site
        self._authorization = site.authorization
        self._deadlines = site.deadlines
        # Until the connection is gone: the two hold each other, and must not wait for Python's cyclic collector.
        self._lanes = None if site.make_lanes is None else site.make_lanes(self)
        if self._lanes is not None:
            self.dataReceived = self._lanes.received  # type: ignore[method-assign]

    def callLater(self, period: float, func: Callable[[], object]) -> IDelayedCall:
        """Twisted's timeouts go by the site's clock."""
        self._timer = self._site.clock.callLater(period, func)
        return self._timer

    def setTimeout(self, period: float | None) -> float | None:
        """Let the timeout be of so many seconds, from now on; None: there is none."""
        self._active_at = self._seconds()
        before: float | None = super().setTimeout(period)
        return before

    def resetTimeout(self) -> None:
        """Let the timeout begin anew."""
        self._active_at = self._seconds()

    def connectionMade(self) -> None:
        """The connection is open."""
        super().connectionMade()
        peer = self.transport.getPeer()
        self.peer = peer_text(getattr(peer, "host", ""), getattr(peer, "port", 0))
        self._site.members.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone; so is the interest in the answer to a request under way."""
        lanes, self._lanes = self._lanes, None
        running = None if lanes is None else lanes.end()
        self.__dict__.pop("dataReceived", None)
        if self.is_on_trial:
            self.on_trial.cancel()  # type: ignore[union-attr]  # it is there
        try:
            super().connectionLost(reason)
        finally:
            self._timer = None
            # Whatever has failed, a connection that is gone is not counted: a server would never stop for it.
            try:
                self._deadlines.forget(self)
            finally:
                self._site.members.closed(self)
        if running is not None:
            running.cancel()

    @cached_property
    def visitor(self) -> Visitor:
        """What the connection shows about the client. To be called after input has come: by then TLS knows the
        certificate."""
        return Visitor(self.address, (), *peer(self.transport))

    # Coming in.

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client, where there are no lanes; else see `Lanes.received`."""
        self.give_to_twisted(data)

    def give_to_twisted(self, data: bytes) -> None:
        """Let twisted.web read. The bytes may end amid a request."""
        if self.closing:
            return
        was_reading, self._is_reading = self._is_reading, True
        try:
            super().dataReceived(data)
        finally:
            self._is_reading = was_reading
        if not was_reading and not self.closing:
            self.progress.note_what_is_missing(self)
            if self.input_ended:
                self.close_if_heard_out()

    def rawDataReceived(self, data: bytes) -> None:
        """A part of a body, or what follows a request that is being worked on."""
        super().rawDataReceived(data)
        # While a chunked body comes in there is no length.
        if self.length is None and not self.closing and not self.is_answering:
            self._chunked += len(data)
            if self._chunked > MAX_FRAMING + 2 * self._content_bytes():
                self.refuse(errors.malformed())

    def lineReceived(self, line: bytes) -> None:
        """The request line, or a header. Twisted would put folded ones together (RFC 9112, section 5.2)."""
        if line.startswith((b" ", b"\t")):
            self.malformed()
            return
        before = len(self.requests)
        super().lineReceived(line)
        if len(self.requests) > before:
            # That was the request line, and a good one, unless the connection is closing now.
            head, _, self._http_version = line.rpartition(b" ")
            self._method, _, self._target = head.partition(b" ")

    def lineLengthExceeded(self, line: bytes) -> None:
        """A request line or header of more than 16 KiB."""
        self.malformed()

    def headerReceived(self, line: bytes) -> bool:
        """One header is complete.

        Twisted fails on a Content-Length of more digits than Python reads, and takes the coding identity, which is
        gone, beside another one or a length. Only chunked says where a request ends (RFC 9112, section 6.1).
        """
        name, _, value = line.partition(b":")
        try:
            if name.lower() != b"transfer-encoding" or fields.members((value,)) == [b"chunked"]:
                return bool(super().headerReceived(line))
        except ValueError:
            pass
        self.malformed()
        return False

    def allHeadersReceived(self) -> None:
        """Refuse an unknown host, and a body that is announced as too long, before `100 Continue` asks for it."""
        self.progress.complete(self)
        self._chunked = 0
        if self.closing:
            return
        request = self.requests[-1]
        visitor = request.visitor
        self.shown = visitor.authorization
        if self.on_trial is not None and self.is_on_trial and not self._passes_trial(visitor):
            self.fail_trial()
            return
        head = self._head()
        self._body_limit = heads.body_limit(self._site.rules, head)
        refusal = heads.refusal(self._site.rules, head, visitor) or self._begin_import(request)
        if refusal is None:
            if request.requestHeaders.hasHeader(b"expect"):
                heads.put_expectation_plainly(request.requestHeaders)
            super().allHeadersReceived()
        else:
            self.refuse(*refusal)

    def _head(self) -> Head:
        headers = self.requests[-1].requestHeaders
        return Head(self._method, self._target, self._http_version, headers, self.length)

    # Imports.

    def _begin_import(self, request: KvRequest) -> Refusal | None:
        """Have the body of an import taken while it comes in; why not."""
        try:
            intake = self._site.begin_import(request, self._method, self._target)
        except Exception:
            return Refusal(errors.answer(Failure(), "import"), NOT_ALLOWED)
        if intake is not None:
            request.take_lines(intake, self._method, self._target, self._http_version)
        return None

    @property
    def intake(self) -> Import | None:
        """What takes the body that comes in."""
        return self.requests[-1].intake if self.requests and not self.is_answering else None

    def hold_body(self, hold: bool) -> None:
        """Read nothing while it is held."""
        if hold != self._holds_body:
            self._holds_body = hold
            if hold:
                self.transport.pauseProducing()
            elif not (self.is_blocked or self.closing):
                self.transport.resumeProducing()

    # When there are too many connections.

    @property
    def is_on_trial(self) -> bool:
        """Whether an administrator's token or certificate has to be shown yet."""
        return self.on_trial is not None and self.on_trial.active()

    def _passes_trial(self, visitor: Visitor) -> bool:
        if not self._authorization.administers(visitor):
            return False
        if self.on_trial is not None:
            self.on_trial.cancel()
            self.on_trial = None
            self._site.members.passed_trial(self)
        return True

    def fail_trial(self) -> None:
        """No administrator has come: refuse the connection, which is one too many."""
        if self.on_trial is not None and self.on_trial.active():
            self.on_trial.cancel()
        self.refuse(self._site.members.refused_on_trial())

    def idle_seconds(self) -> float | None:
        """For how long no request was under way; None: one is, or an answer. See `connections.Member`."""
        lanes, timer = self._lanes, self._timer
        if self.closing or self.is_answering or self.is_blocked or (lanes is not None and lanes.is_under_way):
            return None
        if timer is None or not timer.active() or not self.timeOut or (self.requests and not self.line_mode):
            return None  # or a body comes in
        return self._seconds() - self._active_at

    def is_of_somebody(self) -> bool:
        """Whether a known client has sent a request on it."""
        return self.shown is not None and self._authorization.knows(self.visitor._replace(authorization=self.shown))

    def make_way(self) -> None:
        """Close, to make room for another connection."""
        self.loseConnection()

    def take_body(self, content: BytesIO, data: bytes) -> None:
        """A part of a body; the first one over the limit ends the connection."""
        if self.closing:
            return
        if content.tell() + len(data) > self._body_limit:
            self.refuse(heads.too_large(self._site.rules, self._head()))
        else:
            content.write(data)
            # What is complete now is not held.
            if content.tell() != self.length:
                self._deadlines.hold(self, len(data))

    def allContentReceived(self) -> None:
        """A request is complete; one that was refused meanwhile is not carried out."""
        if not self.closing:
            self.progress.complete(self)
            self.is_answering = True
            super().allContentReceived()

    #: Whether the connection may serve another request after this one.
    checkPersistence = staticmethod(heads.check_persistence)

    # The server's end: see Note [One more request when draining] in `site`.

    def is_last_answer(self) -> bool:
        """Whether the answer that goes out now is the connection's last."""
        if not (self._site.ending.draining or self.expired_at is not None):
            return False
        return self._site.ending.parting or not self.has_more()

    def has_more(self) -> bool:
        """Whether something has come behind the request that is being answered."""
        lanes = self._lanes
        return (lanes is not None and lanes.has_more) or has_unread_lines(self) or has_data_behind(self)

    def part(self) -> None:
        """Close, unless there is something to answer, or about to be."""
        if self._lanes is not None:
            # Twisted.web gets all by now, and knows whether it is a request.
            self._lanes.go_on()
        if not (self.closing or self.has_unanswered() or unread_bytes(self.transport)):
            self.loseConnection()

    def has_unanswered(self) -> bool:
        """Whether a request has come, or its first line, that has not been answered."""
        if self._lanes is not None and self._lanes.is_promised:
            return True
        waits = has_data_behind(self) or (self.is_blocked and self.has_more())
        return bool(self.requests or self._is_reading or waits)

    # The end of input: see the note above.

    def readConnectionLost(self) -> None:
        """The client sends no more, or is gone. It may be told more than once."""
        self.input_ended = True
        if self.stream is not None:
            self.stream.input_ended()
        self.close_if_heard_out()

    def writeConnectionLost(self) -> None:
        """Our side is closed, which is our own doing."""

    def is_working(self) -> bool:
        """Whether more answers may follow by themselves: to what has come in, or once the client takes earlier ones."""
        lanes = self._lanes
        works = self.is_answering or self.is_blocked or self._is_reading
        return works or (lanes is not None and (lanes.is_promised or lanes.is_busy))

    def requestDone(self, request: http.Request) -> None:
        """Twisted.web has answered a request; what it holds behind that belongs to the fast lane."""
        if self._lanes is None:
            self._go_on_behind(request)
        else:
            self._lanes.take_back(partial(self._go_on_behind, request))

    def _go_on_behind(self, request: http.Request) -> None:
        if self.persistent:
            self.is_answering = False
        super().requestDone(request)
        if self.input_ended:
            self.close_if_heard_out()

    def close_if_heard_out(self) -> None:
        """Close if nothing more comes in, and all that came has been answered."""
        if self.closing:
            if self.refused:
                # It has nothing more that it might lose the refusal for.
                self.transport.loseConnection()
        elif not self.is_working():
            self.loseConnection()

    def end_expired(self, wall: float, now: float) -> None:
        """End it if the client's certificate has: `wall` is Unix time, `now` a monotonic one, both in seconds.

        A request under way has EXPIRED_TIMEOUT.
        """
        visitor = self.__dict__.get("visitor")  # who has asked nothing yet is not known to TLS, perhaps
        if visitor is None or wall < visitor.certificate_until:
            return
        if self.expired_at is None:
            self.expired_at = now
            self.forget()
            self.part()
        elif now - self.expired_at > EXPIRED_TIMEOUT:
            self.abort()

    def forget(self) -> None:
        """Find the session anew, from the next request on. For twisted.web's requests it is found each time anyway."""
        if self._lanes is not None:
            self._lanes.forget()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self.closing = True
        self._give_up_body()
        self.transport.abortConnection()

    def refuse(self, answer: Answer, reason: str | None = None) -> None:
        """Answer in place of a request that is not complete, and close. See Note [Refusing ...] above.

        For `reason` see `Refuser.refuse`.
        """
        if self.closing:
            return
        intake = self.intake
        if intake is not None and intake.has_begun:
            intake.fail(answer)
            return
        headers = self.requests[-1].requestHeaders if self.requests else Headers()
        self._site.refuser.refuse(self.transport, self.peer, headers, answer, reason)
        self.linger()

    def linger(self) -> None:
        """Close when the client has; what it sends until then is nothing. See Note [Refusing ...] above."""
        self.closing = self.refused = True
        self._give_up_body()
        self.paused = True
        self.transport.unregisterProducer()
        if self._holds_body:
            # A client that sends all before it reads would never come to the refusal.
            self._holds_body = False
            self.transport.resumeProducing()
        self.setTimeout(LINGER_TIMEOUT)
        self.transport.loseWriteConnection()

    def _give_up_body(self) -> None:
        """Nothing that came of the request which is not complete is needed."""
        self._deadlines.release(self)
        if self.requests and not self.is_answering:
            self.requests[-1].content = BytesIO()
            if self.requests[-1].intake is not None:
                self.requests[-1].intake.cancel()

    def malformed(self) -> None:
        """There is no well-formed request."""
        self.refuse(errors.malformed())

    def loseConnection(self) -> None:
        """Close once all has been sent. A client that does not read it gets as long as an idle one."""
        self.closing = True
        self._give_up_body()
        self.setTimeout(self._site.idle_timeout)
        super().loseConnection()
        self.progress.restart_sending()
        self.progress.follow_answer(self)

    def timeoutConnection(self) -> None:
        """The idle timeout, or the end of patience with a client while closing."""
        self._timer = None
        timeout = self.timeOut
        if timeout is not None and (left := self._active_at + timeout - self._seconds()) > CLOSE_ENOUGH:
            # It began anew meanwhile.
            super().setTimeout(left)
            self.timeOut = timeout
        elif self._lanes is not None and self._lanes.is_promised and not self.closing:
            # It rests while the server works on a request.
            self.setTimeout(self._site.idle_timeout)
        elif self.intake is not None and not self.closing:
            # Whether something comes is seen to by `look`.
            self.setTimeout(self._site.idle_timeout)
        elif not self.refused and (self.is_blocked or self.closing) and unsent_bytes(self.transport):
            # It reads what it was sent, slowly; how slowly it may is seen to by `look`.
            self.progress.follow_answer(self)
            self.setTimeout(self._site.idle_timeout)
        elif self.closing:
            self.abort()
        else:
            self.loseConnection()

    # Going out: see Note [One answer at a time] in `progress`.

    def pauseProducing(self) -> None:
        """The client does not read its answers."""
        self.is_blocked = True
        super().pauseProducing()
        self.transport.pauseProducing()
        self.paused = True
        # All that waited before has gone.
        self.progress.restart_sending()
        self._deadlines.follow(self, unsent_bytes(self.transport))

    def resumeProducing(self) -> None:
        """The client has read all."""
        if not self.closing:
            self.paused = self.is_blocked = False
            super().resumeProducing()
            if self._holds_body:
                self.transport.pauseProducing()
            # What has come in meanwhile.
            self.dataReceived(b"")
        if self._lanes is not None:
            self._lanes.go_on()

    # For `deadlines.Followed`.

    @property
    def moved_at(self) -> float:
        """When bytes of waiting answers went out last."""
        return self.progress.moved_at

    def look(self, now: float) -> int | None:
        """See to what takes too long. Bytes that wait to be sent, or None when there is nothing more to follow."""
        return self.progress.look(self, now)

    def body_under_way(self) -> int | None:
        """Bytes that have come of the body that is waited for; None when it is complete."""
        if self._lanes is not None and not self._lanes.is_twisted:
            return self._lanes.body_under_way
        return self._content_bytes() if self.requests and not self.is_answering else None

    def _content_bytes(self) -> int:
        """Bytes of content that have come of the last request."""
        request = self.requests[-1]
        return int(request.content.tell() if request.intake is None else request.intake.received_bytes)

    def is_known(self) -> bool:
        """Whether the request whose body is incomplete is from a known client."""
        return self._authorization.knows(self.requests[-1].visitor)

    def make_room(self, rate: float = math.inf, *, known: bool = True) -> None:
        """Give up the body that is waited for, which came in `rate` bytes a second (inf: nobody can say), from
        somebody `known` or not.
        """
        self.refuse(errors.too_much_unfinished(self._deadlines.limits.unfinished, rate, known=known))
