"""What takes too long on connections: requests that do not get complete, and answers that are not read.

Note [Absolute deadlines]: a timeout that each byte restarts lets a client hold a connection for ever with a byte now
and then. So the deadlines here are absolute: a head must be complete in so many seconds from its first byte, a body
in so many from the end of its head. A large body over a slow line is no attack, so that each MIN_BODY_RATE bytes of it
that have come give one second more (as in Apache's mod_reqtimeout): what is asked is an average, not a pause without
end. Of an answer that waits, STALL_BYTES or all that is left must go out in so many seconds.

No timer is armed for any of this. A request that comes whole is never heard of here; a connection which something is
missing from is put on a list that is looked through every LOOK_SECONDS while there is anything on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: Seconds between two looks; as much later than its time a deadline may be noticed.
LOOK_SECONDS = 0.5
#: Bytes of a body that give it one second more.
MIN_BODY_RATE = 16_384
#: Bytes of waiting answers that count as getting on.
STALL_BYTES = 65_536
#: Bytes up to which a body is not refused for want of room: how many there can be is up to the number of connections.
SMALL_BODY = 65_536

#: Why connections are cut off: a TLS handshake, head, body or reader that is too slow; too many bytes of answers on all
#: connections; and a body of more than `ByteLimits.unauthenticated_body` from nobody known.
HANDSHAKE, SLOW_HEAD, SLOW_BODY, SLOW_READER, UNSENT, UNAUTHENTICATED_BODY = REASONS = (
    "handshake", "slow_head", "slow_body", "slow_reader", "unsent", "unauthenticated_body",
)  # fmt: skip

_log = Logger(namespace="kvtwisted.http")


@dataclass(frozen=True)
class Patience:
    """Seconds for the head of a request, for its body, and for STALL_BYTES of waiting answers."""

    head: float = 20
    body: float = 30
    sending: float = 60


@dataclass(frozen=True)
class ByteLimits:
    """Bytes that clients may make the server hold, on all connections together but for the last."""

    #: Of bodies that are not complete (`limits.max_unfinished_bytes`); then those are refused that came most slowly.
    unfinished: int = 256 << 20
    #: Of answers that are not read (`limits.max_unsent_bytes`); then those are cut off that have not read for longest.
    unsent: int = 256 << 20
    #: Of one body that is read before it is known who sends it (`security.unauthenticated_body_bytes`).
    unauthenticated_body: int = 65_536


class Watched(Protocol):
    """A connection, as it is looked at here."""

    #: When answers that wait got on last.
    moved_at: float

    def look(self, now: float) -> int | None:
        """See to what takes too long. Bytes that wait to be sent, or None when there is nothing more to watch."""

    def body_under_way(self) -> int | None:
        """Bytes that have come of the body that is waited for; None when it is complete."""

    def body_rate(self, now: float) -> float:
        """Bytes a second in which it came."""

    def make_room(self) -> None:
        """Give up the body that is waited for."""

    def abort(self) -> None:
        """Close at once."""


class Deadlines:
    """The connections of a site that something is missing from. Reactor thread."""

    def __init__(
        self,
        clock: IReactorTime,
        seconds: Callable[[], float],
        patience: Patience,
        limits: ByteLimits,
    ) -> None:
        """`clock` wakes; `seconds` is what deadlines go by, which no step of the wall clock should move."""
        self.seconds = seconds
        self.patience = patience
        self.limits = limits
        #: Connections that were cut off, by reason (REASONS), and requests refused for want of room, since the start.
        self.cut_off = dict.fromkeys(REASONS, 0)
        self.refused = 0
        self._clock = clock
        # Each with the bytes that it had waiting when it was looked at last.
        self._watched: dict[Watched, int] = {}
        self._unsent = 0
        self._unfinished = 0
        self._next: IDelayedCall | None = None

    @property
    def unsent(self) -> int:
        """Bytes of answers that wait for clients that do not read, as far as looked at."""
        return self._unsent

    @property
    def unfinished(self) -> int:
        """Bytes of bodies that are not complete."""
        return self._unfinished

    def retune(self, limits: ByteLimits) -> None:
        """These hold from now on; what is over them is refused or cut off at once."""
        self.limits = limits
        if self._unfinished > limits.unfinished:
            self._make_room()
        if self._unsent > limits.unsent:
            self._look_at_all()
            self._relieve()

    def received(self, count: int) -> None:
        """So many bytes more of a body have come, or (negative) are not held any more."""
        self._unfinished += count
        if self._unfinished > self.limits.unfinished:
            self._make_room()

    def watch(self, connection: Watched, unsent: int | None = None) -> None:
        """Look at `connection` from now on; `unsent` bytes wait there, or (None) as many as before.

        When too many wait on all connections together, some are cut off.
        """
        before = self._watched.get(connection, 0)
        self._watched[connection] = after = before if unsent is None else unsent
        self._unsent += after - before
        if self._next is None:
            self._next = self._clock.callLater(LOOK_SECONDS, self._look)
        if self._unsent > self.limits.unsent:
            self._look_at_all()
            self._relieve()

    def forget(self, connection: Watched) -> None:
        """The connection is gone, or nothing is missing any more."""
        self._unsent -= self._watched.pop(connection, 0)
        if not self._watched and self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self) -> None:
        self._next = None
        try:
            self._look_at_all()
        finally:
            if self._watched and self._next is None:
                self._next = self._clock.callLater(LOOK_SECONDS, self._look)

    def _look_at_all(self) -> None:
        now = self.seconds()
        for connection in tuple(self._watched):
            try:
                unsent = connection.look(now)
            except Exception:
                _log.failure("an HTTP connection could not be looked after")
                unsent = None
                connection.abort()
            # A look may have ended it.
            if connection in self._watched:
                if unsent is None:
                    self._unsent -= self._watched.pop(connection)
                else:
                    self._unsent += unsent - self._watched[connection]
                    self._watched[connection] = unsent

    def _relieve(self) -> None:
        """Cut off those that have not read for the longest, until a quarter is free."""
        waiting = [connection for connection, unsent in self._watched.items() if unsent]
        for connection in sorted(waiting, key=lambda connection: connection.moved_at):
            if self._unsent <= self.limits.unsent * 3 // 4:
                break
            self.forget(connection)
            self.cut_off[UNSENT] += 1
            connection.abort()

    def _make_room(self) -> None:
        """Refuse what came most slowly, until a quarter is free."""
        now = self.seconds()
        large = [connection for connection in self._watched if (connection.body_under_way() or 0) > SMALL_BODY]
        for connection in sorted(large, key=lambda connection: connection.body_rate(now)):
            if self._unfinished <= self.limits.unfinished * 3 // 4:
                break
            connection.make_room()


def unsent_bytes(transport: Any) -> int:
    """Bytes that were written to `transport`, and to what is beneath it, and that the kernel has not taken yet."""
    waiting = 0
    while transport is not None:
        waiting += len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
        waiting += getattr(transport, "_tempDataLen", 0)
        # Of TLS: what waits for the handshake, or for the other side.
        waiting += sum(map(len, getattr(transport, "_appSendBuffer", ())))
        transport = getattr(transport, "transport", None)
    return waiting
