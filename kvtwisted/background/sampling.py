"""Metrics collection as a periodic task: folder sizes, the disk, RocksDB's figures; and a try at recovering."""

from __future__ import annotations

from contextlib import suppress
from typing import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..core.disk import disk_usage, folder_bytes
from ..core.engine import Engine
from ..core.errors import StorageError, Unavailable
from ..core.operations import Operations
from ..metrics import Metrics, StorageSample

_log = Logger(namespace="kvtwisted.sampling")


def take_sample(engine: Engine, data_path: str, value_path: str) -> StorageSample:
    """Measure now. Blocks: it walks both folders. Raises OSError when the data folder is gone."""
    return StorageSample(
        data_bytes=folder_bytes(data_path),
        value_bytes=folder_bytes(value_path),
        disk=disk_usage(data_path),
        engine=dict(engine.statistics()),
    )


class SamplingTask:
    """`work` for a Ticker: one sample, and one try to recover from failing writes."""

    def __init__(
        self,
        operations: Operations,
        metrics: Metrics,
        sample: Callable[[], StorageSample],
        defer: Callable[[Callable[[], None]], Deferred[None]],
    ) -> None:
        """`defer` runs a function in a pool thread."""
        self._operations = operations
        self._metrics = metrics
        self._sample = sample
        self._defer = defer
        self._failure: str | None = None

    def run(self) -> Deferred[None]:
        """One turn. Reactor thread; fires when the pool thread has finished."""
        return self._defer(self._work)

    def _work(self) -> None:
        failing = self._operations.recovery.writes_fail
        try:
            self._operations.recovery.attempt()
        except (StorageError, Unavailable) as error:
            # Once for each cause, not at every turn: a full disk may last.
            if self._failure != str(error):
                self._failure = str(error)
                _log.warn("writes fail, and are tried again now and then: {error}", error=error)
        else:
            self._failure = None
            if failing:
                _log.info("writes work again")
        # There is nothing to measure while the storage is being reopened, or its folder is gone.
        with suppress(Unavailable, FileNotFoundError):
            self._metrics.sampled(self._sample())
