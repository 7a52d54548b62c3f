"""Prometheus metrics: one object, one injected registry, every name in one place (docs/operations.md lists them).

Counting is safe from any thread and costs about a microsecond a call (prometheus_client takes a lock for each).
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Callable, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as open_metrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .commands.command import DELETE, GET, OPERATIONS, SCAN, SET
from .core.disk import DiskUsage
from .core.errors import PermissionDenied, RateLimited, Unauthenticated
from .core.resources import Use

#: Of Prometheus's own text format, and of OpenMetrics.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

#: Upper bounds of the latency histograms, in seconds: 5 us to 10 s.
BUCKETS = (
    5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip

_PLURALS = {SET: "sets", GET: "gets", DELETE: "deletes", SCAN: "scans"}


_NO_DISK = DiskUsage(0, 0)


@dataclass(frozen=True)
class StorageSample:
    """What the sampler last saw: bytes of the two folders, the disk, RocksDB's own figures by short name, and how much
    of what the process may have is in use."""

    data_bytes: int = 0
    value_bytes: int = 0
    disk: DiskUsage = _NO_DISK
    engine: Mapping[str, float] = field(default_factory=dict)
    uses: tuple[Use, ...] = ()


class Totals(NamedTuple):
    """An operation's figures since the start: keys, failed keys, and calls by bucket of latency (not cumulative)."""

    keys: float
    errors: float
    calls: list[float]


