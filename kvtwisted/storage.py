"""The storage half of the assembly: what stands on an open engine, how settings reach it, and its periodic tasks."""

from __future__ import annotations

import math
from typing import Any, Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from .background.eviction import EvictionTask, report_batch
from .background.expiry import ExpiryTask
from .background.performance import PerformanceTask
from .background.sampling import SamplingTask, take_sample
from .background.ticker import Ticker
from .config.settings import Settings
from .core.cache import HotCache
from .core.clock import Clock
from .core.disk import disk_usage, folder_bytes, same_disk
from .core.engine import Engine
from .core.errors import StorageError
from .core.eviction import EvictionRules, Evictor
from .core.expiry import Sweeper
from .core.health import Health
from .core.large_values import ValueFiles
from .core.limits import Limits
from .core.operations import Configuration, Operations
from .core.recency import Recency
from .core.store import Store
from .core.writer import Writer
from .lifecycle import make_folder
from .metrics import Metrics

#: Runs a function in a background thread.
Defer = Callable[[Callable[[], Any]], "Deferred[Any]"]


_log = Logger(namespace="kvtwisted")


class Storage:
    """Everything that stands on an engine. `settings` gives those in force; nothing here is started."""

    def __init__(
        self, engine: Engine, settings: Callable[[], Settings], configuration: Configuration, metrics: Metrics
    ) -> None:
        now = settings()
        clock, recency = Clock(), Recency()
        self.engine = engine
        self.health = Health()
        self._settings = settings
        self._metrics = metrics
        files = ValueFiles(now.value.disk_path)
        if now.storage.engine != "memory":
            make_folder("value.disk_path", now.value.disk_path)
        self._writer = Writer(
            engine,
            HotCache(now.cache.max_bytes),
            files,
            durable=now.rocksdb.options.sync,
            spill_threshold=_spill_threshold(now),
        )
        self._store = Store(engine, self._writer, clock, limits=_limits(now), recency=recency)
        if now.storage.engine != "memory":
            self._take_over(files)
        self.operations = Operations(self._store, configuration, metrics, self.health)
        self._sweeper = Sweeper(engine, self._writer, clock)
        self._evictor = Evictor(
            engine, self._writer, self._sweeper, recency, lambda batch: report_batch(metrics, batch)
        )
        self._watch()

    def _take_over(self, files: ValueFiles) -> None:
        named = self._writer.large_files()
        files.claim(self._store.identity(), empty=not named)
        files.prepare()
        orphans = files.collect_orphans(named)
        if orphans.files:
            _log.info("removed {files} orphaned value files, {freed} bytes", files=orphans.files, freed=orphans.freed)

    def apply(self, new: Settings) -> None:
        """Take up changed settings. Any thread; requests that run see either the old ones or the new."""
        self._store.limits = _limits(new)
        self._writer.cache.resize(new.cache.max_bytes)
        self._writer.durable = new.rocksdb.options.sync
        self._writer.spill_threshold = _spill_threshold(new)

    def close(self) -> None:
        """Write down what the next run should know. The engine stays open. Raises StorageError."""
        self._writer.files.release()
        self._store.mark_clock()

    def make_tickers(self, reactor: Any, defer: Defer) -> list[Ticker]:
        """The periodic tasks, not yet started."""
        settings, metrics = self._settings, self._metrics
        data, values = settings().rocksdb.path, settings().value.disk_path
        expiry = ExpiryTask(self._sweeper, self._store, metrics, defer)
        performance = PerformanceTask(metrics, reactor.seconds)
        tickers = [
            Ticker("expiry", reactor, lambda: settings().storage.expiry_interval, expiry.run),
            Ticker("log sync", reactor, lambda: _sync_interval(settings()), lambda: defer(self._sync_log)),
            Ticker("performance", reactor, lambda: settings().logging.performance_interval, performance.run),
        ]
        if settings().storage.engine == "memory":
            return tickers  # there is no disk to look at
        eviction = EvictionTask(
            self._evictor,
            metrics,
            rules=lambda: _eviction_rules(settings()),
            measure_disk=lambda: disk_usage(data),
            measure_own=lambda: folder_bytes(data) + (folder_bytes(values) if same_disk(data, values) else 0),
            defer=defer,
        )
        sampling = SamplingTask(self.operations, metrics, lambda: take_sample(self.engine, data, values), defer)
        return [
            *tickers,
            Ticker("eviction", reactor, lambda: settings().eviction.check_interval, eviction.run),
            Ticker("sampling", reactor, lambda: settings().monitoring.sample_interval, sampling.run, at_once=True),
        ]

    def _sync_log(self) -> None:
        # RocksDB recovers from a write that failed for want of space, but not when its log is then told to sync.
        if not self._settings().storage.wal_sync_interval_ms or self.operations.writes_fail:
            return
        try:
            self._writer.sync()
        except StorageError as error:
            # Health is where this is seen; the task comes back at its next turn.
            self.health.fail("log", f"the write-ahead log cannot be synced: {error}")
        else:
            self.health.recover("log")

    def _watch(self) -> None:
        store, operations = self._store, self.operations
        self._metrics.count_hot_gets(lambda: operations.hot_gets)
        self._metrics.watch_total(
            "kv_cache_hits", "Gets answered from the hot cache.", lambda: store.cache_hits + operations.hot_gets
        )
        self._metrics.watch_total(
            "kv_cache_misses", "Gets that the hot cache could not answer.", lambda: store.cache_misses
        )
        self._metrics.watch("kv_cache_bytes", "Bytes of the hot cache's entries.", lambda: self._writer.cache.size)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.limits.max_batch_keys, settings.limits.max_request_bytes)


def _spill_threshold(settings: Settings) -> float:
    """Bytes from which a value gets a file; none does with the engine that keeps nothing."""
    return math.inf if settings.storage.engine == "memory" else settings.value.disk_threshold


def _sync_interval(settings: Settings) -> float:
    """Seconds; while switched off the task still looks once a second whether it is on again."""
    return (settings.storage.wal_sync_interval_ms or 1000) / 1000


def _eviction_rules(settings: Settings) -> EvictionRules | None:
    eviction = settings.eviction
    if not eviction.enabled:
        return None
    return EvictionRules(eviction.disk_usage_threshold, eviction.batch_size, eviction.policy)
