"""The one place that knows everything: builds the server's parts, starts them in order and stops them in reverse.

The data flow: a request reaches a transport (`http`, `rpc`), which decodes it and calls `core.operations` (over the
Deferred facade when it comes from the reactor); `core.store` turns it into records and batches; an engine stores them.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any, Callable

from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, succeed
from twisted.logger import Logger, globalLogPublisher
from twisted.python.threadpool import ThreadPool

import twisted

from .. import __version__
from ..backends.administration import THREADS as ADMINISTRATION_THREADS
from ..backends.administration import Administration, Auditor
from ..backends.local.backend import LocalBackend
from ..backends.local.engines import is_persistent, open_engine
from ..backends.local.engines.engine import Engine, HasOptions
from ..backends.local.maintenance.spare_inodes import SpareInodes
from ..backends.server import ServerCommands
from ..background.memory import INTERVAL as MEMORY_INTERVAL
from ..background.memory import MemoryTask, keep_little_memory
from ..background.performance import NAMESPACE
from ..background.ticker import Ticker
from ..config.manager import ConfigManager
from ..config.settings import Settings
from ..core.errors import Unavailable
from ..core.limits import Limits
from ..observability import catalogue
from ..observability.health_checks import THREADS as HEALTH_THREADS
from ..observability.health_checks import HealthChecks
from ..observability.log_writer import LOOK_SECONDS as LOG_SECONDS
from ..observability.log_writer import LogWriter, LogWriters
from ..observability.logs import LogFiles
from ..observability.metrics import Metrics
from ..observability.trails import Trails
from ..reactor.fair_pool import FairPool
from ..reactor.lifecycle import Unwinding, make_folder, warn_of_open_folders
from ..reactor.pool import defer_to_pool
from ..sessions.admission import Admission
from ..sessions.door import Door
from ..tls.renewal import LOOK_SECONDS, ListenerCertificates
from .authentication import Authentication
from .capacity import fitted_options, make_admission, make_connections, shorten_turns
from .rehearsal import Rehearsal
from .sockets import Sockets
from .storage import Storage
from .transports import Addresses, Behind, Transports

#: Threads of the background tasks: one for each of those that may take long (eviction, expiry, sampling, space, the
#: recount for quotas, the log's fsync, which must not wait for a compaction, and the look at the folders, one of which
#: may hang), and one for the small ones.
BACKGROUND_THREADS = 8

#: The keys that listeners go by.
_LISTENING = ("http.host", "http.port", "grpc.host", "grpc.port")

_log = Logger(namespace="kvtwisted")


class Server(Service):
    """The whole server as one service. Construction opens nothing, since twistd forks after it. Reactor thread."""

    def __init__(self, reactor: Any, config: ConfigManager, writers: LogWriters | None = None) -> None:
        """`writers` are those of logs that were open before, such as twistd's own."""
        self.setName("kvtwisted")
        self._reactor = reactor
        self._config = config
        self._writers = LogWriters() if writers is None else writers
        self._unwinding = Unwinding()
        self._sockets = Sockets()
        # The keys that what is being started goes by.
        self._going_by: tuple[str, ...] = ()
        self._tickers: list[Ticker] = []
        self._transports: Transports | None = None
        self._authentication: Authentication | None = None
        self._door: Door | None = None
        self._reload_certificates: Callable[[], Deferred[bool]] | None = None
        #: None until started.
        self.addresses: Addresses | None = None

    @property
    def _settings(self) -> Settings:
        """The settings in force."""
        return self._config.running

    def privilegedStartService(self) -> None:
        """Bind the reactor's sockets: Note [Two steps to listening]. Raises Unavailable; then nothing is bound."""
        super().privilegedStartService()
        with self._by(*_LISTENING):
            self._sockets.bind(self._settings)

    @contextmanager
    def _by(self, *names: str) -> Iterator[None]:
        """Within the block, what fails is the fault of these keys: see `explained`."""
        self._going_by = names
        yield
        self._going_by = ()  # not after a failure, which is explained by them

    def explained(self, error: Exception) -> str:
        """Why it did not start, with the values that are to blame and where they come from."""
        message = str(error)
        # What begins with `http:` has nothing to do with the keys of gRPC.
        named = [name for name in self._going_by if name.startswith(message.partition(":")[0] + ".")]
        return self._config.explained(message, *(named or self._going_by))

    def startService(self) -> None:
        """Start all parts. When one fails, the others are undone and its KvError or OSError is raised."""
        super().startService()
        try:
            self._start()
        except BaseException:
            ensureDeferred(self._unwinding.unwind())
            raise

    def stopService(self) -> Deferred[None]:
        """Stop all parts in reverse order; running requests get `limits.shutdown_grace` seconds to finish."""
        super().stopService()
        return ensureDeferred(self._unwinding.unwind())

    def reload(self) -> Deferred[Any]:
        """Read tokens and certificates anew, and open the log files anew.

        What is no good is logged, and what there was stays.
        """
        self._writers.reopen()
        if self._authentication is None or self._reload_certificates is None:
            return succeed(None)  # not started
        reloaded: Deferred[Any] = gatherResults(
            [self._authentication.reload(), self._reload_certificates()], consumeErrors=True
        )
        return reloaded

    def _start(self) -> None:
        push = self._unwinding.push
        push("sockets", self._sockets.close)
        with self._by("logging.directory"):
            logs = LogFiles(globalLogPublisher, lambda: self._settings.logging, NAMESPACE, self._writers)
            push("logs", logs.close)
            logs.open()
            trails = Trails(self._settings, self._writers)
            push("audit and access logs", trails.close)
            trails.open()
        self._tls = ListenerCertificates(grpc=self._settings.grpc, http=self._settings.http)
        with self._by("storage.engine", "rocksdb.path"):
            engine = self._open_engine()
        push("engine", engine.close)
        background = self._start_pool("background", BACKGROUND_THREADS)
        requests = FairPool(self._reactor, self._start_pool("requests", self._settings.storage.threads))

        metrics = Metrics(CollectorRegistry())
        with self._by("rocksdb.path", "value.disk_path", "backup.path"):
            storage = Storage(lambda: self._settings, metrics, trails.evictions)
            storage.open(engine)
        push("storage", storage.close)
        admission = make_admission(self._settings.limits)
        push("admission", admission.close)
        backend = LocalBackend(self._reactor, requests, storage.store, storage.recovery)
        push("backend", backend.stop)
        server = ServerCommands(requests, self._config, metrics.config_update)
        door = self._door = Door(self._reactor, backend, server, metrics, _limits(self._settings), storage.health)
        checks = self._start_checks(door)
        defer = partial(defer_to_pool, self._reactor, background)
        authentication = self._authentication = Authentication(
            self._reactor, lambda: self._settings, door, admission, trails.audit, defer, metrics.denied,
            writes=trails.writes,
        )  # fmt: skip
        push("gate", authentication.gate.close)
        storage.shares = lambda: authentication.usages
        administration = self._make_administration(storage, trails.operator)
        connections = make_connections(
            lambda: self._settings, metrics.connection_refused, is_open=authentication.is_open
        )
        behind = Behind(
            storage.health,
            checks,
            door,
            requests,
            administration,
            metrics,
            authentication.gate,
            authentication.is_open,
            connections,
            self._tls,
            self._sockets,
            trails.access,
        )
        keep_little_memory()
        shorten_turns(self._settings.grpc.transport)
        transports = self._transports = Transports(self._reactor, lambda: self._settings, behind)
        with self._by(*_LISTENING):
            self.addresses = transports.start()
        push("transports", transports.drain)
        memory = MemoryTask(lambda: connections.ended, defer)
        self._start_tickers(
            [
                *storage.make_tickers(self._reactor, defer),
                *self._tls_tickers(defer),
                *authentication.tickers(),
                *transports.tickers(),
                Ticker("memory", self._reactor, lambda: MEMORY_INTERVAL, memory.run),
                Ticker("logs", self._reactor, lambda: LOG_SECONDS, self._writers.look),
                Ticker("trails", self._reactor, lambda: LOG_SECONDS, trails.tell),
            ]
        )
        push("administration", administration.stop)
        push("health", lambda: storage.health.fail("server", "the server is stopping"))
        transports.show(metrics)
        authentication.show(metrics)
        self._show(metrics, engine, storage, door, admission)
        self._config.subscribe(lambda _, new: self._apply(new, storage))
        self._config.audit = trails.operator
        self._config.rehearse = Rehearsal(
            lambda: self._settings,
            lambda name, path, options: open_engine(name, path, options).close(),
            storage.check_folders,
            is_persistent=is_persistent,
            gave_up_root=self._sockets.user != os.geteuid(),
        )
        warn_of_open_folders(self._folders())
        self._announce(engine)
        transports.announce(self.addresses)

    def _folders(self) -> dict[str, str]:
        """What others should not read, by what names it; those that are in use."""
        settings = self._settings
        folders = {"logging.directory": settings.logging.directory, "--runtime-config": self._config.runtime_path}
        if is_persistent(settings.storage.engine):
            folders["rocksdb.path"] = settings.rocksdb.path
            folders["value.disk_path"] = settings.value.disk_path
            folders["backup.path"] = settings.backup.path
        return {name: path for name, path in folders.items() if path}

    def _open_engine(self) -> Engine:
        settings = self._settings
        if is_persistent(settings.storage.engine):
            return self._open_on_disk()
        return open_engine(settings.storage.engine, settings.rocksdb.path, settings.rocksdb.options)

    def _open_on_disk(self) -> Engine:
        settings = self._settings
        path = settings.rocksdb.path
        make_folder("rocksdb.path", path)
        spare = SpareInodes(path)
        if spare.before_open():
            _log.warn("there are nearly no inodes left for {path} (df -i tells); spare ones are used", path=path)
        engine = open_engine(settings.storage.engine, path, fitted_options(path, settings.rocksdb.options))
        spare.after_open()
        return engine

    def _start_pool(self, name: str, threads: int) -> ThreadPool:
        # All at once: one that cannot be started later would have requests wait for ever.
        pool = ThreadPool(minthreads=threads, maxthreads=threads, name=f"kvtwisted-{name}")
        # Waits for the jobs that run: RocksDB cannot be closed under them.
        self._unwinding.push(f"{name} pool", pool.stop)
        try:
            pool.start()
        except RuntimeError as error:
            # Stopping waits for each, which one that never began would make an error of.
            pool.threads[:] = [thread for thread in pool.threads if thread.ident is not None]
            raise Unavailable(f"the threads for {name}: {error} (ulimit -u is their limit)") from None
        return pool

    def _start_checks(self, door: Door) -> HealthChecks:
        pool = self._start_pool("health", HEALTH_THREADS)
        checks = HealthChecks(self._reactor, pool, door.health, self._writers.troubles)
        self._unwinding.push("health checks", checks.stop)
        return checks

    def _make_administration(self, storage: Storage, audit: Auditor) -> Administration:
        return Administration(
            self._reactor,
            self._start_pool("administration", ADMINISTRATION_THREADS),
            backups=storage.backups,
            plan_eviction=storage.plan_eviction,
            collect_orphans=storage.collect_orphans,
            audit=audit,
            on_disk=storage.engine.is_persistent,
        )

    # The periodic tasks, and what follows the configuration.

    def _tls_tickers(self, defer: Callable[..., Deferred[Any]]) -> list[Ticker]:
        self._reload_certificates = lambda: defer(self._tls.reload)
        if not self._tls.all:
            return []
        return [Ticker("certificates", self._reactor, lambda: LOOK_SECONDS, lambda: defer(self._tls.look))]

    def _start_tickers(self, tickers: list[Ticker]) -> None:
        self._tickers = tickers
        for ticker in tickers:
            ticker.startService()
            self._unwinding.push(f"{ticker.name} task", ticker.stopService)

    def _apply(self, new: Settings, storage: Storage) -> None:
        """A change was accepted; called on the thread that made it."""
        storage.apply(new)
        if self._door is not None:
            self._door.limits = _limits(new)
        if self._authentication is not None:
            self._authentication.apply(new)
        self._reactor.callFromThread(self._retune)

    def _retune(self) -> None:
        for ticker in self._tickers:
            ticker.retune()
        if self._transports is not None:
            self._transports.retune()

    def _show(
        self,
        metrics: Metrics,
        engine: Engine,
        storage: Storage,
        door: Door,
        admission: Admission,
    ) -> None:
        metrics.show(catalogue.IN_FLIGHT_REQUESTS, lambda: admission.in_flight)
        metrics.show(catalogue.POOL_QUEUE_DEPTH, lambda: door.waiting)
        metrics.show(catalogue.IN_FLIGHT_BYTES, lambda: admission.bytes)
        metrics.show(catalogue.OVERLOADED, lambda: admission.refused)
        metrics.show(catalogue.OVERDUE, lambda: door.overdue + admission.overdue.value)
        metrics.count_hot_gets(lambda: door.hot_gets)
        metrics.show(catalogue.CACHE_HITS, lambda: storage.store.cache_hits + door.hot_gets)
        for label, writer in self._writers.all.items():
            self._show_log(metrics, label, writer)
        metrics.build_info(
            version=__version__,
            engine=engine.version,
            python=platform.python_version(),
            twisted=twisted.__version__,
            grpcio=version("grpcio"),
        )

    def _show_log(self, metrics: Metrics, label: str, writer: LogWriter) -> None:
        metrics.show(catalogue.LOG_LINES_DROPPED, lambda: writer.dropped, log=label)
        metrics.show(catalogue.LOG_LINES_WAITING, lambda: writer.waiting, log=label)
        metrics.show(catalogue.LOG_STUCK, lambda: writer.stuck, log=label)

    def _announce(self, engine: Engine) -> None:
        if isinstance(engine, HasOptions):
            _log.info("rocksdb.options in force: {options}", options=json.dumps(engine.effective_options()))
        if not engine.is_persistent:
            _log.warn(
                "storage.engine is {engine}: nothing is written to disk, all is lost when the server stops",
                engine=engine.name,
            )
        _log.info(
            "kvtwisted {version} with {engine}, data in {path}",
            version=__version__, engine=engine.version, path=os.path.abspath(self._settings.rocksdb.path),
        )  # fmt: skip


def _limits(settings: Settings) -> Limits:
    return Limits(settings.limits.max_batch_keys, settings.limits.max_request_bytes)
