"""Refusals: why requests are refused before they are complete; the answers to them, and to one connection too many.

One connection too many is answered and closed without reading what it sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers

from .access_log import AccessLog
from .answers import NOSNIFF, SERVER, Answer, phrase
from .cors import Cors

#: Seconds that a refused client gets to read why and close, and how many may take that time at once. The others are
#: closed as soon as they were told, and may see a reset in place of the answer.
LINGER_TIMEOUT, MAX_LINGERING = 2.0, 32

#: Why requests are refused before they are complete: they are not HTTP/1.1; for another host; too large; too slow;
#: there is no room for incomplete ones; large and from an unknown client; from a client that may not do that or is over
#: its rate; on one connection too many.
MALFORMED, HOST, BODY_TOO_LARGE, SLOW, NO_ROOM, UNAUTHENTICATED, NOT_ALLOWED, CONNECTIONS = REASONS = (
    "malformed", "host", "body_too_large", "slow", "no_room", "unauthenticated", "not_allowed", "connections",
)  # fmt: skip
# By the status of the answer, where no other reason is given.
_REASON = {400: MALFORMED, 421: HOST, 413: BODY_TOO_LARGE, 408: SLOW, 429: NO_ROOM, 503: CONNECTIONS}


def whole(answer: Answer, more: Sequence[tuple[str, str]] = ()) -> bytes:
    """An answer with its head and `more` headers, after which the connection is closed."""
    lines = [
        f"HTTP/1.1 {answer.status} {phrase(answer.status).decode()}",
        f"Server: {SERVER.decode()}",
        f"{NOSNIFF[0].decode()}: {NOSNIFF[1].decode()}",
        f"Date: {datetimeToString().decode()}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        *(f"{name}: {value}" for name, value in (*answer.headers, *more)),
        "Connection: close",
    ]
    return "\r\n".join([*lines, "\r\n"]).encode("ascii") + answer.body


class Refuser:
    """Refuses requests that have not come whole, on all connections of a site. Reactor thread."""

    def __init__(self, cors: Cors, access_log: AccessLog | None) -> None:
        self._cors = cors
        self._access_log = access_log
        #: Those that were refused, by reason (REASONS).
        self.counts = dict.fromkeys(REASONS, 0)

    def refuse(self, transport: Any, peer: bytes, headers: Headers, answer: Answer, reason: str | None) -> None:
        """Answer in place of a request, of which these `headers` have come.

        None for `reason`, which it is counted by: the one of the answer's status.
        """
        transport.write(whole(answer, self._cors.headers(headers)))
        self.counts[reason or _REASON[answer.status]] += 1
        if self._access_log is not None:
            self._access_log.other(peer, b"", b"", answer.status, len(answer.body), 0.0)


class Refusals:
    """Makes the protocols of refused connections. Reactor thread."""

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        #: Those that get time to read.
        self.lingering: set[Refusal] = set()

    def refuse(self, answer: Answer) -> Refusal:
        """A protocol that sends this answer and closes."""
        return Refusal(self, whole(answer))

    def abort(self) -> None:
        """Close all at once."""
        for refusal in tuple(self.lingering):
            refusal.transport.abortConnection()


class Refusal(Protocol):
    """One refused connection."""

    transport: Any

    def __init__(self, refusals: Refusals, answer: bytes) -> None:
        self._refusals = refusals
        self._answer = answer
        self._end: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Send the refusal before any request has come, and close."""
        self.transport.write(self._answer)
        lingering = self._refusals.lingering
        if len(lingering) < MAX_LINGERING:
            lingering.add(self)
            self._end = self._refusals.clock.callLater(LINGER_TIMEOUT, self.transport.abortConnection)
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Ignore what a refused client sends."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone."""
        self._refusals.lingering.discard(self)
        if self._end is not None and self._end.active():
            self._end.cancel()
