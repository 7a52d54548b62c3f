"""The performance log's line."""

from __future__ import annotations

import json
import math

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from kvtwisted.background.performance import NAMESPACE, PerformanceTask, percentile
from kvtwisted.core.disk import DiskUsage
from kvtwisted.observability.logs import as_json
from kvtwisted.observability.metrics import BUCKETS, StorageSample

from .tasks import Counted

_NONE = [0.0] * (len(BUCKETS) + 1)


def _calls(**by_bucket: float) -> list[float]:
    """Calls by bucket: b0=3 puts three into the first one."""
    calls = list(_NONE)
    for name, count in by_bucket.items():
        calls[int(name[1:])] = count
    return calls


@pytest.mark.parametrize(
    ("calls", "share", "bound"),
    [
        (_NONE, 0.5, None),
        (_calls(b0=1), 0.5, BUCKETS[0]),
        (_calls(b0=1), 0.99, BUCKETS[0]),
        (_calls(b2=50, b5=50), 0.5, BUCKETS[2]),
        (_calls(b2=50, b5=50), 0.51, BUCKETS[5]),
        (_calls(b2=99, b5=1), 0.99, BUCKETS[2]),
        (_calls(b2=98, b5=2), 0.99, BUCKETS[5]),
        (_calls(b19=1), 0.5, BUCKETS[19]),
        (_calls(b20=1), 0.5, math.inf),
        (_calls(b0=99, b20=1), 0.99, BUCKETS[0]),
        (_calls(b0=98, b20=2), 0.99, math.inf),
    ],
)
def test_percentile(calls: list[float], share: float, bound: float | None) -> None:
    """The upper bound of the bucket that the share reaches into; infinity beyond the last; None without calls."""
    assert percentile(calls, share) == bound


class Scene:
    """The task with metrics of its own and a clock that a test moves."""

    def __init__(self) -> None:
        self.metrics = Counted().metrics
        self.clock = Clock()
        self.clock.advance(1000)
        self.task = PerformanceTask(self.metrics, self.clock.seconds)

    def line_after(self, seconds: float) -> LogEvent:
        """The event that one turn logs, so long after the last."""
        self.clock.advance(seconds)
        with capturedLogs() as events:
            self.task.run()
        (event,) = events
        return event


@pytest.fixture
def scene() -> Scene:
    """A server that has done nothing."""
    return Scene()


def test_idle_line(scene: Scene) -> None:
    """Without calls there are rates of 0, and no percentiles."""
    event = scene.line_after(60)
    assert (event["log_namespace"], event["log_level"]) == (NAMESPACE, LogLevel.info)
    assert formatEvent(event) == (
        "seconds=60.0 set_per_second=0.0 set_errors=0 get_per_second=0.0 get_errors=0 "
        "delete_per_second=0.0 delete_errors=0 scan_per_second=0.0 scan_errors=0 "
        "disk_percent=0.0 data_bytes=0 value_bytes=0"
    )


def test_busy_line(scene: Scene) -> None:
    """Rates count keys, percentiles count calls; each operation stands for itself; the last sample is told."""
    for _ in range(985):
        scene.metrics.operation("get", 1, 0.0002, False)
    for _ in range(15):
        scene.metrics.operation("get", 10, 0.2, True)
    scene.metrics.sample = StorageSample(1234, 56, DiskUsage(1, 2))
    event = scene.line_after(10)
    assert {name: value for name, value in event.items() if name.startswith("get")} == {
        "get_per_second": 113.5,
        "get_errors": 150,
        "get_p50_us": 250,
        "get_p99_us": 250_000,
    }
    assert "set_p50_us" not in event
    assert (event["seconds"], event["disk_percent"], event["data_bytes"], event["value_bytes"]) == (10, 33.3, 1234, 56)
    assert " get_per_second=113.5 get_errors=150 get_p50_us=250 get_p99_us=250000 delete_" in formatEvent(event)


def test_each_line_tells_what_is_new(scene: Scene) -> None:
    """Counts begin anew after each line."""
    scene.metrics.operation("set", 5, 1e-5, False)
    assert scene.line_after(10)["set_per_second"] == 0.5
    again = scene.line_after(10)
    assert again["set_per_second"] == 0
    assert "set_p50_us" not in again
    scene.metrics.operation("set", 1, 0.001, True)
    event = scene.line_after(2)
    assert (event["set_per_second"], event["set_errors"], event["set_p50_us"]) == (0.5, 1, 1000)
    scene.metrics.operation("set", 1, 0.001, False)
    event = scene.line_after(3)
    assert (event["set_per_second"], event["set_errors"]) == (0.3, 0)


def test_what_was_before_the_task_does_not_count() -> None:
    """The first line starts where the task did."""
    metrics = Counted().metrics
    metrics.operation("set", 5, 1e-5, False)
    clock = Clock()
    task = PerformanceTask(metrics, clock.seconds)
    clock.advance(1)
    with capturedLogs() as events:
        task.run()
    assert events[0]["set_per_second"] == 0


def test_calls_beyond_the_last_bucket(scene: Scene) -> None:
    """Longer than 10 s is told as such, in text without spaces and in JSON that is valid."""
    scene.metrics.operation("scan", 1, 11.0, False)
    event = scene.line_after(10)
    assert event["scan_p99_us"] == ">10000000"
    assert " scan_p50_us=>10000000 scan_p99_us=>10000000 " in formatEvent(event)
    assert json.loads(as_json(event))["scan_p99_us"] == ">10000000"


def test_two_lines_at_the_same_time(scene: Scene) -> None:
    """No time passed is no division by zero."""
    scene.metrics.operation("set", 1, 1e-5, False)
    assert scene.line_after(0)["set_per_second"] > 0
