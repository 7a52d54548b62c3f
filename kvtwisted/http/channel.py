"""Connections and requests: Twisted's HTTP/1.1, with what a server of our kind must do differently.

Note [Refusing a request before it is read]: closing a TCP connection while the client is still sending makes the kernel
answer with a reset, on which the client may drop the answer that explains the refusal. So after a refusal only our side
is closed, what still comes is thrown away, and the connection is aborted if the client has not closed it in
LINGER_TIMEOUT seconds. Nothing that came behind the refused request is ever looked at.

Note [The end of input]: a client may close its sending side behind its last request and still wait for the answers (RFC
9112, section 9.6). So the end of what comes in is not the end of the connection: requests that came whole are all
answered, then it is closed; one that did not come whole is dropped. To the server a client that is gone without a reset
looks the same. What it costs is bounded as ever: by the time of a request, and by that of an answer which nobody reads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers
from twisted.web.server import Request
from zope.interface import implementer

from ..security.gate import Visitor
from ..tls.peers import peer
from . import bodies, errors, fields
from .access_log import peer_text
from .answers import Answer
from .deadlines import UNAUTHENTICATED_BODY, unread_bytes, unsent_bytes
from .refusing import BODY_TOO_LARGE, NOT_ALLOWED, UNAUTHENTICATED, reason_of, whole
from .requests import KvRequest
from .routes import KEYED, KEYLESS
from .watching import WatchedChannel

if TYPE_CHECKING:
    from .site import KvSite

#: Seconds that a refused client gets to read the refusal and close.
LINGER_TIMEOUT = 5.0
#: Seconds that a request gets to finish when the certificate of its client has ended.
EXPIRED_TIMEOUT = 10.0
#: Bytes of chunk sizes, extensions and trailers that a chunked body may have besides as many as it has content. What is
#: below that costs work without a limit: chunks of one byte, each with an extension.
MAX_FRAMING = 65_536

#: Host: a name, an IPv4 address or an IPv6 address in brackets, and a port (RFC 9110, section 7.2). It may be empty,
#: for targets without an authority. Of the characters of RFC 3986 those that no name has are left out.
_HOST = re.compile(rb"(?:[0-9A-Za-z.\-_~%]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


@implementer(IHalfCloseableProtocol)
class KvChannel(WatchedChannel):
    """One connection. Requests on it are answered one after the other, as Twisted does it."""

    requestFactory = KvRequest
    site: KvSite
    transport: Any
    #: Their address and port, for the access log.
    peer = b""
    #: What the connection is counted by in `security.connections`.
    address = ""
    #: The end of the time to show an administrator's token, of one that was let in for that: see
    #: Note [Reserved for administrators] in `security.connections`.
    on_trial: IDelayedCall | None = None
    # The headers Authorization of the last request; None: nothing has been asked.
    _shown: tuple[bytes, ...] | None = None
    # Bytes of a chunked body as they came, framing included.
    _chunked = 0
    # When it was noticed that the client's certificate has ended.
    _expired_at: float | None = None

    def connectionMade(self) -> None:
        """The connection is open."""
        super().connectionMade()
        peer = self.transport.getPeer()
        self.peer = peer_text(getattr(peer, "host", ""), getattr(peer, "port", 0))
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone; so is the interest in the answer to a request under way."""
        if self.is_on_trial:
            self.on_trial.cancel()  # type: ignore[union-attr]  # it is there
        try:
            super().connectionLost(reason)
        finally:
            # Whatever has failed, a connection that is gone is not counted: a server would never stop for it.
            try:
                self.site.deadlines.forget(self)
            finally:
                self.site.closed(self)

    @cached_property
    def visitor(self) -> Visitor:
        """Who the connection says is there. To be asked once something has come: by then TLS knows the certificate."""
        return Visitor(self.address, (), *peer(self.transport))

    @property
    def closing(self) -> bool:
        """Whether nothing that comes in is looked at any more."""
        return self._closing

    def rawDataReceived(self, data: bytes) -> None:
        """A part of a body, or what follows a request that is being worked on."""
        super().rawDataReceived(data)
        # While a chunked body comes in there is no length.
        if self.length is None and not self._closing and not self._handlingRequest:
            self._chunked += len(data)
            content = self.requests[-1].content.tell()
            if self._chunked > MAX_FRAMING + 2 * content:
                self.refuse(errors.malformed())

    def lineReceived(self, line: bytes) -> None:
        """The request line, or a header. Twisted would put folded ones together (RFC 9112, section 5.2)."""
        if line.startswith((b" ", b"\t")):
            self.refuse(errors.malformed())
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """A request line or header of more than 16 KiB."""
        self.refuse(errors.malformed())

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
        self.refuse(errors.malformed())
        return False

    def allHeadersReceived(self) -> None:
        """Refuse an unknown host, and a body that is announced as too long, before `100 Continue` asks for it."""
        self._nothing_missing()
        self._chunked = 0
        limit, hosts = self.site.max_body_bytes, self.site.hosts
        names = self.requests[-1].requestHeaders.getRawHeaders(b"host", ())
        if self._closing:
            return
        visitor = self.requests[-1].visitor
        self._shown = visitor.authorization
        if self.is_on_trial and not self._passes_trial(visitor):
            self.fail_trial()
        elif not self._is_good_host(names):
            self.refuse(errors.bad_host())
        elif hosts is not None and not all(map(hosts.allow, names)):
            self.refuse(errors.unknown_host())
        elif self.length is not None and self.length > limit:
            self.refuse(errors.body_too_large(limit, self.length))
        elif (refusal := self._refusal()) is not None:
            self.refuse(*refusal)
        else:
            self._put_expectation_plainly()
            super().allHeadersReceived()

    # When there are too many connections.

    @property
    def is_on_trial(self) -> bool:
        """Whether an administrator's token or certificate has to be shown yet."""
        return self.on_trial is not None and self.on_trial.active()

    def _passes_trial(self, visitor: Visitor) -> bool:
        if not self.site.entrance.administers(visitor):
            return False
        if self.on_trial is not None:
            self.on_trial.cancel()
            self.on_trial = None
            self.site.passed_trial(self)
        return True

    def fail_trial(self) -> None:
        """It is one connection too many."""
        if self.on_trial is not None and self.on_trial.active():
            self.on_trial.cancel()
        self.refuse(self.site.refused_on_trial())

    def idle_seconds(self) -> float | None:
        """For how long no request was under way; None: one is, or an answer. See `connections.Member`."""
        ending = getattr(self, "_TimeoutMixin__timeoutCall", None)
        if self._closing or self._handlingRequest or self._waitingForTransport or ending is None or not self.timeOut:
            return None
        if self.requests and not self.line_mode:
            return None  # a body comes in
        return float(self.timeOut - (ending.getTime() - self.site.reactor.seconds()))

    def is_of_somebody(self) -> bool:
        """Whether somebody known has asked something on it."""
        return self._shown is not None and self.site.entrance.knows(self.visitor._replace(authorization=self._shown))

    def make_way(self) -> None:
        """Close, for others to have the place."""
        self.loseConnection()

    def _put_expectation_plainly(self) -> None:
        """Twisted looks at the first line of Expect only, and takes it for one word."""
        headers = self.requests[-1].requestHeaders
        expected = headers.getRawHeaders(b"expect")
        if expected is not None:
            asked = b"100-continue" in fields.members(expected)
            headers.setRawHeaders(b"expect", [b"100-continue"] if asked else [])

    def _refusal(self) -> tuple[Answer, str] | None:
        """What is to be said to a large body before it comes, and why. See Note [What is known first]."""
        length = math.inf if self.length is None else self.length
        unasked = self.site.deadlines.limits.unauthenticated_body
        if length <= unasked and length <= bodies.LARGE:
            return None
        entrance, visitor, path = self.site.entrance, self.requests[-1].visitor, self._path.partition(b"?")[0]
        if length > unasked and (refusal := entrance.refusal(visitor)) is not None:
            self.site.deadlines.cut_off[UNAUTHENTICATED_BODY] += 1
            return refusal, UNAUTHENTICATED
        if length > bodies.LARGE and path in KEYED:
            refusal = entrance.refusal_of_known(KEYED[path], visitor)
            return None if refusal is None else (refusal, NOT_ALLOWED)
        if bodies.LARGE < length < math.inf and path in KEYLESS:
            return errors.too_large(bodies.size_sentence(int(length))), BODY_TOO_LARGE
        return None

    def _is_good_host(self, names: Sequence[bytes]) -> bool:
        """One valid Host, or none in HTTP/1.0 (RFC 9112, section 3.2)."""
        if len(names) == 1:
            return _HOST.fullmatch(names[0]) is not None
        return not names and self._version == b"HTTP/1.0"

    def allContentReceived(self) -> None:
        """A request is complete; one that was refused meanwhile is not carried out."""
        if not self._closing:
            self._nothing_missing()
            super().allContentReceived()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Whether the connection may serve another request after this one, which the answer says where it must."""
        headers = request.requestHeaders
        keeps = fields.keeps_connection(version, headers.getRawHeaders(b"connection", ()))
        if version == b"HTTP/1.0" and headers.hasHeader(b"transfer-encoding"):
            # Who has put that there did not know where the request ends (RFC 9112, section 6.1).
            keeps = False
        if not keeps:
            request.setHeader(b"Connection", b"close")
        elif version == b"HTTP/1.0":
            request.setHeader(b"Connection", b"keep-alive")
        return keeps

    # The server's end: see Note [One request more] in `site`.

    def is_last_answer(self) -> bool:
        """Whether the answer that goes out now is the connection's last."""
        return self.is_ending() and (self.site.parting or not self.has_more())

    def is_ending(self) -> bool:
        """Whether no more is to be asked on it: the server stops, or the certificate of its client has ended."""
        return self.site.draining or self._expired_at is not None

    def has_more(self) -> bool:
        """Whether something has come behind the request that is being answered."""
        return bool(self._buffer or any(self._dataBuffer))

    def part(self) -> None:
        """Close, unless there is something to answer, or about to be."""
        if not (self._closing or self.has_unanswered() or unread_bytes(self.transport)):
            self.loseConnection()

    def has_unanswered(self) -> bool:
        """Whether a request has come, or its first line, that has not been answered."""
        waits = any(self._dataBuffer) or (self._waitingForTransport and self.has_more())
        return bool(self.requests or self._busyReceiving or waits)

    # The end of input: see the note above.

    def readConnectionLost(self) -> None:
        """The client sends no more, or is gone. It may be told more than once."""
        self._input_ended = True
        self.close_if_heard_out()

    def writeConnectionLost(self) -> None:
        """Our side is closed, which is our own doing."""

    def is_working(self) -> bool:
        """Whether more answers may follow by themselves: to what has come in, or once the client takes earlier ones."""
        return bool(self._handlingRequest or self._waitingForTransport or self._busyReceiving)

    def requestDone(self, request: http.Request) -> None:
        """Twisted.web has answered a request."""
        super().requestDone(request)
        if self._input_ended:
            self.close_if_heard_out()

    def close_if_heard_out(self) -> None:
        """Close if nothing more comes in, and all that came has been answered."""
        if self._closing:
            if self._refused:
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
        if self._expired_at is None:
            self._expired_at = now
            self.forget()
            self.part()
        elif now - self._expired_at > EXPIRED_TIMEOUT:
            self.abort()

    def forget(self) -> None:
        """Look again who is there, from the next request on. Here each request is looked at anyway."""

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._closing = True
        self._give_up_body()
        self.transport.abortConnection()

    def refuse(self, answer: Answer, reason: str | None = None) -> None:
        """Answer in place of a request that is not complete, and close. See Note [Refusing ...] above.

        `reason` (of `refusing.REASONS`) is what it is counted by; None: the one of the answer's status.
        """
        if self._closing:
            return
        request_headers = self.requests[-1].requestHeaders if self.requests else Headers()
        self.transport.write(whole(answer, self.site.cors.headers(request_headers)))
        self.site.refused[reason or reason_of(answer)] += 1
        if self.site.access_log is not None:
            self.site.access_log.other(self.peer, b"", b"", answer.status, len(answer.body), 0.0)
        self._closing = self._refused = True
        self._give_up_body()
        self.paused = True
        self.transport.unregisterProducer()
        self.setTimeout(LINGER_TIMEOUT)
        self.transport.loseWriteConnection()

    def _give_up_body(self) -> None:
        """Nothing that came of the request which is not complete is needed."""
        self.site.deadlines.release(self)
        if self.requests and not self._handlingRequest:
            self.requests[-1].content = BytesIO()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted found no well-formed request."""
        self.refuse(errors.malformed())

    def loseConnection(self) -> None:
        """Close once all has been sent. A client that does not read it gets as long as an idle one."""
        self._closing = True
        self._give_up_body()
        self.setTimeout(self.site.timeOut)
        super().loseConnection()
        self._restart_sending()
        self._watch_sending()

    def timeoutConnection(self) -> None:
        """The idle timeout, or the end of patience with a client while closing."""
        if not self._refused and (self._waitingForTransport or self._closing) and unsent_bytes(self.transport):
            # It reads what it was sent, slowly; how slowly it may is seen to by `look`.
            self._watch_sending()
            self.setTimeout(self.site.timeOut)
        elif self._closing:
            self.abort()
        else:
            self.loseConnection()
