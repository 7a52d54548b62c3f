"""Health of the assembled server, on both interfaces, while its storage is busy, hangs, or stops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_twisted
from grpc_health.v1 import health_pb2, health_pb2_grpc
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.python.threadpool import ThreadPool

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.metadata import Metadata
from kvtwisted.config.manager import ConfigManager
from kvtwisted.observability import health_checks
from kvtwisted.server import assembly
from kvtwisted.server.assembly import Server

from ..e2e.clients import Answer, Http
from ..rpc.support import PATIENCE, Hold
from ..support.engines import FaultyEngine

OK = Answer(200, {}, {"status": "ok"})


class Running:
    """A server that is started, and clients in threads."""

    def __init__(self, server: Server, engine: FaultyEngine) -> None:
        self.server = server
        self.engine = engine
        assert server.addresses is not None
        (host, http), (_, rpc) = server.addresses
        self._http, self._rpc = f"{host}:{http}", f"{host}:{rpc}"

    def get(self, path: str) -> Deferred[Answer]:
        """The answer to a GET over a connection of its own, without its headers."""

        def get() -> Answer:
            with Http(self._http) as http:
                return http.get(path)._replace(headers={})

        return deferToThread(get)

    def health(self) -> Deferred[Answer]:
        """The answer over HTTP."""
        return self.get("/api/v1/health")

    def check(self) -> Deferred[str]:
        """The status over gRPC, by its name."""

        def check() -> str:
            with grpc.insecure_channel(self._rpc) as channel:
                request = health_pb2.HealthCheckRequest()
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE)
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

        return deferToThread(check)


@pytest.fixture(params=["native", "threaded"])
def config(tmp_path: Path, request: pytest.FixtureRequest) -> ConfigManager:
    """A server that keeps nothing, with one thread for requests, which waits for nobody when it stops."""
    flags = {
        "--storage-engine": "memory",
        "--http-port": "0",
        "--grpc-port": "0",
        "--logging-directory": "",
        "--storage-threads": "1",
        "--limits-shutdown-grace": "0",
        "--grpc-transport": request.param,
    }
    return ConfigManager.load(None, {}, flags, str(tmp_path / "runtime.json"))


@asynccontextmanager
async def running(config: ConfigManager, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """A server, stopped in the end unless it was."""
    engines: list[FaultyEngine] = []

    def open_recorded(*arguments: Any) -> FaultyEngine:
        engines.append(FaultyEngine(open_engine(*arguments)))
        engines[-1].slow = True
        return engines[-1]

    monkeypatch.setattr(assembly, "open_engine", open_recorded)
    server = Server(reactor, config)
    server.startService()
    try:
        yield Running(server, engines[0])
    finally:
        if server.running:
            await server.stopService()


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    """Each health check's read hangs there until it is released."""
    hold = Hold()
    monkeypatch.setattr(Metadata, "check", lambda metadata: hold())
    yield hold
    hold.release()


@pytest_twisted.ensureDeferred
async def test_a_busy_pool(config: ConfigManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind one scan that does not end others wait; health does not, on either interface."""
    async with running(config, monkeypatch) as server:
        hold = Hold()
        server.engine.before("scan", hold)
        scans = [server.get("/api/v1/scan") for _ in range(5)]
        await deferToThread(hold.reached)
        for _ in range(3):
            assert await server.health() == OK
            assert await server.check() == "SERVING"
        assert not any(scan.called for scan in scans)
        hold.release()
        assert [answer.status for answer in await gatherResults(scans)] == [200] * 5


@pytest_twisted.ensureDeferred
async def test_a_storage_that_hangs(config: ConfigManager, monkeypatch: pytest.MonkeyPatch, hung: Hold) -> None:
    """Both interfaces say so, each time, when the time is up, and that all is well when it is."""
    async with running(config, monkeypatch) as server:
        monkeypatch.setattr(health_checks, "HEALTH_TIMEOUT", 0.5)
        for _ in range(2):
            reason = "the storage does not answer: nothing for 0.5 s"
            assert await server.health() == Answer(503, {}, {"status": "unavailable", "reason": reason})
            assert await server.check() == "NOT_SERVING"
        monkeypatch.setattr(health_checks, "HEALTH_TIMEOUT", PATIENCE)
        hung.release()
        assert await server.health() == OK
        assert await server.check() == "SERVING"


@pytest_twisted.ensureDeferred
async def test_stop_while_a_check_runs(config: ConfigManager, monkeypatch: pytest.MonkeyPatch, hung: Hold) -> None:
    """The storage is closed when the check has ended, and not before; the clients' connections end."""
    ended: list[str] = []
    stop = ThreadPool.stop

    def release_and_stop(pool: ThreadPool) -> None:
        # The reactor's thread waits here for the check.
        if pool.name == "kvtwisted-health":
            ended.append("pool")
            hung.release()
        stop(pool)

    monkeypatch.setattr(ThreadPool, "stop", release_and_stop)
    monkeypatch.setattr(Metadata, "check", lambda metadata: (hung(), ended.append("check")))
    async with running(config, monkeypatch) as server:
        server.engine.after("close", lambda: ended.append("engine"))
        health = server.health()
        outcomes: list[object] = []
        health.addBoth(outcomes.append)
        await deferToThread(hung.reached)
        await server.server.stopService()
        assert ended == ["pool", "check", "engine"]
        await health
        assert len(outcomes) == 1
