"""Connections that are one too many: told so, and closed, without a look at what they send."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from .answers import Answer
from .channel import whole

#: Seconds that a refused client gets to read why and close, and how many may take that time at once. The others are
#: closed as soon as they were told, and may see a reset in place of the answer.
LINGER_TIMEOUT, MAX_LINGERING = 2.0, 32


class Refusals:
    """Makes the protocols of refused connections. Reactor thread."""

    def __init__(self, clock: IReactorTime, answer: Answer) -> None:
        self.clock = clock
        #: Those that get time to read.
        self.lingering: set[Refusal] = set()
        self._answer = answer

    def refuse(self) -> Refusal:
        """A protocol that answers and closes."""
        return Refusal(self, whole(self._answer))

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
        """Answer what was not asked yet, and close."""
        self.transport.write(self._answer)
        lingering = self._refusals.lingering
        if len(lingering) < MAX_LINGERING:
            lingering.add(self)
            self._end = self._refusals.clock.callLater(LINGER_TIMEOUT, self.transport.abortConnection)
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """It is of no interest."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone."""
        self._refusals.lingering.discard(self)
        if self._end is not None and self._end.active():
            self._end.cancel()
