"""Builds the server's parts, starts them in order and stops them in reverse. The only place that knows all parts.

The way of a request: a transport (`http`, `rpc`) decodes it into a command; a session and the door let it pass; the
backend carries it out. docs/architecture.md has the whole picture.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, succeed
from twisted.logger import Logger, globalLogPublisher

import twisted

from .. import __version__
from ..backends.local.backend import LocalBackend
from ..backends.local.engines import is_persistent, open_engine
from ..backends.local.engines.engine import HasOptions
from ..backends.local.maintenance.spare_inodes import SpareInodes
from ..backends.server import TASK_THREADS, ServerCommands
from ..background.memory import INTERVAL as MEMORY_INTERVAL
from ..background.memory import MemoryTask, keep_little_memory
from ..background.performance import NAMESPACE
from ..background.ticker import Ticker
from ..commands.scan_stream import ScanStream
from ..commands.watch import Watch
from ..config.manager import ConfigManager
from ..config.settings import Settings
from ..core.limits import Limits
from ..core.options import EngineOptions
from ..observability import catalogue
from ..observability.health_checks import THREADS as HEALTH_THREADS
from ..observability.health_checks import HealthChecks
from ..observability.log_writer import LOOK_SECONDS as LOG_SECONDS
from ..observability.log_writer import LogWriters
from ..observability.logs import LogFiles
from ..observability.metrics import Metrics
from ..observability.trails import Trails
from ..reactor.fair_pool import FairPool
from ..reactor.lifecycle import Unwinding, make_folder, start_pool, warn_of_open_folders
from ..reactor.pool import defer_to_pool
from ..sessions.door import Door
from ..sessions.streams import StreamLimits
from ..tls.renewal import LOOK_SECONDS as CERTIFICATE_SECONDS
from ..tls.renewal import ListenerCertificates
from .authentication import Authentication
from .capacity import fitted_options, make_admission, make_connections, shorten_turns
from .grpc_listener import GrpcListener
from .http_listener import HttpListener
from .rehearsal import Rehearsal
from .sockets import Sockets
from .storage import Storage
from .transports import Addresses, Transports

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
        self._push = self._unwinding.push
        self._sockets = Sockets()
        # The configuration keys that the part being started depends on.
        self._going_by: tuple[str, ...] = ()
        self._tickers: list[Ticker] = []
        #: None until started.
        self.addresses: Addresses | None = None

    def _settings(self) -> Settings:
        """The settings in force."""
        return self._config.running

    def privilegedStartService(self) -> None:
        """Bind the reactor's sockets: Note [Bind first, listen later]. Raises Unavailable; then nothing is bound."""
        super().privilegedStartService()
        with self._by(*_LISTENING):
            self._sockets.bind(self._settings())

    @contextmanager
    def _by(self, *names: str) -> Iterator[None]:
        """Within the block a failure is blamed on these configuration keys; see `explained`."""
        self._going_by = names
        yield
        self._going_by = ()  # not after a failure, which is explained by them

    def explained(self, error: Exception) -> str:
        """Why the server did not start, with the values that are to blame and where each was set."""
        message = str(error)
        # A message that begins with `http:` cannot be about the keys of gRPC.
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

        What cannot be used is logged; the tokens and certificates that were read before stay in force.
        """
        self._writers.reopen()
        if self.addresses is None:
            return succeed(None)  # not started
        reloaded: Deferred[Any] = gatherResults(
            [self._authentication.reload(), self._defer(self._certificates.reload)], consumeErrors=True
        )
        return reloaded

    def _start(self) -> None:
        """Each step pushes what undoes it, under its name: stopping goes through these in reverse. What fails in a step
        is the fault of the configuration's keys that stand beside it."""
        for start, keys in (
            (self._open_logs, ("logging.directory",)),
            (self._read_certificates, ()),
            (self._open_engine, ("storage.engine", "rocksdb.path")),
            (self._start_pools, ()),
            (self._open_storage, ("rocksdb.path", "value.disk_path", "backup.path")),
            (self._open_door, ()),
            (self._start_checks, ()),
            (self._open_gate, ()),
            (self._start_transports, _LISTENING),
            (self._start_tickers, ()),
            (self._prepare_stop, ()),
            (self._show, ()),
            (self._follow_configuration, ()),
            (self._announce, ()),
        ):
            with self._by(*keys):
                start()

    def _open_logs(self) -> None:
        self._push("sockets", self._sockets.close)
        logs = LogFiles(globalLogPublisher, lambda: self._settings().logging, NAMESPACE, self._writers)
        self._push("logs", logs.close)
        logs.open()
        self._trails = Trails(self._settings(), self._writers)
        self._push("audit and access logs", self._trails.close)
        self._trails.open()

    def _read_certificates(self) -> None:
        settings = self._settings()
        self._certificates = ListenerCertificates(grpc=settings.grpc, http=settings.http)

    def _open_engine(self) -> None:
        settings = self._settings()
        path, options = settings.rocksdb.path, settings.rocksdb.options
        if is_persistent(settings.storage.engine):
            make_folder("rocksdb.path", path)
            spare = SpareInodes(path)
            if spare.before_open():
                _log.warn("there are nearly no inodes left for {path} (df -i tells); spare ones are used", path=path)
            self._engine = open_engine(settings.storage.engine, path, fitted_options(path, options))
            spare.after_open()
        else:
            self._engine = open_engine(settings.storage.engine, path, options)
        self._push("engine", self._engine.close)

    def _start_pools(self) -> None:
        background = start_pool(self._push, "background", BACKGROUND_THREADS)
        self._defer = partial(defer_to_pool, self._reactor, background)
        threads = start_pool(self._push, "requests", self._settings().storage.threads)
        self._requests = FairPool(self._reactor, threads)

    def _open_storage(self) -> None:
        self._metrics = Metrics(CollectorRegistry())
        self._storage = Storage(self._settings, self._metrics, self._trails.evictions)
        self._storage.open(self._engine)
        self._push("storage", self._storage.close)

    def _open_door(self) -> None:
        settings, storage = self._settings(), self._storage
        self._admission = make_admission(settings.limits)
        self._push("admission", self._admission.close)
        backend = self._backend = LocalBackend(
            self._reactor, self._requests, storage.store, storage.recovery,
            snapshot_seconds=lambda: self._settings().limits.max_snapshot_seconds,
        )  # fmt: skip
        self._push("backend", backend.stop)
        self._server_commands = ServerCommands(
            self._reactor,
            self._requests,
            self._config,
            self._metrics.config_update,
            tasks=storage.tasks,
            task_pool=start_pool(self._push, "administration", TASK_THREADS),
            audit=self._trails.operator,
        )
        self._door = Door(
            self._reactor, backend, self._server_commands, self._metrics, _limits(settings), storage.health,
            StreamLimits(settings.limits.max_watchers, settings.limits.max_scan_streams),
        )  # fmt: skip

    def _start_checks(self) -> None:
        pool = start_pool(self._push, "health", HEALTH_THREADS)
        self._checks = HealthChecks(self._reactor, pool, self._door.health, self._writers.troubles)
        self._push("health checks", self._checks.stop)

    def _open_gate(self) -> None:
        trails, count = self._trails, self._metrics.denied
        self._authentication = Authentication(
            self._reactor, self._settings, self._door, self._admission, trails.audit, self._defer, count,
            writes=trails.writes,
        )  # fmt: skip
        self._push("gate", self._authentication.gate.close)
        self._storage.shares = lambda: self._authentication.usages

    def _start_transports(self) -> None:
        gate = self._authentication.gate
        self._connections = make_connections(self._settings, self._metrics.connection_refused, is_open=gate.is_open)
        keep_little_memory()
        shorten_turns(self._settings().grpc.transport)
        http = HttpListener(
            self._reactor, self._settings, self._sockets, gate, self._requests, self._checks, self._connections,
            certificates=self._certificates.http,
            is_open=gate.is_open,
            metrics_text=self._metrics.exposition,
            access_log=self._trails.access,
        )  # fmt: skip
        grpc = GrpcListener(
            self._reactor, self._settings, self._sockets, gate, self._requests, self._checks, self._connections,
            certificates=self._certificates.grpc,
            door=self._door,
            health=self._storage.health,
        )  # fmt: skip
        self._transports = Transports(self._settings, http, grpc)
        self._sockets.bind(self._settings())
        self.addresses = self._transports.start()
        self._push("transports", self._transports.drain)
        self._push("streams", self._door.streams.stop)

    def _start_tickers(self) -> None:
        reactor, connections = self._reactor, self._connections
        memory = MemoryTask(lambda: connections.ended, self._defer)
        self._tickers = [
            *self._storage.make_tickers(reactor, self._defer),
            *self._authentication.tickers(),
            *self._transports.tickers(reactor),
            Ticker("memory", reactor, MEMORY_INTERVAL, memory.run),
            Ticker("logs", reactor, LOG_SECONDS, self._writers.look),
            Ticker("trails", reactor, LOG_SECONDS, self._trails.tell),
        ]
        if self._certificates.all:
            look = partial(self._defer, self._certificates.look)
            self._tickers.append(Ticker("certificates", reactor, CERTIFICATE_SECONDS, look))
        for ticker in self._tickers:
            ticker.startService()
            self._push(f"{ticker.name} task", ticker.stopService)

    def _prepare_stop(self) -> None:
        """All parts run. What is pushed last is undone first, so stopping begins with this."""
        self._push("administration", self._server_commands.stop)
        self._push("health", partial(self._storage.health.fail, "server", "the server is stopping"))

    def _follow_configuration(self) -> None:
        self._config.subscribe(self._apply)
        self._config.audit = self._trails.operator
        self._config.rehearse = Rehearsal(
            self._settings,
            _try_engine,
            self._storage.check_folders,
            is_persistent=is_persistent,
            gave_up_root=self._sockets.user != os.geteuid(),
        )

    def _folders(self) -> dict[str, str]:
        """Folders and files in use that other users should not read, by their configuration key or option."""
        settings = self._settings()
        folders = {"logging.directory": settings.logging.directory, "--runtime-config": self._config.runtime_path}
        if is_persistent(settings.storage.engine):
            folders["rocksdb.path"] = settings.rocksdb.path
            folders["value.disk_path"] = settings.value.disk_path
            folders["backup.path"] = settings.backup.path
        return {name: path for name, path in folders.items() if path}

    # What follows the configuration, and what is told.

    def _apply(self, old: Settings, new: Settings) -> None:
        """A change was accepted; called on the thread that made it."""
        self._storage.apply(new)
        self._door.limits = _limits(new)
        self._authentication.apply(new)
        self._reactor.callFromThread(self._retune)

    def _retune(self) -> None:
        for ticker in self._tickers:
            ticker.retune()
        self._transports.retune()

    def _show(self) -> None:
        """Register the metrics that read what the parts count."""
        metrics, admission, door, storage = self._metrics, self._admission, self._door, self._storage
        connections, authentication = self._connections, self._authentication
        metrics.show(catalogue.IN_FLIGHT_REQUESTS, lambda: admission.in_flight)
        metrics.show(catalogue.POOL_QUEUE_DEPTH, lambda: door.waiting)
        metrics.show(catalogue.IN_FLIGHT_BYTES, lambda: admission.bytes)
        metrics.show(catalogue.OVERLOADED, lambda: admission.refused)
        metrics.show(catalogue.CONDITIONS_FAILED, lambda: door.failed_conditions.value)
        metrics.show(catalogue.OVERDUE, lambda: door.overdue.value + admission.overdue.value)
        metrics.count_hot_gets(lambda: door.hot_gets.value)
        metrics.show(catalogue.CACHE_HITS, lambda: storage.store.cache_hits + door.hot_gets.value)
        metrics.show(catalogue.CONNECTIONS_MADE_WAY, lambda: connections.made_way)
        watchers, scans = door.streams.slots[Watch.capability], door.streams.slots[ScanStream.capability]
        metrics.show(catalogue.WATCHERS, lambda: watchers.open)
        metrics.show(catalogue.WATCH_EVENTS, lambda: self._backend.events_told)
        metrics.show(catalogue.WATCH_HISTORY_BYTES, lambda: storage.store.writer.commits.history.bytes)
        metrics.show(catalogue.STREAMS, lambda: scans.open, kind="scan_stream")
        for kind, slots in (("watcher", watchers), ("scan_stream", scans)):
            metrics.show(catalogue.STREAMS_REFUSED, partial(getattr, slots, "refused"), kind=kind)
        authentication.show(metrics)
        self._transports.show(metrics)
        for certificates in self._certificates.all:
            expiry = partial(getattr, certificates, "expiry")
            metrics.show(catalogue.CERTIFICATE_EXPIRY, expiry, listener=certificates.files.listener)
        for label, writer in self._writers.all.items():
            metrics.show(catalogue.LOG_LINES_DROPPED, partial(getattr, writer, "dropped"), log=label)
            metrics.show(catalogue.LOG_LINES_WAITING, partial(getattr, writer, "waiting"), log=label)
            metrics.show(catalogue.LOG_STUCK, partial(getattr, writer, "stuck"), log=label)
        metrics.show(
            catalogue.BUILD_INFO,
            lambda: 1,
            version=__version__,
            engine=self._engine.version,
            python=platform.python_version(),
            twisted=twisted.__version__,
            grpcio=version("grpcio"),
        )

    def _announce(self) -> None:
        warn_of_open_folders(self._folders())
        engine = self._engine
        if isinstance(engine, HasOptions):
            _log.info("rocksdb.options in force: {options}", options=json.dumps(engine.effective_options()))
        if not engine.is_persistent:
            _log.warn(
                "storage.engine is {engine}: nothing is written to disk, all is lost when the server stops",
                engine=engine.name,
            )
        _log.info(
            "kvtwisted {version} with {engine}, data in {path}",
            version=__version__, engine=engine.version, path=os.path.abspath(self._settings().rocksdb.path),
        )  # fmt: skip
        self._transports.announce()


def _limits(settings: Settings) -> Limits:
    return Limits(settings.limits.max_batch_keys, settings.limits.max_request_bytes)


def _try_engine(name: str, path: str, options: EngineOptions) -> None:
    open_engine(name, path, options).close()
