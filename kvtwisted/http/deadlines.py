"""Deadlines of connections: incomplete requests, and answers that are not read.

Note [Absolute deadlines]: if each byte restarted the timeout, a client could hold a connection for ever with a byte now
and then. So the deadlines are absolute: a head must be complete within a time from its first byte, a body within a time
from the end of its head. A large body over a slow line is no attack, so each MIN_BODY_RATE bytes that have come give
one second more (as in Apache's mod_reqtimeout): the average rate counts. Of a waiting answer, STALL_BYTES or all that
is left must go out within a time.

Note [Room for unfinished bodies]: bodies that are not complete are refused when they take more than a limit together:
those of unknown clients first, which would be answered with 401 in the end, then the slowest, until a quarter is free.
Bodies of known clients that take less than half of an equal share are left alone. Together they have less than half of
the limit, so that there is always enough to refuse. The next check comes when as many bytes have come again. Freeing a
body never triggers one.

There is no timer for each connection. A request that comes in one piece is never seen here. Connections with an
incomplete request, or with waiting answers, are on a list that is checked every LOOK_SECONDS while it is not empty.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from fcntl import ioctl
from termios import FIONREAD
from typing import Any, Callable, NamedTuple, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..core.counting import ByteAccount, Holding

#: Seconds between two checks; a deadline may be noticed so much later.
LOOK_SECONDS = 0.5
#: Bytes of a body that give it one second more.
MIN_BODY_RATE = 16_384
#: Bytes of waiting answers that must go out to count as progress.
STALL_BYTES = 65_536
#: In its first seconds the rate of a body says nothing yet, and counts as infinite.
TOO_SHORT = 1.0

#: Why connections are cut off: a slow TLS handshake, head, body or reader; too many bytes of answers on all
#: connections; and a body of more than `ByteLimits.unauthenticated_body` from an unknown client.
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
    """Limits of bytes that clients make the server hold: on all connections together, except the last one."""

    #: Of bodies that are not complete (`limits.max_unfinished_bytes`); see Note [Room for unfinished bodies].
    unfinished: int = 256 << 20
    #: Of answers that are not read (`limits.max_unsent_bytes`); then those are cut off that have not read for longest.
    unsent: int = 256 << 20
    #: Of one body from an unknown client (`security.unauthenticated_body_bytes`).
    unauthenticated_body: int = 65_536


class Followed(Protocol):
    """What the deadlines need of a connection."""

    @property
    def moved_at(self) -> float:
        """When bytes of waiting answers went out last."""

    def look(self, now: float) -> int | None:
        """See to what takes too long. Bytes that wait to be sent, or None when there is nothing more to follow."""

    def is_known(self) -> bool:
        """Whether the request whose body is incomplete is from a known client."""

    def make_room(self, rate: float, *, known: bool) -> None:
        """Give up the body that is waited for, which came in `rate` bytes a second (inf: nobody can say), from
        somebody `known` or not.
        """

    def abort(self) -> None:
        """Close at once."""


class _Unfinished(NamedTuple):
    """A body that is not complete: whether it comes from somebody known, in how many bytes a second, and on what."""

    known: bool
    rate: float
    connection: Followed


class Deadlines:
    """The connections of a site with an incomplete request or waiting answers. Reactor thread."""

    def __init__(
        self,
        clock: IReactorTime,
        seconds: Callable[[], float],
        patience: Patience,
        limits: ByteLimits,
    ) -> None:
        """`clock` makes timers; `seconds` is the monotonic time that deadlines go by."""
        self.seconds = seconds
        self.patience = patience
        self.limits = limits
        #: Connections that were cut off, by reason (REASONS), and requests refused for want of room, since the start.
        self.cut_off = dict.fromkeys(REASONS, 0)
        self.refused = 0
        self._clock = clock
        self._unsent = ByteAccount(limits.unsent)
        self._unfinished = ByteAccount(limits.unfinished)
        # Each with the bytes that it had waiting when it was looked at last.
        self._followed: dict[Followed, Holding] = {}
        # What is held of each body that is not complete.
        self._bodies: dict[Followed, Holding] = {}
        self._next: IDelayedCall | None = None

    @property
    def unsent(self) -> int:
        """Bytes of answers that wait for clients that do not read, as far as looked at."""
        return self._unsent.bytes

    @property
    def unfinished(self) -> int:
        """Bytes of bodies that are not complete."""
        return self._unfinished.bytes

    def retune(self, limits: ByteLimits) -> None:
        """Apply these limits from now on; what is over them is refused or cut off at once."""
        self.limits = limits
        self._unfinished.limit, self._unsent.limit = limits.unfinished, limits.unsent
        if self._unfinished.bytes > limits.unfinished:
            self._make_room()
        if self._unsent.bytes > limits.unsent:
            self._look_at_all()
            self._relieve()

    def hold(self, connection: Followed, count: int) -> None:
        """So many bytes more have come of the body that `connection` waits for, which may have to make room."""
        body = self._bodies.get(connection)
        if body is None:
            body = self._bodies[connection] = Holding(self._unfinished, self.seconds())
        body.add(count)
        if self._unfinished.bytes > self._unfinished.limit:
            self._make_room()

    def release(self, connection: Followed) -> None:
        """The body of `connection` is no longer held."""
        body = self._bodies.pop(connection, None)
        if body is not None:
            body.free()

    def follow(self, connection: Followed, unsent: int | None = None) -> None:
        """Look at `connection` from now on; `unsent` bytes wait there, or (None) as many as before.

        When too many wait on all connections together, some are cut off.
        """
        waiting = self._followed.get(connection)
        if waiting is None:
            waiting = self._followed[connection] = Holding(self._unsent)
        if unsent is not None:
            waiting.become(unsent)
        if self._next is None:
            self._next = self._clock.callLater(LOOK_SECONDS, self._look)
        if self._unsent.bytes > self._unsent.limit:
            self._look_at_all()
            self._relieve()

    def forget(self, connection: Followed) -> None:
        """The connection is gone."""
        self.release(connection)
        self._unfollow(connection)
        if not self._followed and self._next is not None:
            self._next.cancel()
            self._next = None

    def _unfollow(self, connection: Followed) -> None:
        waiting = self._followed.pop(connection, None)
        if waiting is not None:
            waiting.free()

    def _look(self) -> None:
        self._next = None
        try:
            self._look_at_all()
        finally:
            if self._followed and self._next is None:
                self._next = self._clock.callLater(LOOK_SECONDS, self._look)

    def _look_at_all(self) -> None:
        now = self.seconds()
        for connection in tuple(self._followed):
            try:
                unsent = connection.look(now)
            except Exception:
                _log.failure("an HTTP connection could not be looked after")
                unsent = None
                connection.abort()
            # A look may have ended it, so that it is not there any more.
            if unsent is None:
                self._unfollow(connection)
            elif connection in self._followed:
                self._followed[connection].become(unsent)

    def _relieve(self) -> None:
        """Cut off those that have not read for the longest, until a quarter is free."""
        waiting = sorted(self._followed.items(), key=lambda item: item[0].moved_at)
        for connection in self._unsent.victims(waiting, self._unsent.limit * 3 // 4):
            self.forget(connection)
            self.cut_off[UNSENT] += 1
            connection.abort()

    def _make_room(self) -> None:
        """Refuse bodies until a quarter is free. See Note [Room for unfinished bodies]."""
        now, half_a_share = self.seconds(), self._unfinished.bytes / len(self._bodies) / 2
        bodies = [
            (_Unfinished(known, _rate(body, now), connection), body)
            for connection, body in self._bodies.items()
            if not (known := connection.is_known()) or body.bytes >= half_a_share
        ]
        bodies.sort(key=lambda body: (body[0].known, body[0].rate))
        for known, rate, connection in self._unfinished.victims(bodies, self._unfinished.limit * 3 // 4):
            self.release(connection)
            self.refused += 1
            try:
                connection.make_room(rate, known=known)
            except Exception:
                _log.failure("an HTTP request could not be refused")
                connection.abort()


def _rate(body: Holding, now: float) -> float:
    """Bytes a second."""
    waited = now - body.since
    return body.bytes / waited if waited > TOO_SHORT else math.inf


def unread_bytes(transport: Any) -> int:
    """Bytes that have come for `transport`, or for what is beneath it, and that nobody has read from the kernel yet."""
    while (beneath := getattr(transport, "transport", None)) is not None:
        transport = beneath
    number = transport.fileno() if hasattr(transport, "fileno") else -1
    if number < 0:
        return 0
    count = array("i", [0])
    ioctl(number, FIONREAD, count)
    return count[0]
