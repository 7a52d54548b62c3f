"""What a peer may ask of a connection without getting anything done: a bucket of frames that lead nowhere.

PING, SETTINGS, RST_STREAM, PRIORITY, WINDOW_UPDATE, empty and unknown frames cost the peer nothing and the server some
work each. Peers need some of them; floods of them are attacks (CVE-2019-9511 to 9518, CVE-2023-44487 "rapid reset",
CVE-2024-27316 and its like). So each takes a token out of a bucket that calls and time fill up again.
"""

from __future__ import annotations

from typing import Callable

from .frames import ConnectionFault, ErrorCode

#: Tokens of a full bucket, those that come back with each second, and with each call.
TOKENS = 2_000
TOKENS_PER_SECOND = 100
TOKENS_PER_CALL = 4


class Guard:
    """The bucket of one connection. Reactor thread."""

    __slots__ = ("_refilled_at", "_seconds", "_tokens")

    def __init__(self, seconds: Callable[[], float]) -> None:
        """`seconds` tells the time."""
        self._seconds = seconds
        self._tokens = float(TOKENS)
        self._refilled_at = seconds()

    def spend(self, tokens: int = 1) -> None:
        """The peer sent something that leads nowhere. Raises ConnectionFault when the bucket is empty."""
        self._tokens -= tokens
        if self._tokens < 0:
            now = self._seconds()
            earned = (now - self._refilled_at) * TOKENS_PER_SECOND
            self._refilled_at = now
            self._tokens = min(TOKENS, self._tokens + earned)
            if self._tokens < 0:
                raise ConnectionFault(
                    ErrorCode.ENHANCE_YOUR_CALM, f"over {TOKENS_PER_SECOND} frames a second that lead nowhere"
                )

    def earn(self, calls: int) -> None:
        """The peer made calls."""
        self._tokens = min(TOKENS, self._tokens + calls * TOKENS_PER_CALL)
