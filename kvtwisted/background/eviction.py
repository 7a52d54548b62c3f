"""Eviction as a periodic task: measure the disk, and if it is too full, delete batch by batch, with a log line each."""

from __future__ import annotations

from typing import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..core.disk import DiskUsage
from ..core.eviction import Batch, Eviction, EvictionRules, Evictor
from ..metrics import Metrics

_log = Logger(namespace="kvtwisted.eviction")


def report_batch(metrics: Metrics, batch: Batch) -> None:
    """Log and count one batch. Called on the pool thread that deleted it."""
    metrics.evicted(batch.reason, batch.keys, batch.freed)
    _log.info("evicted {keys} keys, {freed} bytes ({reason})", keys=batch.keys, freed=batch.freed, reason=batch.reason)


class EvictionTask:
    """`work` for a Ticker: one look at the disk, and an eviction if need be."""

    def __init__(
        self,
        evictor: Evictor,
        metrics: Metrics,
        *,
        rules: Callable[[], EvictionRules | None],
        measure_disk: Callable[[], DiskUsage],
        measure_own: Callable[[], int],
        defer: Callable[[Callable[[], None]], Deferred[None]],
    ) -> None:
        """`rules` gives the rules in force, or None when eviction is off; `defer` runs a function in a pool thread."""
        self._evictor = evictor
        self._metrics = metrics
        self._rules = rules
        self._measure_disk = measure_disk
        self._measure_own = measure_own
        self._defer = defer

    def run(self) -> Deferred[None]:
        """One turn. Reactor thread; fires when the pool thread has finished."""
        return self._defer(self._evict)

    def _evict(self) -> None:
        rules = self._rules()
        if rules is None:
            return
        usage = self._measure_disk()
        self._report(usage, rules, self._evictor.run(usage, self._measure_own, rules))

    def _report(self, usage: DiskUsage, rules: EvictionRules, eviction: Eviction) -> None:
        facts = {"percent": round(usage.percent, 1), "threshold": rules.threshold, "policy": rules.policy}
        if eviction.futile:
            self._metrics.eviction_futile()
            _log.warn(
                "the disk is {percent} % full (threshold {threshold} %), but not of what this server stores: "
                "{needed} bytes would have to go; nothing is evicted",
                needed=eviction.needed, **facts,
            )  # fmt: skip
        elif eviction.freed < eviction.needed:
            _log.warn(
                "the disk is {percent} % full (threshold {threshold} %); policy {policy} found {freed} of the "
                "{needed} bytes that had to go",
                freed=eviction.freed, needed=eviction.needed, **facts,
            )  # fmt: skip
        elif eviction.freed:
            _log.info(
                "the disk was {percent} % full (threshold {threshold} %); {freed} bytes were evicted, {needed} needed",
                freed=eviction.freed, needed=eviction.needed, **facts,
            )  # fmt: skip
