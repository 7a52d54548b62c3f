"""The clock never runs backwards."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.core.clock import Clock

from ..support.clocks import START_MS, ManualClock
from ..support.properties import repeatable

_DAY_MS = 86_400_000
_moves = st.lists(
    st.tuples(st.sampled_from(["advance", "step_wall"]), st.integers(-_DAY_MS, _DAY_MS)).filter(
        lambda move: move[0] == "step_wall" or move[1] >= 0
    )
)


@repeatable
@given(_moves)
def test_never_backwards(moves: list[tuple[str, int]]) -> None:
    """Whatever the wall clock does, time goes forward by at least what really passed, and never lags the wall."""
    manual = ManualClock()
    clock = manual.clock()
    before = clock.now_ms()
    for name, ms in moves:
        getattr(manual, name)(ms)
        now = clock.now_ms()
        assert now >= before + (ms if name == "advance" else 0)
        assert now >= manual.wall_ms
        before = now


def test_follows_the_wall_forward() -> None:
    """A step forward is followed at once."""
    manual = ManualClock()
    clock = manual.clock()
    manual.step_wall(60_000)
    assert clock.now_ms() == START_MS + 60_000


def test_goes_on_through_a_step_back() -> None:
    """After a step back, time goes on by the monotonic clock from where it was."""
    manual = ManualClock()
    clock = manual.clock()
    manual.advance(500)
    assert clock.now_ms() == START_MS + 500
    manual.step_wall(-3_600_000)
    manual.advance(250)
    assert clock.now_ms() == START_MS + 750


def test_remembers_a_step_forward_it_saw() -> None:
    """A wall clock that was ahead for a moment keeps time ahead, since that time has been seen."""
    manual = ManualClock()
    clock = manual.clock()
    manual.step_wall(10_000)
    clock.now_ms()
    manual.step_wall(-10_000)
    assert clock.now_ms() == START_MS + 10_000


class _PausedClock(ManualClock):
    """Stops for `pause_ms` right after each reading, as a busy machine may."""

    pause_ms = 0

    def wall_ns(self) -> int:
        reading = super().wall_ns()
        self.advance(self.pause_ms)
        return reading

    def monotonic_ns(self) -> int:
        reading = super().monotonic_ns()
        self.advance(self.pause_ms)
        return reading


def test_a_pause_between_the_readings_is_not_kept() -> None:
    """A process that is stopped between reading the two clocks does not run ahead of the wall afterwards."""
    manual = _PausedClock()
    manual.pause_ms = 2000
    clock = manual.clock()
    clock.now_ms()
    manual.pause_ms = 0
    assert clock.now_ms() == manual.wall_ms


def test_at_least_moves_forward_only() -> None:
    """A mark ahead is taken up and goes on from there; one behind changes nothing."""
    manual = ManualClock()
    clock = manual.clock()
    clock.at_least(START_MS - 1)
    assert clock.now_ms() == START_MS
    clock.at_least(START_MS + 5000)
    assert clock.now_ms() == START_MS + 5000
    manual.advance(1)
    assert clock.now_ms() == START_MS + 5001


def test_real_clocks() -> None:
    """By default it goes by the system's clock."""
    before = time.time_ns() // 1_000_000
    now = Clock().now_ms()
    assert before <= now <= time.time_ns() // 1_000_000 + 1
