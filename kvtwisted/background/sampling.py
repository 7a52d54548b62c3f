"""Sampling as a periodic task: folder sizes, the disk, RocksDB's figures; and a try to recover from failing writes."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import Callable

from twisted.logger import Logger

from ..backends.local.engines.engine import Engine, statistics_of
from ..backends.local.large_values import ValueFiles
from ..backends.local.recovery import Recovery
from ..core.disk import disk_usage, folder_bytes
from ..core.errors import StorageError, Unavailable
from ..core.health import Health
from ..core.resources import Use, descriptors, threads
from ..observability.metrics import Metrics, StorageSample

#: Seconds between two turns at most: failing writes are tried again also when samples are seldom.
LONGEST_PAUSE = 10.0

_log = Logger(namespace="kvtwisted.sampling")


def take_sample(engine: Engine, data_path: str, values: ValueFiles) -> StorageSample:
    """Measure now. Blocks: it walks the data folder. Raises OSError when that is gone."""
    statistics = statistics_of(engine)
    return StorageSample(
        data_bytes=folder_bytes(data_path),
        value_bytes=values.taken,
        disk=disk_usage(data_path),
        keys=statistics.keys,
        figures=statistics.figures,
        uses=(descriptors(), threads()),
    )


class SamplingTask:
    """`work` for a Ticker, in a pool thread: one try to recover from failing writes, and one sample if it is time."""

    def __init__(
        self,
        recovery: Recovery,
        metrics: Metrics,
        sample: Callable[[], StorageSample],
        health: Health,
        interval: Callable[[], float],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`health` is told when a resource of the process is used up.

        `interval` gives the seconds between two samples; `seconds` is a monotonic time.
        """
        self._recovery = recovery
        self._metrics = metrics
        self._sample = sample
        self._health = health
        self._interval = interval
        self._seconds = seconds
        self._sampled_at = -math.inf
        self._failure: str | None = None
        self._nearly_all: set[str] = set()

    def run(self) -> None:
        """One turn. Blocks."""
        failing = self._recovery.writes_fail
        try:
            self._recovery.attempt()
        except (StorageError, Unavailable) as error:
            # Once for each cause, not at every turn: a full disk may last.
            if self._failure != str(error):
                self._failure = str(error)
                _log.warn("writes fail, and are tried again now and then: {error}", error=error)
        else:
            self._failure = None
            if failing:
                _log.info("writes work again")
        # Turns may come a little early.
        if self._seconds() - self._sampled_at < self._interval() - LONGEST_PAUSE / 2:
            return
        self._sampled_at = self._seconds()
        # There is nothing to measure while the storage is being reopened, or its folder is gone.
        with suppress(Unavailable, FileNotFoundError):
            sample = self._sample()
            self._metrics.sample = sample
            for use in sample.uses:
                self._look_at(use)

    def _look_at(self, use: Use) -> None:
        if use.all:
            self._health.fail(use.name, f"there are no more {use.name}: {use}")
        else:
            self._health.recover(use.name)
        if not use.nearly_all:
            self._nearly_all.discard(use.name)
        elif use.name not in self._nearly_all:
            self._nearly_all.add(use.name)
            _log.warn("{use}", use=str(use))
