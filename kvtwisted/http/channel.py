"""Connections and requests: Twisted's HTTP/1.1, with what a server of our kind must do differently.

Note [Refusing a request before it is read]: closing a TCP connection while the client is still sending makes the kernel
answer with a reset, on which the client may drop the answer that explains the refusal. So after a refusal only our side
is closed, what still comes is thrown away, and the connection is aborted if the client has not closed it in
LINGER_TIMEOUT seconds. Nothing that came behind the refused request is ever looked at.

Note [One answer at a time]: Twisted stops reading from a client that does not take its answers, but not while a request
is being worked on, and it goes on with requests that have come in already. A client that pipelines requests for large
values and reads nothing would make the server hold all the answers. So here neither is a byte read nor a request begun
while an answer waits.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, datetimeToString
from twisted.web.server import Request

from . import errors
from .answers import SERVER, Answer, phrase
from .deadlines import MIN_BODY_RATE, STALL_BYTES, unsent_bytes

if TYPE_CHECKING:
    from .site import KvSite

#: Seconds that a refused client gets to read the refusal and close.
LINGER_TIMEOUT = 5.0
#: Bytes of chunk sizes, extensions and trailers that a chunked body may have besides as many as it has content. What is
#: below that costs work without a limit: chunks of one byte, each with an extension.
MAX_FRAMING = 65_536

#: Host: a name, an IPv4 address or an IPv6 address in brackets, and a port (RFC 9110, section 7.2). Empty is allowed, for
#: targets without an authority. Of the characters of RFC 3986 those that no name has are left out.
_HOST = re.compile(rb"(?:[0-9A-Za-z.\-_~%]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# What of a request is missing.
_NOTHING, _HEAD, _BODY = range(3)


class KvRequest(Request):
    """A request whose body is in memory, and whose path reaches Klein as it was sent."""

    channel: KvChannel
    content: BytesIO

    def gotLength(self, length: int | None) -> None:
        """The head is complete. Twisted would put a long body into a file."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """A part of the body; the first one over the limit ends the connection."""
        limit = self.channel.site.max_body_bytes
        if self.content.tell() + len(data) > limit:
            self.channel.refuse(errors.body_too_large(limit, None))
        else:
            self.content.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The request is complete. Twisted would read forms out of its body and query."""
        self.method, self.uri, self.clientproto = command, path, version
        self.path = path.partition(b"?")[0]
        self.args = {}
        self.process()

    def process(self) -> None:
        """Hand the request to the application, its path undecoded."""
        self.site = self.channel.site
        self.setHeader(b"Server", SERVER)
        self.setHeader(b"Date", datetimeToString())
        self.prepath = []
        self.postpath = _segments(self.path)
        try:
            self.render(self.site.resource)
        except Exception:
            self.processingFailed(Failure())

    def begin(self, answer: Answer) -> bytes:
        """Set the status and headers of `answer`; returns the body, for the caller to write."""
        self.setResponseCode(answer.status, phrase(answer.status))
        self.setHeader("Content-Type", answer.content_type)
        self.setHeader("Content-Length", str(len(answer.body)))
        for name, value in answer.headers:
            self.setHeader(name, value)
        return answer.body

    def processingFailed(self, reason: Failure) -> Failure:
        """A defect outside of every handler. Twisted would answer with HTML."""
        self.write(self.begin(errors.answer(reason, "http")))
        self.finish()
        return reason

    def getRequestHostname(self) -> bytes:
        """No route depends on the Host header, and Klein fails on some that clients can send."""
        return b"localhost"