class _Figures:
    """One operation's figures. A lock of our own and plain numbers cost a third of prometheus_client's objects."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys = 0
        self._errors = 0
        self._seconds = 0.0
        self._calls = [0] * (len(BUCKETS) + 1)
        # Of calls on one key that succeeded, not counted yet. Appended to without the lock.
        self.durations: list[float] = []

    def fold(self) -> None:
        with self._lock:
            self._fold()

    def _fold(self) -> None:
        count = len(self.durations)
        durations = sorted(self.durations[:count])
        del self.durations[:count]
        self._keys += count
        self._seconds += sum(durations)
        below = 0
        for bucket, bound in enumerate(BUCKETS):
            within = bisect_right(durations, bound)
            self._calls[bucket] += within - below
            below = within
        self._calls[-1] += count - below

    def add(self, keys: int, seconds: float, failed: bool, calls: int) -> None:
        with self._lock:
            self._keys += keys
            if failed:
                self._errors += keys
            self._seconds += seconds * calls
            self._calls[bisect_left(BUCKETS, seconds)] += calls

    def read(self) -> tuple[Totals, float]:
        with self._lock:
            self._fold()
            return Totals(self._keys, self._errors, list(self._calls)), self._seconds


class Metrics:
    """Every metric of the server; implements `core.operations.Recorder`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._figures = {name: _Figures() for name in OPERATIONS}
        self._gauges: dict[str, Gauge] = {}
        self._watched_totals: dict[str, _TotalCollector] = {}
        self._hot_gets: Callable[[], float] = lambda: 0
        registry.register(_OperationsCollector(self._read))
        self._config_updates = self._counter("kv_config_updates_total", "Accepted configuration changes.")
        self._health_checks = self._counter("kv_health_checks_total", "Health checks made, each for all who shared it.")
        self._health_latency = Histogram(
            "kv_health_check_latency_seconds", "Seconds of one health check made.", buckets=BUCKETS, registry=registry
        )
        self._evictions = self._counter("kv_evictions_total", "Keys evicted, by reason.", "reason")
        self._evicted_bytes = self._counter(
            "kv_evicted_bytes_total", "Bytes of the keys and records evicted, by reason.", "reason"
        )
        self._futile = self._counter(
            "kv_evictions_futile_total", "Looks at a full disk on which evicting everything would not have helped."
        )
        self._expirations = self._counter("kv_expirations_total", "Expired keys deleted by the sweeper.")
        self._connections_refused = self._counter(
            "kv_connections_refused_total", "Connections refused because there were too many.", "transport", "reason"
        )
        self._denied = self._counter("kv_denied_total", "Requests turned away for who sent them.", "reason")
        for reason in (Unauthenticated.code, PermissionDenied.code, RateLimited.code):
            self._denied.labels(reason)
        self._sample = StorageSample()
        registry.register(_SampleCollector(lambda: self._sample))

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self._registry)

    # What `core.operations` reports.

    def operation(self, name: str, keys: int, seconds: float, failed: bool, calls: int = 1) -> None:
        """A call of `name` on `keys` keys took `seconds`, and stands for `calls` calls."""
        self._figures[name].add(keys, seconds, failed, calls)

    def durations(self, name: str) -> list[float]:
        """Where the seconds of each call of `name` on one key that succeeded are appended, until `fold`."""
        return self._figures[name].durations

    def fold(self) -> None:
        """Count what has been appended to `durations`."""
        for figures in self._figures.values():
            figures.fold()

    def config_update(self) -> None:
        """A configuration change was accepted."""
        self._config_updates.inc()

    def health_check(self, seconds: float) -> None:
        """A health check took `seconds`."""
        self._health_checks.inc()
        self._health_latency.observe(seconds)

    def connection_refused(self, transport: str, reason: str) -> None:
        """A connection was one too many, in all or from its address."""
        self._connections_refused.labels(transport, reason).inc()

    def denied(self, reason: str) -> None:
        """The gate refused a request; `reason` is the error's code."""
        self._denied.labels(reason).inc()

    # What the background tasks report.

    def evicted(self, reason: str, keys: int, freed: int) -> None:
        """A batch of `keys` keys was evicted for `reason`, `freed` bytes of keys and records."""
        self._evictions.labels(reason).inc(keys)
        self._evicted_bytes.labels(reason).inc(freed)

    def eviction_futile(self) -> None:
        """The disk is full, and not of what this server stores."""
        self._futile.inc()

    def expired(self, keys: int) -> None:
        """The sweeper deleted `keys` expired keys."""
        self._expirations.inc(keys)

    def sampled(self, sample: StorageSample) -> None:
        """The storage's figures, until the next sample."""
        self._sample = sample

    # What is read when asked.

    def watch(self, name: str, help: str, read: Callable[[], float], **labels: str) -> None:
        """Add a gauge whose value is read when metrics are asked for; `read` must be quick and safe on any thread.

        A name may be watched once for each set of labels.
        """
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._gauges[name] = Gauge(name, help, list(labels), registry=self._registry)
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    def watch_total(self, name: str, help: str, read: Callable[[], float], **labels: str) -> None:
        """Add the counter `name`_total, read when metrics are asked for, as `watch` does, labels included."""
        total = self._watched_totals.get(name)
        if total is None:
            total = self._watched_totals[name] = _TotalCollector(name, help, list(labels))
            self._registry.register(total)
        total.add(read, list(labels.values()))

    def build_info(self, **facts: str) -> None:
        """Add `kv_build_info`, whose labels say what runs."""
        Gauge("kv_build_info", "Always 1; the labels tell versions.", list(facts), registry=self._registry).labels(
            **facts
        ).set(1)

    def text(self) -> bytes:
        """The exposition text (CONTENT_TYPE). A few milliseconds; any thread."""
        return generate_latest(self._registry)

    def exposition(self, is_open: bool) -> tuple[str, bytes]:
        """Content type and text, in the format OpenMetrics or else in Prometheus's own. Costs as `text`."""
        if is_open:
            return OPEN_METRICS, open_metrics.generate_latest(self._registry)
        return CONTENT_TYPE, self.text()

    def sample(self) -> StorageSample:
        """The last sample."""
        return self._sample

    def totals(self) -> dict[str, Totals]:
        """Figures by operation, for the performance log."""
        return {name: totals for name, (totals, _) in self._read().items()}

    def count_hot_gets(self, read: Callable[[], float]) -> None:
        """Add what `read` gives to the Gets: those from the hot cache, which nobody reports one by one."""
        self._hot_gets = _rising(read)

    def _read(self) -> dict[str, tuple[Totals, float]]:
        figures = {name: of.read() for name, of in self._figures.items()}
        totals, seconds = figures[GET]
        figures[GET] = totals._replace(keys=totals.keys + self._hot_gets()), seconds
        return figures


