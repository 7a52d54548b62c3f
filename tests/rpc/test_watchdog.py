"""Ending what takes too long."""

from __future__ import annotations

import threading

import pytest
from twisted.logger import LogEvent

from kvtwisted.rpc.watchdog import Watchdog

from .support import PATIENCE, logged


class Time:
    """A monotonic clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_cancels_once_and_only_what_is_late() -> None:
    """A block is cancelled at its limit, once; one that has ended or has time left is not."""
    time = Time()
    watchdog = Watchdog(time)
    cancelled: list[str] = []
    with watchdog.limit(1.0, lambda: cancelled.append("ended")):
        pass
    with watchdog.limit(5.0, lambda: cancelled.append("late")), watchdog.limit(9.0, lambda: cancelled.append("early")):
        time.now = 4.9
        watchdog.look()
        assert cancelled == []
        time.now = 5.0
        watchdog.look()
        watchdog.look()
    time.now = 100.0
    watchdog.look()
    assert cancelled == ["late"]


def test_a_block_that_fails_is_forgotten() -> None:
    """An exception ends the block as well, and goes on its way."""
    time = Time()
    watchdog = Watchdog(time)
    cancelled: list[str] = []
    with pytest.raises(KeyError), watchdog.limit(1.0, lambda: cancelled.append("failed")):
        raise KeyError
    time.now = 2.0
    watchdog.look()
    assert cancelled == []


def test_a_cancel_that_fails_does_not_stop_the_rest() -> None:
    """It is logged, and the others are cancelled all the same."""
    watchdog = Watchdog(Time())
    cancelled: list[str] = []

    def fails() -> None:
        raise RuntimeError("cannot be cancelled")

    with logged() as events, watchdog.limit(0.0, fails), watchdog.limit(0.0, lambda: cancelled.append("other")):
        watchdog.look()
    assert cancelled == ["other"]
    assert [failure(event) for event in events] == ["cannot be cancelled"]


def test_looks_by_itself_until_stopped() -> None:
    """The thread cancels without being asked, and ends on stop."""
    watchdog = Watchdog()
    watchdog.start()
    cancelled = threading.Event()
    with watchdog.limit(0.0, cancelled.set):
        assert cancelled.wait(PATIENCE)
    watchdog.stop()
    assert "grpc-watchdog" not in [thread.name for thread in threading.enumerate()]


def failure(event: LogEvent) -> str:
    """The text of the error in a log event."""
    return str(event["log_failure"].value)
