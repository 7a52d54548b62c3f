"""What samples say: medians, spread, ratios of rounds, and whether a difference is more than noise. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import median
from typing import NamedTuple

#: A difference counts when chance alone would show one as clear in less than this share of comparisons.
CHANCE = 0.01


class Summary(NamedTuple):
    """The median of some samples, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """The highest over the lowest; 1 is no spread at all."""
        return self.high / self.low if self.low > 0 else float("inf")


def summary(samples: Sequence[float]) -> Summary:
    """Median, lowest and highest. Raises ValueError without samples."""
    if not samples:
        raise ValueError("there are no samples")
    return Summary(median(samples), min(samples), max(samples))


def ratios(samples: Sequence[float], base: Sequence[float]) -> Summary:
    """How many times those of `base`: taken round by round, so that what slows a whole round down cancels out.

    Raises ValueError when the two have not seen the same number of rounds.
    """
    if len(samples) != len(base):
        raise ValueError(f"{len(samples)} rounds against {len(base)}")
    return summary([ours / theirs for ours, theirs in zip(samples, base)])


def chance(first: Sequence[float], second: Sequence[float]) -> float:
    """How likely samples that differ at least as clearly are, when both come from the same source: 0 to 1.

    The exact two-sided rank-sum test of Mann and Whitney (1947). It asks only which sample is larger, so that a single
    wild one cannot make a difference; equal samples count half. 5 against 5 give at least 1 in 126.
    """
    wins = sum((one > other) + (one == other) / 2 for one in first for other in second)
    fewer = int(min(wins, len(first) * len(second) - wins))
    ways = [_arrangements(len(first), len(second), number) for number in range(len(first) * len(second) + 1)]
    return min(1.0, 2 * sum(ways[: fewer + 1]) / sum(ways))


@cache
def _arrangements(first: int, second: int, wins: int) -> int:
    """In how many orders of so many samples of each kind the first kind is larger in `wins` of the pairs."""
    if wins < 0 or wins > first * second:
        return 0
    if first == 0 or second == 0:
        return 1
    # The largest of all is of the first kind, and wins against all of the second, or of the second kind.
    return _arrangements(first - 1, second, wins - second) + _arrangements(first, second - 1, wins)


def verdict(now: Sequence[float], base: Sequence[float], more_is_better: bool) -> str:
    """`better`, `worse`, `within the noise`, or `too few rounds` when no samples at all could be clear enough."""
    if chance([1.0] * len(now), [0.0] * len(base)) >= CHANCE:
        return "too few rounds"
    if chance(now, base) >= CHANCE:
        return "within the noise"
    return "better" if (median(now) > median(base)) == more_is_better else "worse"
