"""Eviction as a periodic task: measure each disk, and if it is too full, delete keys batch by batch, with a log line
for each batch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Callable

from twisted.logger import Logger, LogLevel

from ..backends.local.maintenance.eviction import Batch, Disk, Eviction, EvictionRules, Evictor
from ..backends.local.maintenance.victims import ORPHAN
from ..commands.administration import Plan
from ..observability.metrics import Metrics
from ..sessions.audit import SERVER, Auditing

_log = Logger(namespace="kvtwisted.eviction")


def report_batch(metrics: Metrics, audit: Auditing, batch: Batch) -> None:
    """Log, count and audit one batch. Called on the pool thread that deleted it."""
    metrics.evicted(batch.reason, batch.keys, batch.freed)
    audit.record("eviction", SERVER, reason=batch.reason, keys=batch.keys, bytes=batch.freed)
    _log.info(
        "removed {keys} orphaned files, {freed} bytes" if batch.reason == ORPHAN
        else "evicted {keys} keys, {freed} bytes ({reason})",
        keys=batch.keys, freed=batch.freed, reason=batch.reason,
    )  # fmt: skip


class EvictionTask:
    """`work` for a Ticker, in a pool thread: one look at each disk, and an eviction if need be."""

    def __init__(
        self,
        evictor: Evictor,
        metrics: Metrics,
        *,
        rules: Callable[[], EvictionRules],
        enabled: Callable[[], bool],
        disks: Sequence[Disk],
    ) -> None:
        """`rules` gives the current rules, `enabled` whether they apply."""
        self._evictor = evictor
        self._metrics = metrics
        self._rules = rules
        self._enabled = enabled
        self._disks = disks
        self._running = threading.Lock()

    def run(self) -> bool:
        """One turn; a second one at the same time does nothing. Blocks.

        Returns whether any disk is as full as before for want of something to delete.
        """
        if not self._running.acquire(blocking=False):
            return False
        try:
            return any([self._look_after(disk) for disk in self._disks])  # noqa: C419 - each of them
        finally:
            self._running.release()

    def plan(self) -> Plan:
        """What a turn would do now if eviction is enabled, without doing it. Blocks on storage for some seconds at most
        and for a walk over the server's folders; any thread. Raises StorageError and OSError."""
        return self._evictor.plan(self._disks, self._rules())

    def _look_after(self, disk: Disk) -> bool:
        if not self._enabled():
            if disk.records and disk.wanted_free():
                # Operators delete keys to be able to write again, and that space is freed only by a compaction.
                self._evictor.collect_garbage(disk)
                return True
            return False
        rules, percent = self._rules(), disk.measure().percent
        eviction = self._evictor.run(disk, rules)
        self._report(disk, rules, percent, eviction)
        if eviction.freed >= eviction.needed or eviction.scrubbing:
            return False
        if disk.records and disk.wanted_free():
            self._evictor.collect_garbage(disk)
        return True

    def _report(self, disk: Disk, rules: EvictionRules, percent: float, eviction: Eviction) -> None:
        facts = {
            "disk": disk.name, "percent": round(percent, 1), "threshold": rules.threshold, "policy": rules.policy,
            "freed": eviction.freed, "needed": eviction.needed, "passing": eviction.passing,
        }  # fmt: skip
        level, was, what = LogLevel.info, "is", ""
        if eviction.scrubbing:
            what = "; garbage goes before keys"
        elif eviction.is_passing:
            what = " with {passing} bytes that the server needs for a while; no key goes for them"
        elif eviction.futile:
            self._metrics.eviction_futile()
            why = (
                "but {passing} bytes there are backups, and what the server needs for a while"
                if eviction.passing
                else "but not of what this server stores"
            )
            level, what = LogLevel.warn, f", {why}: {{needed}} bytes would have to go; nothing is evicted"
        elif eviction.freed < eviction.needed:
            level, what = LogLevel.warn, "; policy {policy} found {freed} of the {needed} bytes that had to go"
        elif eviction.needed:
            was, what = "was", "; {freed} bytes were evicted, {needed} needed"
        if what:
            full = f"the disk of {{disk}} {was} {{percent}} % full (threshold {{threshold}} %)"
            _log.emit(level, full + what, **facts)
