"""What the assembled server does with a change, and when it stops, over the memory engine in this process."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.logger import globalLogPublisher
from twisted.python.threadpool import ThreadPool

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.writer import Writer
from kvtwisted.config.manager import ConfigManager
from kvtwisted.core.errors import Unavailable
from kvtwisted.core.health import Health
from kvtwisted.server import assembly
from kvtwisted.server.assembly import Server

from ..support.certificates import Pair
from ..support.engines import FaultyEngine


@pytest.fixture
def config(tmp_path: Path) -> ConfigManager:
    """A configuration of a server that keeps nothing, on free ports."""
    flags = {"--storage-engine": "memory", "--http-port": "0", "--grpc-port": "0", "--logging-directory": ""}
    return ConfigManager.load(None, {}, flags, str(tmp_path / "runtime.json"))


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[FaultyEngine]:
    """The engines that servers open, which record their calls."""
    opened: list[FaultyEngine] = []

    def open_recorded(*arguments: Any) -> FaultyEngine:
        opened.append(FaultyEngine(open_engine(*arguments)))
        return opened[-1]

    monkeypatch.setattr(assembly, "open_engine", open_recorded)
    return opened


@pytest_twisted.inlineCallbacks
def test_durability_changes_while_the_server_runs(
    config: ConfigManager, engines: list[FaultyEngine]
) -> Generator[Any, Any, None]:
    """rocksdb.options.sync holds from the next write on."""
    writers: list[Writer] = []
    made = Writer.__init__

    def remember(writer: Writer, *arguments: Any, **named: Any) -> None:
        made(writer, *arguments, **named)
        writers.append(writer)

    with mock.patch.object(Writer, "__init__", remember):
        server = Server(reactor, config)
        server.startService()
    try:
        (writer,) = writers
        assert not writer.durable
        assert config.update({"rocksdb": {"options": {"sync": True}}}) == []
        assert writer.durable
        config.update({"rocksdb": {"options": {"sync": False}}})
        assert not writer.durable
    finally:
        yield server.stopService()
    assert engines[0].called("close") == [()]


@pytest_twisted.inlineCallbacks
def test_says_that_it_stops_before_anything_ends(
    config: ConfigManager, engines: list[FaultyEngine]
) -> Generator[Any, Any, None]:
    """Health fails first, while the transports still answer, so that load balancers turn away."""
    reasons: list[str | None] = []
    with mock.patch.object(Health, "fail", lambda health, condition, reason: reasons.append(reason)):
        server = Server(reactor, config)
        server.startService()
        assert server.addresses is not None
        yield server.stopService()
    assert reasons == ["the server is stopping"]


@pytest_twisted.inlineCallbacks
def test_certificates_are_reloaded(tmp_path: Path) -> Generator[Any, Any, None]:
    """On request, without a restart; one that is no good is left, and before the start nothing is read."""
    pair, other = Pair(tmp_path), Pair(tmp_path, "other")
    flags = {"--storage-engine": "memory", "--http-port": "0", "--grpc-port": "0", "--logging-directory": ""}
    for listener in ("grpc", "http"):
        flags[f"--{listener}-tls-certificate"] = pair.certificate
        flags[f"--{listener}-tls-private-key"] = pair.private_key
    server = Server(reactor, ConfigManager.load(None, {}, flags, str(tmp_path / "runtime.json")))
    assert (yield server.reload()) is None
    server.startService()
    try:
        Path(pair.certificate).write_bytes(other.chain)
        assert (yield server.reload())[-1] is False
        Path(pair.private_key).write_bytes(other.key_pem)
        assert (yield server.reload())[-1] is True
    finally:
        yield server.stopService()


@pytest_twisted.inlineCallbacks
def test_a_bad_certificate_stops_the_start(tmp_path: Path) -> Generator[Any, Any, None]:
    """Before anything else is opened."""
    pair = Pair(tmp_path)
    flags = {"--storage-engine": "memory", "--http-port": "0", "--grpc-port": "0", "--logging-directory": ""}
    flags |= {"--http-tls-certificate": pair.certificate, "--http-tls-private-key": "/no/file"}
    server = Server(reactor, ConfigManager.load(None, {}, flags, str(tmp_path / "runtime.json")))
    with mock.patch.object(assembly, "open_engine") as opening, pytest.raises(Unavailable) as refused:
        server.startService()
    assert str(refused.value) == "http.tls_private_key: /no/file: No such file or directory"
    assert not opening.called
    yield server.stopService()


@pytest_twisted.inlineCallbacks
def test_threads_that_cannot_be_started(
    config: ConfigManager, engines: list[FaultyEngine], monkeypatch: pytest.MonkeyPatch
) -> Generator[Any, Any, None]:
    """They are started with the server, which says so and does not start, rather than have a request wait for ever."""

    class Refused(threading.Thread):
        def start(self) -> None:
            """As where `ulimit -u` is reached."""
            if "requests" in self.name:
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(ThreadPool, "threadFactory", Refused)
    unclean: list[Any] = []
    observer = lambda event: unclean.append(event) if "log_failure" in event else None  # noqa: E731
    globalLogPublisher.addObserver(observer)
    server = Server(reactor, config)
    with pytest.raises(Unavailable) as refused:
        server.startService()
    assert str(refused.value) == "the threads for requests: can't start new thread (ulimit -u is their limit)"
    yield server.stopService()
    globalLogPublisher.removeObserver(observer)
    assert engines[0].called("close") == [()]
    assert unclean == []
