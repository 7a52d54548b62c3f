"""The reactor's timers and a wall clock that is set; the cyclic collector."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any, Callable

import pytest
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import LoopingCall

from kvtwisted.reactor.process import keep_true_time

from ..e2e.harness import PATIENCE


class _Reactor(SelectReactor):
    """A real one, which is never run but asked, whose wall clock the test sets."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        super().__init__()

    def seconds(self) -> float:
        return self.wall

    def run_until(self, done: Callable[[], object]) -> None:
        """Do what is due, again and again."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline
            self.runUntilCurrent()


@pytest.fixture
def reactor() -> Any:
    """One that goes by its wall clock."""
    made = _Reactor()
    yield made
    made.removeAll()
    made.fireSystemEvent("shutdown")


def test_timers_go_by_what_really_passes(reactor: Any) -> None:
    """Set back, the wall clock keeps no timer waiting, nor those of 0 seconds; set forward, it has none come early."""
    keep_true_time(reactor)
    calls: list[str] = []
    reactor.callLater(0.01, calls.append, "short")
    later = reactor.callLater(3000, calls.append, "long")
    loop = LoopingCall(calls.append, "loop")
    loop.clock = reactor
    loop.start(0.01, now=False)
    reactor.wall -= 3600
    reactor.callLater(0, calls.append, "at once")
    reactor.run_until(lambda: calls.count("loop") > 2)
    reactor.wall += 7200
    reactor.run_until(lambda: calls.count("loop") > 4)
    assert set(calls) == {"short", "at once", "loop"}
    assert 0 < reactor.timeout() <= 0.01
    loop.stop()
    assert 2900 < later.getTime() - reactor.seconds() <= 3000


def test_timers_that_run_already(reactor: Any) -> None:
    """They keep what was left of them, whether they were put off or have waited in the heap."""
    calls: list[str] = []
    reactor.callLater(2000, calls.append, "long")
    reactor.callLater(0.01, calls.append, "short")
    put_off = reactor.callLater(0.01, calls.append, "put off")
    put_off.delay(1000)
    reactor.timeout()
    new = reactor.callLater(1500, calls.append, "new")
    gone = reactor.callLater(0.01, calls.append, "gone")
    gone.cancel()
    keep_true_time(reactor)
    reactor.run_until(lambda: calls)
    reactor.runUntilCurrent()
    assert calls == ["short"]
    left = sorted(round(call.getTime() - reactor.seconds(), -2) for call in reactor.getDelayedCalls())
    assert left == [1000, 1500, 2000]
    new.reset(0)
    reactor.run_until(lambda: len(calls) == 2)
    assert calls == ["short", "new"]


_CALM = """
import gc
from kvtwisted.reactor.process import calm_collector

class Cycle:
    live = 0
    def __init__(self):
        Cycle.live += 1
        self.me = self
    def __del__(self):
        Cycle.live -= 1

before = len(gc.get_objects())
calm_collector()
assert gc.get_freeze_count() > before // 2 and len(gc.get_objects()) < before // 2
most = 0
for _ in range(300_000):
    Cycle()
    most = max(most, Cycle.live)
print(most)
"""


def test_a_calm_collector_collects() -> None:
    """In a process of its own: what was there is not looked at, and cycles that are made later still go in time."""
    done = subprocess.run([sys.executable, "-c", _CALM], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert 1000 < int(done.stdout) < 30_000
