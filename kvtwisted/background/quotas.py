"""The recount of what principals with quotas keep: round after round, in small pieces, in a pool thread.

Note [What a recount costs]: it reads all that lies under the prefixes of those who have quotas. After each piece it
rests for as long as that took of a processor, and after a round for RESTING times as long as the round took: so it
takes a twentieth of a processor at most, however much there is. Between two rounds the figures are as exact as
Note [How exact it is] says.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Callable

from ..backends.backend import CanMeasure, Measured
from ..sessions.quotas import Usage
from .expiry import Pace

#: Seconds between two rounds at least: as a rule, and when writes were refused since.
ROUND_SECONDS, EAGER_SECONDS = 60.0, 5.0
#: How many times as long as a round took the next one is waited for.
RESTING = 10
#: Seconds after which a turn ends, so that a stop does not wait.
TURN_SECONDS = 0.9


class RecountTask:
    """`work` for a Ticker, in a pool thread. A round begins when one is due, or when somebody was never counted."""

    def __init__(
        self,
        usages: Callable[[], Collection[Usage]],
        measures: CanMeasure,
        *,
        seconds: Callable[[], float] = time.monotonic,
        make_pace: Callable[[], Pace] = Pace,
    ) -> None:
        """`usages` gives those of all who have quotas."""
        self._usages = usages
        self._measures = measures
        self._seconds = seconds
        self._make_pace = make_pace
        # The round that is under way, and when it began; when the last one ended, and how long it took.
        self._round: Iterator[Measured] | None = None
        self._began = self._ended = self._took = 0.0

    def _due(self) -> bool:
        usages = self._usages()
        if not all(usage.is_counted for usage in usages):
            return True
        refusing = any(usage.refused != usage.refused_then for usage in usages)
        rest = max(EAGER_SECONDS if refusing else ROUND_SECONDS, RESTING * self._took)
        return bool(usages) and self._seconds() >= self._ended + rest

    def run(self) -> None:
        """One turn. Blocks."""
        if self._round is None and not self._due():
            return
        pace, until = self._make_pace(), self._seconds() + TURN_SECONDS
        if self._round is None:
            self._round, self._began = self._count_all(), self._seconds()
        try:
            for _ in self._round:
                pace.rest()
                if self._seconds() >= until:
                    return
        except BaseException:
            self._round = None  # begun anew at the next turn
            raise
        self._round, self._ended = None, self._seconds()
        self._took = self._ended - self._began

    def _count_all(self) -> Iterator[Measured]:
        """A piece for each that it gives. Those who have the same prefixes are counted together."""
        together: dict[tuple[bytes, ...], list[Usage]] = {}
        for usage in self._usages():
            together.setdefault(usage.prefixes, []).append(usage)
        for prefixes, usages in together.items():
            yield from self._count(prefixes, usages)

    def _count(self, prefixes: tuple[bytes, ...], usages: Collection[Usage]) -> Iterator[Measured]:
        size = keys = 0
        for usage in usages:
            usage.begin_count()
        for prefix in prefixes:
            following: bytes | None = prefix
            while following is not None:
                piece = self._measures.measure(prefix, following)
                following = piece.following
                size += piece.size
                keys += piece.keys
                for usage in usages:
                    usage.counted_up_to(prefix + b"\xff" if following is None else following)
                yield piece
        for usage in usages:
            usage.end_count(size, keys)
