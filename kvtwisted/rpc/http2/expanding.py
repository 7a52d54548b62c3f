"""Decompresses messages of pipelines on the reactor thread, a bounded amount in each turn.

Note [Decompression in turns]: a kilobyte of gzip may expand to a mebibyte that takes milliseconds to parse, and a
window holds sixty of those. They are expanded one after the other: for all pipelines together TURN_BYTES in a turn of
the reactor, or one larger message. The rest waits compressed, and everything else gets its turn in between.
"""

from __future__ import annotations

from typing import Callable

from twisted.internet.interfaces import IReactorTime

from ..messages import decompress
from ..pipeline import MESSAGE_BYTES
from .turns import Turns

#: Bytes, decompressed, after which nothing more is expanded in the same turn of the reactor.
TURN_BYTES = 65_536


class Expander(Turns):
    """Decompresses messages, TURN_BYTES in a turn. Reactor thread. See Note [Decompression in turns]."""

    def __init__(self, reactor: IReactorTime, flush: Callable[[], None]) -> None:
        """`flush` is called when those who waited have gone on."""
        super().__init__(reactor, TURN_BYTES, flush)

    def expand(self, message: bytes) -> bytes:
        """The message, decompressed. Raises CallError, as `decompress` does with a limit of MESSAGE_BYTES."""
        size = MESSAGE_BYTES  # what one that is too large may have taken
        try:
            expanded = decompress(message, MESSAGE_BYTES)
            size = len(expanded)
            return expanded
        finally:
            self.spend(size)
