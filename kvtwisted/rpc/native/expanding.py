"""What compressed messages may expand to on the reactor thread, turn by turn.

Note [Small and large at once]: a kilobyte of gzip may expand to a mebibyte that takes milliseconds to parse, and a
window holds sixty of those. They are expanded one after the other, TURN_BYTES in a turn of the reactor for all
pipelines together, or one message if it has more. The rest waits as it came, so that everybody else has a turn in
between.
"""

from __future__ import annotations

from typing import Callable, Protocol

from twisted.internet.interfaces import IReactorTime

from ..messages import decompress
from ..pipeline import MESSAGE_BYTES

#: Bytes, decompressed, after which nothing more is expanded in the same turn of the reactor.
TURN_BYTES = 65_536


class Waiter(Protocol):
    """One with compressed messages that wait."""

    def go_on(self) -> None:
        """Expand what may be expanded now; `Expander.wait` for the rest."""


class Expander:
    """Decompresses messages, so much in a turn. Reactor thread. See Note [Small and large at once]."""

    def __init__(self, reactor: IReactorTime, flush: Callable[[], None]) -> None:
        """`flush` is called when those who waited have gone on."""
        self._reactor = reactor
        self._flush = flush
        self._left = TURN_BYTES
        self._scheduled = False
        # In the order in which they came; a dictionary, for the sake of `forget`.
        self._waiting: dict[Waiter, None] = {}

    @property
    def free(self) -> bool:
        """Whether one more message may be expanded in this turn."""
        return self._left > 0

    def expand(self, message: bytes) -> bytes:
        """The message, decompressed. Raises CallError, as `decompress` does with a limit of MESSAGE_BYTES."""
        size = MESSAGE_BYTES  # what one that is too large may have taken
        try:
            expanded = decompress(message, MESSAGE_BYTES)
            size = len(expanded)
            return expanded
        finally:
            self._left -= size
            self._schedule()

    def wait(self, waiter: Waiter) -> None:
        """Call `waiter.go_on` in a later turn, after those who wait already."""
        self._waiting[waiter] = None
        self._schedule()

    def forget(self, waiter: Waiter) -> None:
        """It does not wait any more."""
        self._waiting.pop(waiter, None)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self._left = TURN_BYTES
        self._scheduled = False
        try:
            while self._waiting and self._left > 0:
                waiter = next(iter(self._waiting))
                del self._waiting[waiter]
                waiter.go_on()
        finally:
            if self._waiting:
                self._schedule()
            self._flush()
