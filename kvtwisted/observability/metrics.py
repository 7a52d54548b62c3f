"""Prometheus metrics: one object, one injected registry, and what the catalogue says of each.

Counting is safe from any thread and costs about a microsecond a call (prometheus_client takes a lock for each).
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Callable, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as open_metrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ..commands.command import GET, OPERATIONS
from ..core.disk import DiskUsage
from ..core.errors import PermissionDenied, RateLimited, Unauthenticated
from ..core.resources import Use
from . import catalogue
from .catalogue import COUNTER, Entry

#: Of Prometheus's own text format, and of OpenMetrics.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

#: Upper bounds of the latency histograms, in seconds: 5 us to 10 s.
BUCKETS = (
    5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip

_NO_DISK = DiskUsage(0, 0)


@dataclass(frozen=True)
class StorageSample:
    """What the sampler last saw: bytes of the two folders, the disk, the engine's figures, and how much of what the
    process may have is in use."""

    data_bytes: int = 0
    value_bytes: int = 0
    disk: DiskUsage = _NO_DISK
    #: Records, as the engine estimates, and all that it tells of itself, by its own names.
    keys: float = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    uses: tuple[Use, ...] = ()


class Totals(NamedTuple):
    """An operation's figures since the start: keys, failed keys, and calls by bucket of latency (not cumulative)."""

    keys: float
    errors: float
    calls: list[float]


