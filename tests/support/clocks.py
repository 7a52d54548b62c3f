"""Time under a test's control, for `core.clock.Clock`."""

from __future__ import annotations

from kvtwisted.core.clock import Clock

#: Where a ManualClock starts, in ms since 1970: some day in 2023.
START_MS = 1_700_000_000_000


class ManualClock:
    """A wall clock and a monotonic clock, both in ns, that move only when told to.

    The monotonic clock starts at an odd figure of its own, as real ones do.
    """

    def __init__(self, wall_ms: int = START_MS) -> None:
        self._wall = wall_ms * 1_000_000
        self._monotonic = 12_345_678

    def wall_ns(self) -> int:
        """The wall clock."""
        return self._wall

    def monotonic_ns(self) -> int:
        """The monotonic clock."""
        return self._monotonic

    @property
    def wall_ms(self) -> int:
        """The wall clock in whole ms."""
        return self._wall // 1_000_000

    def advance(self, ms: int) -> None:
        """Let time pass: both clocks move."""
        self._wall += ms * 1_000_000
        self._monotonic += ms * 1_000_000

    def step_wall(self, ms: int) -> None:
        """Somebody sets the wall clock, forward or back; no time passes."""
        self._wall += ms * 1_000_000

    def clock(self) -> Clock:
        """A Clock that goes by these."""
        return Clock(self.wall_ns, self.monotonic_ns)


class ScriptedTime:
    """Stands in for the module `time` in one module under test: `monotonic` gives the readings in turn, then fails."""

    def __init__(self, *readings: float) -> None:
        self._readings = iter(readings)
        self._counted = 0.0

    def monotonic(self) -> float:
        """The next reading."""
        return next(self._readings)

    def perf_counter(self) -> float:
        """A quarter of a second more each time."""
        self._counted += 0.25
        return self._counted
