"""The one place that knows everything: builds the server's parts, starts them in order and stops them in reverse.

The data flow: a request reaches a transport (`http`, `rpc`), which decodes it and calls `core.operations` (over the
Deferred facade when it comes from the reactor); `core.store` turns it into records and batches; an engine stores them.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any, Callable, NamedTuple

from prometheus_client import CollectorRegistry
from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger, globalLogPublisher
from twisted.python.threadpool import ThreadPool

import twisted

from . import __version__
from .background.performance import NAMESPACE
from .background.ticker import Ticker
from .config.manager import ConfigManager
from .config.settings import Settings
from .core.admission import Admission
from .core.disk import disk_usage
from .core.engine import Engine
from .core.errors import Unavailable
from .core.options import EngineOptions
from .core.space import fitted, lowered
from .engines import open_engine
from .http.bodies import body_limit
from .http.deadlines import Patience
from .http.site import HttpOptions, KvSite, make_site
from .lifecycle import Unwinding, make_folder
from .logs import LogFiles
from .metrics import CONTENT_TYPE, Metrics
from .rpc.listening import joined
from .rpc.native.server import NativeGrpcServer
from .rpc.options import GrpcOptions
from .rpc.threaded_server import ThreadedGrpcServer
from .security.connections import Connections, descriptors, room, table_files
from .storage import Storage
from .threaded.administration import THREADS as ADMINISTRATION_THREADS
from .threaded.administration import Administration
from .threaded.facade import AsyncOperations
from .threaded.memory import give_back

#: Threads of the background tasks, one for each: the log's fsync must not wait for a long compaction.
BACKGROUND_THREADS = 5
#: Connections that the kernel keeps until they are accepted. With Twisted's 50 a crowd that comes at once makes others
#: wait for seconds, until they try again.
BACKLOG = 1024

_log = Logger(namespace="kvtwisted")


class Addresses(NamedTuple):
    """Where a started server listens: host and port of each interface."""

    http: tuple[str, int]
    grpc: tuple[str, int]


class GrpcServer(NamedTuple):
    """A gRPC server of either transport: what starts it and returns the port, what stops it within a grace in seconds,
    and what counts its connections, if it can.
    """

    start: Callable[[], int]
    stop: Callable[[float], Deferred[Any]]
    connections: Callable[[], int] | None = None


class Server(Service):
    """The whole server as one service. Construction opens nothing, since twistd forks after it. Reactor thread."""

    def __init__(self, reactor: Any, config: ConfigManager) -> None:
        self.setName("kvtwisted")
        self._reactor = reactor
        self._config = config
        self._unwinding = Unwinding()
        self._tickers: list[Ticker] = []
        #: None until started.
        self.addresses: Addresses | None = None

    @property
    def _settings(self) -> Settings:
        """The settings in force."""
        return self._config.running

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

    def _start(self) -> None:
        push = self._unwinding.push
        logs = LogFiles(globalLogPublisher, lambda: self._settings.logging, NAMESPACE)
        push("logs", logs.close)
        logs.open()
        engine = self._open_engine()
        push("engine", engine.close)
        background = self._start_pool("background", BACKGROUND_THREADS)
        requests = self._start_pool("requests", self._settings.storage.threads)

        metrics = Metrics(CollectorRegistry())
        storage = Storage(engine, lambda: self._settings, self._config, metrics)
        push("storage", storage.close)
        admission = Admission(self._settings.limits.max_in_flight)
        push("admission", admission.close)
        facade = AsyncOperations(self._reactor, requests, storage.operations, admission)
        administration = self._make_administration(storage)
        connections = self._make_connections(metrics)
        site = self._make_site(facade, administration, metrics, connections)
        grpc_server = self._make_grpc_server(storage, facade, admission, connections)
        self.addresses = self._start_transports(site, grpc_server)
        self._start_tickers(storage.make_tickers(self._reactor, partial(deferToThreadPool, self._reactor, background)))
        push("administration", administration.stop)
        push("health", lambda: storage.health.fail("server", "the server is stopping"))
        self._watch(metrics, engine, admission, facade, site, grpc_server)
        self._config.subscribe(lambda _, new: self._apply(new, storage))
        self._announce(engine, self.addresses)

    def _open_engine(self) -> Engine:
        settings = self._settings
        if settings.storage.engine != "memory":
            make_folder("rocksdb.path", settings.rocksdb.path)
            options = fitted(settings.rocksdb.options, disk_usage(settings.rocksdb.path).total)
            if lower := lowered(settings.rocksdb.options, options):
                _log.info("rocksdb.options lowered to what the disk can bear: {lower}", lower=json.dumps(lower))
            options = self._with_descriptors(options)
        else:
            options = settings.rocksdb.options
        return open_engine(settings.storage.engine, settings.rocksdb.path, options)

    def _start_pool(self, name: str, threads: int) -> ThreadPool:
        pool = ThreadPool(minthreads=0, maxthreads=threads, name=f"kvtwisted-{name}")
        pool.start()
        # Waits for the jobs that run: RocksDB cannot be closed under them.
        self._unwinding.push(f"{name} pool", pool.stop)
        return pool

    # The limits.

    def _with_descriptors(self, options: EngineOptions) -> EngineOptions:
        limit = descriptors()
        files = table_files(options.max_open_files, limit)
        if files == options.max_open_files:
            return options
        _log.info("rocksdb.options.max_open_files lowered to {files}: {limit} descriptors", files=files, limit=limit)
        return replace(options, max_open_files=files)

    def _make_connections(self, metrics: Metrics) -> Connections:
        settings = self._settings
        limit = descriptors()
        free = room(settings.rocksdb.options.max_open_files, limit)
        if settings.limits.max_connections > free:
            _log.warn(
                "limits.max_connections is {configured}, but of {limit} file descriptors (ulimit -n) only {free} are "
                "left for connections: without any RocksDB cannot write",
                configured=settings.limits.max_connections, limit=limit, free=free,
            )  # fmt: skip
        return Connections(
            lambda: self._settings.limits.max_connections,
            lambda: self._settings.limits.max_connections_per_address,
            free,
            metrics.connection_refused,
        )

    # The transports.

    def _make_administration(self, storage: Storage) -> Administration:
        return Administration(
            self._reactor,
            self._start_pool("administration", ADMINISTRATION_THREADS),
            backups=storage.backups,
            plan_eviction=storage.plan_eviction,
            collect_orphans=storage.collect_orphans,
            on_disk=self._settings.storage.engine != "memory",
        )

    def _make_site(
        self, facade: AsyncOperations, administration: Administration, metrics: Metrics, connections: Connections
    ) -> KvSite:
        settings = self._settings
        options = HttpOptions(
            max_body_bytes=body_limit(settings.limits.max_request_bytes),
            idle_timeout=settings.http.idle_timeout,
            patience=Patience(settings.http.header_timeout, settings.http.body_timeout, settings.http.send_timeout),
            metrics_path=settings.monitoring.metrics_path,
            health_path=settings.monitoring.health_path,
            fast_lane=settings.http.fast_lane,
        )
        return make_site(
            facade,
            administration,
            reactor=self._reactor,
            options=options,
            metrics_text=(lambda: (CONTENT_TYPE, metrics.text())) if settings.monitoring.enabled else None,
            max_response_bytes=lambda: self._settings.http.max_response_bytes,
            request_timeout=lambda: self._settings.limits.request_timeout,
            connections=connections,
            give_back=lambda: self._reactor.callInThread(give_back),
        )

    def _make_grpc_server(
        self, storage: Storage, facade: AsyncOperations, admission: Admission, connections: Connections
    ) -> GrpcServer:
        settings = self._settings
        options = GrpcOptions(
            host=settings.grpc.host,
            port=settings.grpc.port,
            threads=settings.grpc.threads,
            max_in_flight=settings.limits.max_in_flight,
            max_request_bytes=settings.limits.max_request_bytes,
            certificate=settings.grpc.tls_certificate,
            private_key=settings.grpc.tls_private_key,
        )
        limits: dict[str, Any] = {
            "max_response_bytes": lambda: self._settings.grpc.max_response_bytes,
            "request_timeout": lambda: self._settings.limits.request_timeout,
        }
        if settings.grpc.transport == "native":
            native = NativeGrpcServer(
                self._reactor, storage.operations, facade.work, admission, storage.health, options, **limits,
                connections=connections,
            )  # fmt: skip
            return GrpcServer(native.start, native.stop, lambda: native.connections)
        threaded = ThreadedGrpcServer(storage.operations, admission, storage.health, options, **limits)
        threads = self._reactor.getThreadPool()
        return GrpcServer(threaded.start, lambda grace: deferToThreadPool(self._reactor, threads, threaded.stop, grace))

    def _start_transports(self, site: KvSite, grpc_server: GrpcServer) -> Addresses:
        host = self._settings.http.host
        try:
            port = self._reactor.listenTCP(self._settings.http.port, site, BACKLOG, host)
        except CannotListenError as error:
            raise Unavailable(f"http: cannot listen on {host}:{error.port}: {error.socketError.strerror}") from None
        try:
            grpc_port = grpc_server.start()
        except BaseException:
            port.stopListening()  # at once: nothing has been accepted before the reactor runs
            raise
        self._unwinding.push("transports", lambda: self._drain(port, site, grpc_server))
        return Addresses((host, port.getHost().port), (self._settings.grpc.host, grpc_port))

    def _drain(self, port: Any, site: KvSite, grpc_server: GrpcServer) -> Deferred[Any]:
        grace = self._settings.limits.shutdown_grace
        grpc_stopped = grpc_server.stop(grace)
        http_stopped: Deferred[Any] = maybeDeferred(port.stopListening)
        return gatherResults([http_stopped, site.drain(grace), grpc_stopped], consumeErrors=True)

    # The periodic tasks, and what follows the configuration.

    def _start_tickers(self, tickers: list[Ticker]) -> None:
        self._tickers = tickers
        for ticker in tickers:
            ticker.startService()
            self._unwinding.push(f"{ticker.name} task", ticker.stopService)

    def _apply(self, new: Settings, storage: Storage) -> None:
        """A change was accepted; called on the thread that made it."""
        storage.apply(new)
        self._reactor.callFromThread(self._retune)

    def _retune(self) -> None:
        for ticker in self._tickers:
            ticker.retune()

    def _watch(
        self,
        metrics: Metrics,
        engine: Engine,
        admission: Admission,
        facade: AsyncOperations,
        site: KvSite,
        grpc_server: GrpcServer,
    ) -> None:
        metrics.watch("kv_in_flight_requests", "Requests being worked on or waiting.", lambda: admission.in_flight)
        metrics.watch(
            "kv_pool_queue_depth", "Work of requests that waits for a storage thread.", lambda: facade.queue_depth
        )
        metrics.watch("kv_connections", "Open connections.", lambda: site.connections, transport="http")
        if grpc_server.connections is not None:
            metrics.watch("kv_connections", "Open connections.", grpc_server.connections, transport="grpc")
        metrics.build_info(
            version=__version__,
            engine=engine.version,
            python=platform.python_version(),
            twisted=twisted.__version__,
            grpcio=version("grpcio"),
        )

    def _announce(self, engine: Engine, addresses: Addresses) -> None:
        _log.info("rocksdb.options in force: {options}", options=json.dumps(engine.effective_options()))
        if self._settings.storage.engine == "memory":
            _log.warn("storage.engine is memory: nothing is written to disk, all is lost when the server stops")
        _log.info(
            "kvtwisted {version} with {engine}, data in {path}",
            version=__version__, engine=engine.version, path=os.path.abspath(self._settings.rocksdb.path),
        )  # fmt: skip
        _log.info("HTTP on http://{address}", address=joined(*addresses.http))
        _log.info("gRPC on {address}", address=joined(*addresses.grpc))