class _Figures:
    """One operation's figures. Plain numbers under a lock of our own cost a third of what prometheus_client's objects
    do."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._keys = 0
        self._errors = 0
        self._seconds = 0.0
        self._calls = [0] * (len(BUCKETS) + 1)
        # Durations of successful calls on one key that are not counted yet. Appended to without the lock.
        self.durations: list[float] = []

    def fold(self) -> None:
        with self._lock:
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
            self.fold()
            return Totals(self._keys, self._errors, list(self._calls)), self._seconds


class Metrics:
    """Every metric of the server; implements `sessions.door.Recorder`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._figures = {name: _Figures() for name in OPERATIONS}
        self._shown: dict[Entry, _Shown] = {}
        self._hot_gets: Callable[[], float] = lambda: 0
        registry.register(_Made(self._operations))
        self._config_updates = self._counter(catalogue.CONFIG_UPDATES)
        self._health_checks = self._counter(catalogue.HEALTH_CHECKS)
        latency = catalogue.HEALTH_CHECK_LATENCY
        self._health_latency = Histogram(latency.name, latency.help, buckets=BUCKETS, registry=registry)
        self._evictions = self._counter(catalogue.EVICTIONS)
        self._evicted_bytes = self._counter(catalogue.EVICTED_BYTES)
        self._futile = self._counter(catalogue.EVICTIONS_FUTILE)
        self._expirations = self._counter(catalogue.EXPIRATIONS)
        self._connections_refused = self._counter(catalogue.CONNECTIONS_REFUSED)
        self._denied = self._counter(catalogue.DENIED)
        for reason in (Unauthenticated.code, PermissionDenied.code, RateLimited.code):
            self._denied.labels(reason)
        #: The storage's figures, until the next sample.
        self.sample = StorageSample()
        registry.register(_Made(self._sampled))

    def _counter(self, entry: Entry) -> Counter:
        return Counter(entry.name, entry.help, entry.labels, registry=self._registry)

    # What `sessions.door` reports.

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
        """The disk is full of something else than this server's keys."""
        self._futile.inc()

    def expired(self, keys: int) -> None:
        """The sweeper deleted `keys` expired keys."""
        self._expirations.inc(keys)

    # What is read when asked.

    def show(self, entry: Entry, read: Callable[[], float], **labels: str) -> None:
        """Show a gauge or counter of the catalogue, whose value is read when metrics are asked for.

        Once for each set of labels. `read` must be quick and safe on any thread. A counter never shows less than
        before.
        """
        if tuple(labels) != entry.labels:
            raise ValueError(f"{entry.name} has the labels {entry.labels}, not {tuple(labels)}")
        values = tuple(labels.values())
        risen = _rising(read) if entry.type == COUNTER else read
        self._reads_of(entry).append(lambda: {values: risen()})

    def show_each(self, entry: Entry, read: Callable[[], Mapping[str, float]]) -> None:
        """The same for an entry with one label, whose values come and go: `read` gives the figure of each."""
        self._reads_of(entry).append(lambda: {(value,): figure for value, figure in read().items()})

    def show_counts(self, entry: Entry, counts: Mapping[str, float], label: str, **labels: str) -> None:
        """The same for each of `counts`, whose names are values of `label`, the last one; none is added later."""
        for name in counts:
            self.show(entry, partial(counts.__getitem__, name), **labels, **{label: name})

    def _reads_of(self, entry: Entry) -> list[Callable[[], Mapping[tuple[str, ...], float]]]:
        shown = self._shown.get(entry)
        if shown is None:
            shown = self._shown[entry] = _Shown(entry)
            self._registry.register(shown)
        return shown.reads

    def text(self) -> bytes:
        """The exposition text (CONTENT_TYPE). A few milliseconds; any thread."""
        return generate_latest(self._registry)

    def exposition(self, is_open: bool) -> tuple[str, bytes]:
        """Content type and text, in the format OpenMetrics or else in Prometheus's own. Costs as `text`."""
        if is_open:
            return OPEN_METRICS, open_metrics.generate_latest(self._registry)
        return CONTENT_TYPE, self.text()

    def totals(self) -> dict[str, Totals]:
        """Figures by operation, for the performance log."""
        return {name: totals for name, (totals, _) in self._read().items()}

    def count_hot_gets(self, read: Callable[[], float]) -> None:
        """Add the count that `read` gives to the Gets: those from the hot cache are not reported one by one."""
        self._hot_gets = _rising(read)

    def _read(self) -> dict[str, tuple[Totals, float]]:
        figures = {name: of.read() for name, of in self._figures.items()}
        totals, seconds = figures[GET]
        figures[GET] = totals._replace(keys=totals.keys + self._hot_gets()), seconds
        return figures

    def _operations(self) -> Iterable[Metric]:
        """A histogram and two counters for each operation."""
        bounds = [*map(floatToGoString, BUCKETS), "+Inf"]
        for name, (totals, seconds) in self._read().items():
            latency, keys, errors = catalogue.OF_OPERATIONS[name]
            histogram = HistogramMetricFamily(latency.name, latency.help)
            histogram.add_metric([], list(zip(bounds, accumulate(totals.calls))), seconds)
            yield histogram
            yield CounterMetricFamily(keys.name, keys.help, totals.keys)
            yield CounterMetricFamily(errors.name, errors.help, totals.errors)

    def _sampled(self) -> Iterable[Metric]:
        """One gauge for each figure of the last sample."""
        sample = self.sample
        figures = {
            catalogue.DATA_BYTES: sample.data_bytes,
            catalogue.VALUE_BYTES: sample.value_bytes,
            catalogue.DISK_USED_BYTES: sample.disk.used,
            catalogue.DISK_FREE_BYTES: sample.disk.free,
            catalogue.DISK_USED_PERCENT: sample.disk.percent,
            catalogue.INODES: sample.disk.inodes,
            catalogue.INODES_FREE: sample.disk.inodes_free,
            catalogue.KEYS: sample.keys,
        }
        for use in sample.uses:
            used, limit = catalogue.OF_RESOURCES[use.name]
            figures.update({used: use.used, limit: use.limit})
        figures.update({catalogue.engine_property(name): value for name, value in sample.figures.items()})
        for entry, figure in figures.items():
            yield GaugeMetricFamily(entry.name, entry.help, figure)


class _Made(Collector):
    """Metrics that are made when they are asked for. Their names are not claimed: which there are may depend on what is
    measured."""

    def __init__(self, make: Callable[[], Iterable[Metric]]) -> None:
        self._make = make

    def collect(self) -> Iterable[Metric]:
        """Those of now."""
        return self._make()


class _Shown(Collector):
    """An entry of the catalogue, whose figures are read when they are asked for."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        #: Each gives figures by the values of the labels.
        self.reads: list[Callable[[], Mapping[tuple[str, ...], float]]] = []

    def describe(self) -> Iterable[Metric]:
        """The name is claimed, whatever there is to show."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """The figures of now."""
        family = self._family()
        for read in self.reads:
            for values, figure in read().items():
                family.add_metric(values, figure)
        yield family

    def _family(self) -> CounterMetricFamily | GaugeMetricFamily:
        make = CounterMetricFamily if self._entry.type == COUNTER else GaugeMetricFamily
        return make(self._entry.name, self._entry.help, labels=self._entry.labels)


def _rising(read: Callable[[], float]) -> Callable[[], float]:
    """What `read` gives, but never less than before: Prometheus takes a decrease for a restart."""
    highest = 0.0

    def risen() -> float:
        nonlocal highest
        highest = max(highest, read())
        return highest

    return risen
