"""Connections and requests: Twisted's HTTP/1.1, with what a server of our kind must do differently.

Note [Refusing a request before it is read]: closing a TCP connection while the client is still sending makes the kernel
answer with a reset, on which the client may drop the answer that explains the refusal. So after a refusal only our side
is closed, what still comes is thrown away, and the connection is aborted if the client has not closed it in
LINGER_TIMEOUT seconds. Nothing that came behind the refused request is ever looked at.
"""

from __future__ import annotations

from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, datetimeToString
from twisted.web.server import Request

from ..security.gate import Visitor
from . import errors
from .access_log import peer_text
from .answers import NOSNIFF, SERVER, Answer, phrase

if TYPE_CHECKING:
    from .site import KvSite

#: Seconds that a refused client gets to read the refusal and close.
LINGER_TIMEOUT = 5.0


class KvRequest(Request):
    """A request whose body is in memory, and whose path reaches Klein as it was sent."""

    channel: KvChannel
    content: BytesIO
    #: When it was complete (`time.monotonic`).
    received_at: float

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
        self.received_at = monotonic()
        self.method, self.uri, self.clientproto = command, path, version
        self.path = path.partition(b"?")[0]
        self.args = {}
        self.process()

    def process(self) -> None:
        """Hand the request to the application, its path undecoded."""
        self.site = self.channel.site
        self.setHeader(b"Server", SERVER)
        self.setHeader(*NOSNIFF)
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
    #: Who the connection says is there.
    visitor = Visitor("")
    #: Their address and port, for the access log.
    peer = b""
    _closing = False

    def connectionMade(self) -> None:
        """The connection is open."""
        super().connectionMade()
        peer = self.transport.getPeer()
        self.visitor = Visitor(getattr(peer, "host", ""))
        self.peer = peer_text(self.visitor.address, getattr(peer, "port", 0))
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone; so is the interest in the answer to a request under way."""
        super().connectionLost(reason)
        self.site.closed(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client, which are of no interest once we are closing."""
        if not self._closing:
            super().dataReceived(data)

    def lineLengthExceeded(self, line: bytes) -> None:
        """A request line or header of more than 16 KiB."""
        self.refuse(errors.malformed())

    def headerReceived(self, line: bytes) -> bool:
        """One header is complete. Twisted fails on a Content-Length of more digits than Python reads."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            self.refuse(errors.malformed())
            return False

    def allHeadersReceived(self) -> None:
        """Refuse an unknown host, and a body that is announced as too long, before `100 Continue` asks for it."""
        limit, hosts = self.site.max_body_bytes, self.site.hosts
        names = self.requests[-1].requestHeaders.getRawHeaders(b"host", ())
        if hosts is not None and not all(map(hosts.allow, names)):
            self.refuse(errors.unknown_host())
            return
        if self.length is not None and self.length > limit:
            self.refuse(errors.body_too_large(limit, self.length))
        else:
            super().allHeadersReceived()

    def allContentReceived(self) -> None:
        """A request is complete; one that was refused meanwhile is not carried out."""
        if not self._closing:
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

    def forget(self) -> None:
        """Look again who is there, from the next request on. Here each request is looked at anyway."""

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self.transport.abortConnection()

    def refuse(self, answer: Answer) -> None:
        """Answer in place of a request that is not complete, and close. See Note [Refusing ...] above."""
        if self._closing:
            return
        head = (
            f"HTTP/1.1 {answer.status} {phrase(answer.status).decode()}\r\n"
            f"Server: {SERVER.decode()}\r\n{NOSNIFF[0].decode()}: {NOSNIFF[1].decode()}\r\n"
            f"Date: {datetimeToString().decode()}\r\n"
            f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + answer.body)
        if self.site.access_log is not None:
            self.site.access_log.other(self.peer, b"", b"", answer.status, len(answer.body), 0.0)
        self._closing = True
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

    def timeoutConnection(self) -> None:
        """The idle timeout, or the end of patience with a client while closing."""
        if self._closing:
            self.abort()
        else:
            self.loseConnection()


def _segments(path: bytes) -> list[bytes]:
    """The path as Klein takes it: its segments, still percent-encoded."""
    if path.startswith((b"http://", b"https://")):
        # The absolute form, which every server has to accept (RFC 9112, section 3.2.2).
        path = b"/" + path.split(b"/", 3)[3] if path.count(b"/") > 2 else b"/"
    # Klein would complete a missing first slash and drop a second one, and it fails on what is not ASCII.
    if not path.startswith(b"/") or path.startswith(b"//") or not path.isascii():
        return [b"*"]
    return path[1:].split(b"/")
