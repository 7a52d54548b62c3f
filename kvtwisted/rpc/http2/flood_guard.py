"""What a peer may ask of a connection without getting anything done: a bucket of frames that lead nowhere.

PING, SETTINGS, RST_STREAM, PRIORITY, WINDOW_UPDATE, empty and unknown frames cost the peer nothing and the server some
work each. Peers need some of them; floods of them are attacks (CVE-2019-9511 to 9518, CVE-2023-44487 "rapid reset",
CVE-2024-27316 and its like). So each takes a token out of a bucket that calls and time fill up again.

Note [Mistakes and floods]: one connection carries the calls of many, of a proxy's clients for example, and what one of
them does wrong must not end it for the others. So what an honest client may do, however often, takes no tokens: calls
that are refused, headers that are none, calls given up after a while, and what was on its way then. What such calls
cost the server is bounded as it is for those that are served, by turns (`turns`), rates, and the number of them at a
time. docs/threat-model.md has the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from .frames import ConnectionFault, ErrorCode

if TYPE_CHECKING:
    from .responder import Responder

#: Tokens of a full bucket, those that come back with each second, and with each call.
TOKENS = 2_000
TOKENS_PER_SECOND = 100
TOKENS_PER_CALL = 4
#: Work on a header block (`HpackDecoder.work`) that costs nothing where nothing came of it, and how much of the rest
#: takes a token: for a peer of whom a call was let in, and for one of whom none was.
_KNOWN_FREE, _KNOWN_STEP = 4096, 1024
_UNKNOWN_FREE, _UNKNOWN_STEP = 2048, 32


def tokens_for_headers(work: int, *, known: bool) -> int:
    """What a header block costs that took so much work and led nowhere."""
    free, step = (_KNOWN_FREE, _KNOWN_STEP) if known else (_UNKNOWN_FREE, _UNKNOWN_STEP)
    return max(0, work - free) // step


class FloodGuard:
    """The bucket of one connection. Reactor thread."""

    __slots__ = ("_credited", "_refilled_at", "_responder", "_seconds", "tokens")

    def __init__(self, seconds: Callable[[], float], responder: Responder) -> None:
        """`seconds` tells the time, `responder` how many calls were answered well."""
        self._seconds = seconds
        self._responder = responder
        #: What is left. Who takes from it without `spend` calls `refill` when it is below 0.
        self.tokens = float(TOKENS)
        self._refilled_at = seconds()
        self._credited = 0

    def spend(self, tokens: int = 1) -> None:
        """The peer sent something that leads nowhere. Raises ConnectionFault when the bucket is empty."""
        self.tokens -= tokens
        if self.tokens < 0:
            self.refill()

    def refill(self) -> None:
        """Put in what time and calls have brought since the last time: so nothing need be done for each call.

        Raises ConnectionFault when that is not enough.
        """
        now, answered = self._seconds(), max(self._credited, self._responder.answered)
        earned = (now - self._refilled_at) * TOKENS_PER_SECOND + (answered - self._credited) * TOKENS_PER_CALL
        self._refilled_at, self._credited = now, answered
        self.tokens = min(TOKENS, self.tokens + earned)
        if self.tokens < 0:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"over {TOKENS_PER_SECOND} frames a second that lead nowhere"
            )
