"""The performance log: a line with rates, latencies and disk use at regular times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Callable

from twisted.logger import Logger

from ..observability.metrics import BUCKETS, Metrics, Totals

#: Events of this namespace make up performance.log.
NAMESPACE = "kvtwisted.performance"
_log = Logger(namespace=NAMESPACE)

#: Stands for a percentile above the last bucket, since JSON has no infinity.
_OVER = f">{round(BUCKETS[-1] * 1e6)}"


def percentile(calls: Sequence[float], share: float) -> float | None:
    """Upper bound, in seconds, of the bucket that holds that share (0 to 1) of `calls`; None when there were none.

    `calls` counts by bucket of BUCKETS with one more for what took longer, for which infinity is returned.
    """
    total = sum(calls)
    if not total:
        return None
    reached = 0.0
    for bound, count in zip(BUCKETS, calls):
        reached += count
        if reached >= share * total:
            return bound
    return math.inf


class PerformanceTask:
    """`work` for a Ticker: logs what happened since the last line. Reactor thread; does not block."""

    def __init__(self, metrics: Metrics, seconds: Callable[[], float]) -> None:
        """`seconds` is a clock that only goes forward, such as the reactor's."""
        self._metrics = metrics
        self._seconds = seconds
        self._since = seconds()
        self._before = metrics.totals()

    def run(self) -> None:
        """Log one line, as text and as fields."""
        now, totals = self._seconds(), self._metrics.totals()
        seconds = max(now - self._since, 1e-9)
        facts: dict[str, object] = {"seconds": round(seconds, 3)}
        for name, total in totals.items():
            facts.update(_operation_facts(name, self._before[name], total, seconds))
        sample = self._metrics.sample
        facts["disk_percent"] = round(sample.disk.percent, 1)
        facts["data_bytes"] = sample.data_bytes
        facts["value_bytes"] = sample.value_bytes
        _log.info("{line}", line=" ".join(f"{name}={value}" for name, value in facts.items()), **facts)
        self._since, self._before = now, totals


def _operation_facts(name: str, before: Totals, after: Totals, seconds: float) -> dict[str, object]:
    calls = [now - then for now, then in zip(after.calls, before.calls)]
    facts: dict[str, object] = {
        f"{name}_per_second": round((after.keys - before.keys) / seconds, 1),
        f"{name}_errors": int(after.errors - before.errors),
    }
    for percent in (50, 99):
        bound = percentile(calls, percent / 100)
        if bound is not None:
            facts[f"{name}_p{percent}_us"] = round(bound * 1e6) if math.isfinite(bound) else _OVER
    return facts