class _OperationsCollector(Collector):
    def __init__(self, read: Callable[[], dict[str, tuple[Totals, float]]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """A histogram and two counters for each operation."""
        for name, (totals, seconds) in self._read().items():
            latency = HistogramMetricFamily(
                f"kv_{name}_latency_seconds", f"Seconds of one {name} call, a batch being one."
            )
            bounds = [*map(floatToGoString, BUCKETS), "+Inf"]
            latency.add_metric([], list(zip(bounds, accumulate(totals.calls))), seconds)
            yield latency
            yield CounterMetricFamily(
                f"kv_{_PLURALS[name]}_total", f"{name.capitalize()} operations; a batch counts its keys.", totals.keys
            )
            yield CounterMetricFamily(
                f"kv_{name}_errors_total",
                f"{name.capitalize()} operations that failed; a missing key does not.",
                totals.errors,
            )


class _TotalCollector(Collector):
    def __init__(self, name: str, help: str, labels: list[str]) -> None:
        self._name, self._help, self._labels = name, help, labels
        self._reads: list[tuple[list[str], Callable[[], float]]] = []

    def add(self, read: Callable[[], float], values: list[str]) -> None:
        self._reads.append((values, _rising(read)))

    def collect(self) -> Iterable[Metric]:
        """The counter, as it is now."""
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for values, read in self._reads:
            family.add_metric(values, read())
        yield family


def _rising(read: Callable[[], float]) -> Callable[[], float]:
    """What `read` gives, but never less than before: Prometheus takes a fall for a restart."""
    highest = 0.0

    def risen() -> float:
        nonlocal highest
        highest = max(highest, read())
        return highest

    return risen


class _SampleCollector(Collector):
    def __init__(self, read: Callable[[], StorageSample]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Nothing: which figures there are depends on the engine, so names are not claimed beforehand."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """One gauge for each figure of the last sample."""
        sample = self._read()
        yield GaugeMetricFamily("kv_data_bytes", "Bytes on disk of the RocksDB folder.", sample.data_bytes)
        yield GaugeMetricFamily("kv_value_bytes", "Bytes on disk of the large-value folder.", sample.value_bytes)
        yield GaugeMetricFamily("kv_disk_used_bytes", "Bytes in use on the data's file system.", sample.disk.used)
        yield GaugeMetricFamily("kv_disk_free_bytes", "Bytes free on the data's file system.", sample.disk.free)
        yield GaugeMetricFamily("kv_disk_used_percent", "Percent of the file system in use.", sample.disk.percent)
        yield GaugeMetricFamily("kv_inodes", "Inodes of the data's file system; 0: made as needed.", sample.disk.inodes)
        yield GaugeMetricFamily("kv_inodes_free", "Inodes free on the data's file system.", sample.disk.inodes_free)
        for use in sample.uses:
            name = f"kv_{use.name.replace(' ', '_')}"
            yield GaugeMetricFamily(name, f"How many {use.name} are in use.", use.used)
            yield GaugeMetricFamily(f"{name}_limit", f"How many {use.name} there may be; 0: no limit.", use.limit)
        keys = sample.engine.get("estimate-num-keys", 0)
        yield GaugeMetricFamily("kv_keys", "Keys stored, as RocksDB estimates.", keys)
        for name, value in sample.engine.items():
            yield GaugeMetricFamily(f"kv_rocksdb_{name.replace('-', '_')}", f"RocksDB property rocksdb.{name}.", value)