class KvChannel(HTTPChannel):
    """One connection. Requests on it are answered one after the other, as Twisted does it."""

    requestFactory = KvRequest
    site: KvSite
    transport: Any
    #: What the connection is counted by in `security.connections`.
    address = ""
    #: When answers that wait got on last.
    moved_at = 0.0
    _closing = False
    _refused = False
    # What of a request is missing, and since when; what the look at its answers has seen last.
    _missing = _NOTHING
    _missing_since = 0.0
    _unsent: int | None = None
    # Bytes of a chunked body as they came, framing included.
    _chunked = 0

    def connectionMade(self) -> None:
        """The connection is open."""
        super().connectionMade()
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone; so is the interest in the answer to a request under way."""
        super().connectionLost(reason)
        self.site.deadlines.forget(self)
        self.site.closed(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client, which are of no interest once we are closing."""
        if self._closing:
            return
        super().dataReceived(data)
        if not self._busyReceiving and not self._closing:
            self._note_what_is_missing()

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
        """One header is complete. Twisted fails on a Content-Length of more digits than Python reads."""
        # No space before the colon (RFC 9112, section 5.1), whatever the release of Twisted says.
        if not _TOKEN.fullmatch(line.partition(b":")[0]):
            self.refuse(errors.malformed())
            return False
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            self.refuse(errors.malformed())
            return False

    def allHeadersReceived(self) -> None:
        """Refuse a body that is announced as too long, before `100 Continue` asks for it."""
        self._missing = _NOTHING
        self._chunked = 0
        limit = self.site.max_body_bytes
        if self._closing:
            return
        if not self._has_good_host():
            self.refuse(errors.bad_host())
        elif self.length is not None and self.length > limit:
            self.refuse(errors.body_too_large(limit, self.length))
        else:
            super().allHeadersReceived()

    def _has_good_host(self) -> bool:
        """One valid Host, or none in HTTP/1.0 (RFC 9112, section 3.2)."""
        hosts = self.requests[-1].requestHeaders.getRawHeaders(b"host", ())
        if len(hosts) == 1:
            return _HOST.fullmatch(hosts[0]) is not None
        return not hosts and self._version == b"HTTP/1.0"

    def allContentReceived(self) -> None:
        """A request is complete; one that was refused meanwhile is not carried out."""
        if not self._closing:
            self._missing = _NOTHING
            super().allContentReceived()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Whether the connection may serve another request after this one."""
        if self.site.draining:
            request.setHeader(b"Connection", b"close")
            return False
        return bool(super().checkPersistence(request, version))

    def drain(self) -> None:
        """Close as soon as the request under way, if any, is answered."""
        if not self.requests:
            self.loseConnection()
            return
        # An answer is written in one go, so that this one has not been begun.
        self.persistent = False
        self.requests[-1].setHeader(b"Connection", b"close")

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._closing = True
        self.transport.abortConnection()

    def refuse(self, answer: Answer) -> None:
        """Answer in place of a request that is not complete, and close. See Note [Refusing ...] above."""
        if self._closing:
            return
        self.transport.write(whole(answer))
        self._closing = self._refused = True
        self.paused = True
        self.transport.unregisterProducer()
        self.setTimeout(LINGER_TIMEOUT)
        self.transport.loseWriteConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted found no well-formed request."""
        self.refuse(errors.malformed())

    def loseConnection(self) -> None:
        """Close once all has been sent. A client that does not read it gets as long as an idle one."""
        self._closing = True
        self.setTimeout(self.site.timeOut)
        super().loseConnection()
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

    # What takes too long: see Note [Absolute deadlines] in `deadlines`.

    def _note_what_is_missing(self) -> None:
        """Bytes came in, and all that can be done with them is done: is it in the middle of a request?"""
        if self._handlingRequest:
            return
        if self.requests:
            missing = _HEAD if self.line_mode else _BODY
        else:
            missing = _HEAD if self._buffer else _NOTHING
        if missing != self._missing:
            self._await(missing)

    def _await(self, missing: int) -> None:
        self._missing = missing
        if missing != _NOTHING:
            deadlines = self.site.deadlines
            self._missing_since = deadlines.seconds()
            deadlines.watch(self, self._unsent or 0)

    def await_body(self) -> None:
        """The head of a request is complete, its body is not. For lanes that read by themselves."""
        self._await(_BODY)

    def body_under_way(self) -> int | None:
        """Bytes that have come of the body that is waited for; None when it is complete."""
        return self.requests[-1].content.tell() if self.requests and not self._handlingRequest else None

    def look(self, now: float) -> int | None:
        """See to what takes too long. Bytes that wait to be sent, or None when there is nothing more to watch."""
        unsent = self._look_at_sending(now)
        if self._closing:
            return unsent or None
        if self._waitingForTransport:
            # What it sends is not read; that is no fault of its own.
            self._missing_since = now
            return unsent
        return unsent or (0 if self._look_at_request(now) else None)

    def _look_at_request(self, now: float) -> bool:
        """Whether something of a request is missing that may still come."""
        patience = self.site.deadlines.patience
        waited = now - self._missing_since
        if self._missing == _HEAD:
            if waited > patience.head:
                self.refuse(errors.too_slow("head", patience.head))
        elif self._missing == _BODY:
            received = self.body_under_way()
            if received is None:
                self._missing = _NOTHING
            elif waited > patience.body + received / MIN_BODY_RATE:
                self.refuse(errors.too_slow("body", patience.body))
        return self._missing != _NOTHING and not self._closing

    def _look_at_sending(self, now: float) -> int:
        """Cut off a client that does not read. Bytes that wait to be sent."""
        unsent = unsent_bytes(self.transport)
        before = self._unsent
        if not unsent:
            self._unsent = None
        elif before is None or unsent <= before - STALL_BYTES:
            self._unsent, self.moved_at = unsent, now
        else:
            self._unsent = max(before, unsent)
            stuck = self._waitingForTransport or (self._closing and not self._refused)
            if stuck and now - self.moved_at > self.site.deadlines.patience.sending:
                self.abort()
                return 0
        return unsent

    def _watch_sending(self) -> None:
        unsent = unsent_bytes(self.transport)
        if unsent:
            self.site.deadlines.watch(self, unsent)

    def pauseProducing(self) -> None:
        """The client does not take its answers. See Note [One answer at a time]."""
        super().pauseProducing()
        self._networkProducer.pauseProducing()
        self.paused = True
        # All that waited before has gone.
        self._unsent, self.moved_at = None, self.site.deadlines.seconds()
        self.site.deadlines.watch(self, unsent_bytes(self.transport))

    def resumeProducing(self) -> None:
        """The client has taken all."""
        if self._closing:
            return
        self.paused = False
        super().resumeProducing()
        # What has come in meanwhile.
        self.dataReceived(b"")


def whole(answer: Answer) -> bytes:
    """An answer with its head, after which the connection is closed."""
    lines = [
        f"HTTP/1.1 {answer.status} {phrase(answer.status).decode()}",
        f"Server: {SERVER.decode()}",
        f"Date: {datetimeToString().decode()}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        *(f"{name}: {value}" for name, value in answer.headers),
        "Connection: close",
    ]
    return "\r\n".join([*lines, "\r\n"]).encode("ascii") + answer.body


def _segments(path: bytes) -> list[bytes]:
    """The path as Klein takes it: its segments, still percent-encoded."""
    if path.startswith((b"http://", b"https://")):
        # The absolute form, which every server has to accept (RFC 9112, section 3.2.2).
        path = b"/" + path.split(b"/", 3)[3] if path.count(b"/") > 2 else b"/"
    # Klein would complete a missing first slash and drop a second one, and it fails on what is not ASCII.
    if not path.startswith(b"/") or path.startswith(b"//") or not path.isascii():
        return [b"*"]
    return path[1:].split(b"/")
