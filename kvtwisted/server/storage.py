"""The storage half of the assembly: what stands on an open engine, how settings reach it, and its periodic tasks."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from functools import partial
from typing import Any, Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..backends.local.cache import HotCache
from ..backends.local.engines.engine import Engine, HasOptions, statistics_of
from ..backends.local.large_values import OWNER, ValueFiles, check_owner
from ..backends.local.maintenance.backup import Backups
from ..backends.local.maintenance.eviction import Disk, EvictionRules, Evictor
from ..backends.local.maintenance.expiry import Sweeper
from ..backends.local.maintenance.holdings import Folders
from ..backends.local.maintenance.scrub import Scrub
from ..backends.local.maintenance.space import GuardedDisk, SpaceGuard, headroom, least_free, spill_threshold
from ..backends.local.maintenance.spare_inodes import SpareInodes
from ..backends.local.maintenance.victims import OLDEST, Share
from ..backends.local.recency import Recency
from ..backends.local.recovery import Recovery
from ..backends.local.store import Store
from ..backends.local.write_sequence import WriteSequence
from ..backends.local.writer import Writer
from ..background.eviction import EvictionTask, report_batch
from ..background.expiry import ExpiryTask
from ..background.performance import PerformanceTask
from ..background.sampling import LONGEST_PAUSE, SamplingTask, take_sample
from ..background.space import INTERVAL, SpaceTask
from ..background.ticker import Ticker
from ..commands.administration import CollectOrphans, Plan, Tasks
from ..config.rules import protected_prefixes
from ..config.settings import Settings
from ..core.clock import Clock
from ..core.disk import disk_usage, on_one_disk
from ..core.errors import StorageError, Unavailable
from ..core.health import Health
from ..core.paths import Folder, FolderMonitor
from ..observability import catalogue
from ..observability.metrics import Metrics
from ..reactor.lifecycle import make_folder
from ..sessions.audit import Auditing

#: Keys of the folders without which the server is not ready.
_DATA, _VALUES = "rocksdb.path", "value.disk_path"
#: Runs a function in a background thread.
Defer = Callable[[Callable[[], Any]], "Deferred[Any]"]


#: Seconds between looks whether deleted ranges are to be compacted.
COMPACTION_SECONDS = 1.0

_log = Logger(namespace="kvtwisted")


class Storage:
    """Everything that stands on an engine, from `open` to `close`. Construction touches nothing."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        metrics: Metrics,
        audit: Auditing,
    ) -> None:
        """`settings` gives those in force."""
        self.health = Health()
        self._settings = settings
        self._metrics = metrics
        self._audit = audit
        #: Gives the shares of quotas for eviction; while there are none, the eviction policy alone decides.
        self.shares: Callable[[], Collection[Share]] = tuple
        self._eviction: EvictionTask | None = None
        self._ask_for_room: Callable[[], object] = lambda: None
        #: The operator's tasks; None with an engine that keeps nothing on disk.
        self.tasks: Tasks | None = None

    def open(self, engine: Engine) -> None:
        """Make and claim the folder of large values, delete what a run before left over, and read the marks of
        `engine`, which is open. No periodic task is started. Blocks. Raises KvError or OSError."""
        settings, metrics, audit = self._settings, self._metrics, self._audit
        now = settings()
        clock, recency = Clock(), Recency()
        self.engine = engine
        files = ValueFiles(now.value.disk_path)
        if engine.is_persistent:
            make_folder("value.disk_path", now.value.disk_path)
        self._paths = {"rocksdb.path": now.rocksdb.path, "value.disk_path": now.value.disk_path}
        self._disks = self._find_disks(now) if engine.is_persistent else []
        self._guard = SpaceGuard(
            [GuardedDisk(disk.name, disk.measure, self._headroom(disk)) for disk in self._disks],
            lambda: settings().eviction.high_water_mark,
            self._space_changed,
        )
        self._spare = SpareInodes(now.rocksdb.path)
        self._write_sequence = WriteSequence()
        self._writer = Writer(
            engine,
            HotCache(now.cache.max_bytes),
            files,
            durable=now.rocksdb.options.sync,
            spill_threshold=self._spill_threshold(now),
            admit=self._guard.admit,
            admit_file=self._guard.admit_file if self._disks else None,
        )
        self._commits = self._writer.commits
        self._commits.history.max_bytes = now.limits.max_watch_history_bytes
        self._record_write_sequence(now)
        self.store = Store(
            engine,
            self._writer,
            clock,
            recency=recency,
            range_delete_keys=lambda: settings().limits.max_range_delete_keys,
        )
        backups = Backups(
            engine,
            files,
            self.store.metadata.identity,
            folder=now.backup.path,
            data=now.rocksdb.path,
            values=now.value.disk_path,
            least_free=self._least_free,
        )
        if engine.is_persistent:
            self._take_over(files)
            backups.tidy()
            self.tasks = Tasks(
                backups.create,
                backups.finished,
                self._plan_eviction,
                self._commits.file_index.collect_orphans,
                backups.stop,
            )
        self._compare_clocks()
        #: Knows whether writes fail in the storage, and tries to recover.
        self.recovery = Recovery(self.store.metadata, self.health)
        self._sweeper = Sweeper(engine, self._commits, clock)
        self._scrub = Scrub(engine, self._commits, clock)
        self._evictor = Evictor(
            engine,
            self._commits,
            clock,
            lambda key: key in recency or key in self._commits.cache.entries,
            self._write_sequence,
            lambda batch: report_batch(metrics, audit, batch),
            scrub=self._scrub,
            collect_orphans=self._commits.file_index.collect_orphans,
            shares=lambda: self.shares(),
        )
        self._folders = FolderMonitor(self._find_folders(now), self._folder_changed)
        self._show()

    def _compare_clocks(self) -> None:
        ahead = self.store.metadata.clock.ahead_ms() / 1000
        if ahead > 1:
            _log.warn(
                "the system's clock is {ahead} s behind the time that the data has reached; ttls go by the latter",
                ahead=round(ahead),
            )

    def _take_over(self, files: ValueFiles) -> None:
        files.claim(self.store.metadata.identity(), empty=not self._commits.file_index.pointers)
        files.prepare()
        orphans = self._commits.file_index.collect_orphans()
        if orphans.files:
            _log.info("{what}", what=CollectOrphans.logged.format(**orphans._asdict()))

    def _find_disks(self, now: Settings) -> list[Disk]:
        data, values = now.rocksdb.path, now.value.disk_path

        def disk(name: str, data: str | None, values: str | None) -> Disk:
            folder = data or values or ""
            folders = Folders(
                data=data,
                values=values,
                backups=now.backup.path,
                figures=lambda: statistics_of(self.engine),
                named=lambda: self._commits.file_index.names(),
            )
            return Disk(
                name,
                measure=partial(disk_usage, folder),
                holdings=folders.holdings,
                wanted_free=lambda: self._guard.wanted_free(name),
                held=lambda pointer: self._writer.files.held(pointer),
                records=data is not None,
                files=values is not None,
            )

        if on_one_disk(data, values):
            return [disk("rocksdb.path", data, values)]
        return [disk("rocksdb.path", data, None), disk("value.disk_path", None, values)]

    def _headroom(self, disk: Disk) -> int:
        if not (disk.records and isinstance(self.engine, HasOptions)):
            return 0
        return headroom(self.engine.effective_options(), disk.measure().total)

    def _spill_threshold(self, settings: Settings) -> float:
        """Bytes from which a value gets a file; none does with an engine that keeps nothing."""
        if not self.engine.is_persistent:
            return math.inf
        return spill_threshold(settings.value.disk_threshold, disk_usage(settings.rocksdb.path).total)

    def _least_free(self, folder: str) -> int:
        """Bytes that must stay free on the disk of a folder, so that no write of a client is refused."""
        for guarded in self._guard.disks:
            if on_one_disk(folder, self._paths[guarded.name]):
                usage, mark = disk_usage(folder), self._settings().eviction.high_water_mark
                return least_free(usage, mark, guarded.headroom) + usage.total // 100
        return 0

    def _find_folders(self, now: Settings) -> list[Folder]:
        folders = [Folder("backup.path", now.backup.path), Folder("logging.directory", now.logging.directory)]
        folders = [folder for folder in folders if folder.path and os.path.isdir(folder.path)]
        if self.engine.is_persistent:
            folders.append(Folder(_DATA, now.rocksdb.path, ("LOCK",)))
            folders.append(Folder(_VALUES, now.value.disk_path, (OWNER,)))
        return folders

    def _folder_changed(self, folder: Folder, trouble: str | None) -> None:
        """Without the data folder all writes are refused, without the other only large values; the server is not ready.

        Any thread.
        """
        if folder.key == _DATA:
            self._commits.refusal = trouble and f"{trouble}; writes are refused"
        if trouble is None:
            self.health.recover(folder.key)
            _log.info("{key}: the folder is as it was", key=folder.key)
            return
        if folder.key in (_DATA, _VALUES):
            self.health.fail(folder.key, trouble)
        _log.error("{trouble}", trouble=trouble)

    def _space_changed(self, reason: str | None) -> None:
        if reason is None:
            self.health.recover("disk")
            _log.info("there is room again; writes are accepted")
        else:
            self.health.fail("disk", reason)
            _log.warn("{reason}", reason=reason)
            self._ask_for_room()

    def _look_at_disks(self) -> None:
        self._guard.look()
        if self._spare.look():
            _log.warn(
                "there are nearly no inodes left for {path} (df -i tells); spare ones are used",
                path=self._settings().rocksdb.path,
            )

    def apply(self, new: Settings) -> None:
        """Take up changed settings. Any thread; requests that run see either the old ones or the new."""
        self._commits.resize_cache(new.cache.max_bytes)
        self._commits.history.max_bytes = new.limits.max_watch_history_bytes
        self._writer.durable, was_durable = new.rocksdb.options.sync, self._writer.durable
        if self._writer.durable and not was_durable:
            self.store.metadata.mark_anew()
        self._writer.spill_threshold = self._spill_threshold(new)
        self._record_write_sequence(new)

    def _record_write_sequence(self, now: Settings) -> None:
        wanted = now.eviction.policy == OLDEST
        self._write_sequence.record(wanted)
        self._commits.write_sequence = self._write_sequence if wanted else None

    def close(self) -> None:
        """Write the marks that the next run reads. The engine stays open. Raises StorageError."""
        self._writer.files.release()
        self.store.metadata.mark_clock()

    def check_folders(self, wanted: Settings) -> None:
        """Raise StorageError when the folders of `wanted`, data and large values, do not belong together. Blocks."""
        data, values = os.path.abspath(wanted.rocksdb.path), os.path.abspath(wanted.value.disk_path)
        if data == os.path.abspath(self._settings().rocksdb.path):
            check_owner(values, self.store.metadata.identity(), empty=not self._commits.file_index.pointers)
        elif not os.path.exists(os.path.join(data, "CURRENT")):
            check_owner(values, "a database that is made at the start", empty=True)

    def _plan_eviction(self) -> Plan:
        if self._eviction is None:
            raise Unavailable("the server is starting")
        return self._eviction.plan()

    def make_tickers(self, reactor: Any, defer: Defer) -> list[Ticker]:
        """The periodic tasks, not yet started."""
        settings, metrics = self._settings, self._metrics
        data = settings().rocksdb.path
        expiry = ExpiryTask(self._sweeper, self._scrub, self.store, metrics)
        performance = PerformanceTask(metrics, reactor.seconds)
        tickers = [
            Ticker("expiry", reactor, lambda: settings().storage.expiry_interval, partial(defer, expiry.run)),
            Ticker("log sync", reactor, lambda: _sync_interval(settings()), partial(defer, self._sync_log)),
            Ticker("performance", reactor, lambda: settings().logging.performance_interval, performance.run),
        ]
        if not self.engine.is_persistent:
            return tickers  # there is no disk to look at
        eviction = self._eviction = EvictionTask(
            self._evictor,
            metrics,
            rules=lambda: _eviction_rules(settings()),
            enabled=lambda: settings().eviction.enabled,
            disks=self._disks,
        )
        evict = partial(defer, eviction.run)
        space = SpaceTask(self._guard, reactor, evict, defer, self._look_at_disks)
        self._ask_for_room = partial(reactor.callFromThread, space.relieve)
        sampling = SamplingTask(
            self.recovery,
            metrics,
            lambda: take_sample(self.engine, data, self._writer.files),
            self.health,
            lambda: settings().monitoring.sample_interval,
        )
        sample = partial(defer, sampling.run)
        return [
            *tickers,
            Ticker("compactions", reactor, COMPACTION_SECONDS, partial(defer, self.store.compactions.turn)),
            Ticker("space", reactor, INTERVAL, space.run, at_once=True),
            Ticker("folders", reactor, INTERVAL, partial(defer, self._folders.look)),
            Ticker("eviction", reactor, lambda: settings().eviction.check_interval, evict),
            Ticker("sampling", reactor, lambda: _sampling_interval(settings()), sample, at_once=True),
        ]

    def _sync_log(self) -> None:
        # RocksDB recovers from a write that failed for want of space, but not when its log is then told to sync.
        if not self._settings().storage.wal_sync_interval_ms or self.recovery.writes_fail:
            return
        try:
            self._commits.sync()
        except StorageError as error:
            self.recovery.write_failed(f"the write-ahead log cannot be synced: {error}")

    def _show(self) -> None:
        store, guard, metrics = self.store, self._guard, self._metrics
        metrics.show(catalogue.CACHE_MISSES, lambda: store.cache_misses)
        metrics.show(catalogue.WRITES_REFUSED, lambda: guard.refused)
        metrics.show(catalogue.DISK_NEARLY_FULL, lambda: bool(guard.reason))
        metrics.show(catalogue.CLOCK_AHEAD, lambda: store.metadata.clock.ahead_ms() / 1000)
        metrics.show(catalogue.EXPIRY_ENTRIES_REPLACED, lambda: self._commits.index_entries.taken)
        metrics.show(catalogue.EXPIRY_ENTRIES_SCRUBBED, lambda: self._scrub.removed)
        metrics.show(catalogue.CACHE_BYTES, lambda: self._commits.cache.size)


def _sync_interval(settings: Settings) -> float:
    """Seconds; while switched off the task still looks once a second whether it is on again."""
    return (settings.storage.wal_sync_interval_ms or 1000) / 1000


def _sampling_interval(settings: Settings) -> float:
    return min(settings.monitoring.sample_interval, LONGEST_PAUSE)


def _eviction_rules(settings: Settings) -> EvictionRules:
    eviction = settings.eviction
    return EvictionRules(
        eviction.disk_usage_threshold, eviction.batch_size, eviction.policy, protected_prefixes(settings)
    )
