"""Limits of bytes reach both transports, at the start and while they run, and what the transports count shows."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor
from twisted.internet.task import deferLater

from kvtwisted.config.manager import ConfigManager
from kvtwisted.core.errors import InvalidConfig, Overloaded
from kvtwisted.http.deadlines import REASONS, ByteLimits
from kvtwisted.http.refusing import REASONS as WHY_REFUSED
from kvtwisted.observability.metrics import Metrics
from kvtwisted.rpc.http2 import lifetime
from kvtwisted.rpc.stream_slots import MAX_REFLECTION_STREAMS
from kvtwisted.server import assembly
from kvtwisted.server.assembly import Server
from kvtwisted.server.transports import Transports

from ..rpc.support import logged

MIB = 1 << 20
FLAGS = {"--storage-engine": "memory", "--http-port": "0", "--grpc-port": "0", "--logging-directory": ""}


class Started:
    """A server in this process, with its configuration, transports and metrics."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.config = ConfigManager.load(None, environ, FLAGS, str(folder / "runtime.json"))
        made: list[Metrics] = []
        parts: list[Transports] = []

        def metrics(*arguments: Any) -> Metrics:
            made.append(Metrics(*arguments))
            return made[-1]

        def transports(*arguments: Any) -> Transports:
            parts.append(Transports(*arguments))
            return parts[-1]

        with mock.patch.object(assembly, "Metrics", metrics), mock.patch.object(assembly, "Transports", transports):
            self.server = Server(reactor, self.config)
            self.server.startService()
        (self.metrics,), (self.transports,) = made, parts

    @property
    def http(self) -> ByteLimits:
        """What HTTP goes by."""
        return self.transports.http.site.deadlines.limits

    @property
    def grpc(self) -> tuple[int, int]:
        """What native gRPC goes by: bytes that may be promised, and bytes of answers that may wait."""
        native = self.transports.grpc.native
        assert native is not None
        return native.budget.capacity, native.backlog.limit

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """A metric's values by those of its labels, in the order of their names."""
        families = text_string_to_metric_families(self.metrics.text().decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return {tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in samples}


@pytest_twisted.inlineCallbacks
def test_limits_of_bytes(tmp_path: Path) -> Generator[Any, Any, None]:
    """The defaults are those of the transports themselves; a change holds from the next turn of the reactor on."""
    started = Started(tmp_path)
    try:
        assert started.http == ByteLimits()
        assert started.grpc == (128 * MIB, 256 * MIB)
        change = {
            "limits": {"max_unfinished_bytes": 64 * MIB, "max_unsent_bytes": 48 * MIB},
            "security": {"unauthenticated_body_bytes": 1000},
        }
        assert started.config.update(change) == []
        yield deferLater(reactor, 0)
        assert started.http == ByteLimits(64 * MIB, 48 * MIB, 1000)
        assert started.grpc == (32 * MIB, 48 * MIB)
    finally:
        yield started.server.stopService()


@pytest.mark.parametrize("failing", ["http", "grpc"])
@pytest_twisted.inlineCallbacks
def test_one_transport_does_not_keep_limits_from_the_other(tmp_path: Path, failing: str) -> Generator[Any, Any, None]:
    """A defect in one of them is logged, and is that one's alone."""
    started = Started(tmp_path)
    try:
        transports = started.transports
        part: Any = transports.http.site.deadlines if failing == "http" else transports.grpc.native
        with logged() as events, mock.patch.object(part, "retune", side_effect=ZeroDivisionError):
            started.config.update({"limits.max_unfinished_bytes": 64 * MIB})
            yield deferLater(reactor, 0)
        assert [event["log_failure"].type for event in events if "log_failure" in event] == [ZeroDivisionError]
        if failing == "http":
            assert (started.http.unfinished, started.grpc[0]) == (256 * MIB, 32 * MIB)
        else:
            assert (started.http.unfinished, started.grpc[0]) == (64 * MIB, 128 * MIB)
    finally:
        yield started.server.stopService()


@pytest_twisted.inlineCallbacks
def test_limits_of_bytes_at_the_start(tmp_path: Path) -> Generator[Any, Any, None]:
    """What is configured then holds from the beginning."""
    started = Started(
        tmp_path,
        KV_LIMITS_MAX_UNFINISHED_BYTES=str(50 * MIB),
        KV_LIMITS_MAX_UNSENT_BYTES=str(40 * MIB),
        KV_SECURITY_UNAUTHENTICATED_BODY_BYTES="0",
    )
    try:
        assert started.http == ByteLimits(50 * MIB, 40 * MIB, 0)
        assert started.grpc == (25 * MIB, 40 * MIB)
    finally:
        yield started.server.stopService()


@pytest_twisted.inlineCallbacks
def test_with_the_threaded_transport(tmp_path: Path) -> Generator[Any, Any, None]:
    """A change reaches HTTP; of grpcio's connections nothing is shown."""
    started = Started(tmp_path, KV_GRPC_TRANSPORT="threaded")
    try:
        started.config.update({"limits.max_unsent_bytes": 48 * MIB})
        yield deferLater(reactor, 0)
        assert started.http.unsent == 48 * MIB
        assert started.values("kv_unsent_answer_bytes") == {("http",): 0}
        assert {transport for _, transport in started.values("kv_cut_off_total")} == {"http"}
    finally:
        yield started.server.stopService()


@pytest_twisted.inlineCallbacks
def test_what_is_counted_shows(tmp_path: Path) -> Generator[Any, Any, None]:
    """Each figure under its own name and labels, all of them from the start on."""
    started = Started(tmp_path)
    try:
        deadlines, native = started.transports.http.site.deadlines, started.transports.grpc.native
        assert native is not None
        cut = dict.fromkeys([(reason, "http") for reason in REASONS], 0)
        cut |= dict.fromkeys([(reason, "grpc") for reason in lifetime.REASONS], 0)
        assert started.values("kv_cut_off_total") == cut
        for number, (reason, transport) in enumerate(cut):
            (deadlines if transport == "http" else native).cut_off[reason] = cut[reason, transport] = number
        deadlines.refused, native.budget.refused = 7, 8
        deadlines.hold(mock.Mock(), 1000)
        native.backlog.queued.bytes += 30
        assert started.values("kv_cut_off_total") == cut
        assert started.values("kv_http_refused_total") == dict.fromkeys([(reason,) for reason in WHY_REFUSED], 0)
        started.transports.http.site.refused["slow"] = 9
        assert started.values("kv_http_refused_total")[("slow",)] == 9
        assert started.values("kv_unfinished_refused_total") == {("http",): 7, ("grpc",): 8}
        assert started.values("kv_unfinished_request_bytes") == {("http",): 1000, ("grpc",): 0}
        assert started.values("kv_unsent_answer_bytes") == {("http",): 0, ("grpc",): 30}
    finally:
        yield started.server.stopService()


@pytest_twisted.inlineCallbacks
@pytest.mark.parametrize(("transport", "pipelines"), [("native", 7), ("threaded", 2)])
def test_streams(tmp_path: Path, transport: str, pipelines: int) -> Generator[Any, Any, None]:
    """What is configured holds (half of grpc.threads where that is less), and what is open and refused shows."""
    started = Started(
        tmp_path,
        KV_GRPC_TRANSPORT=transport,
        KV_GRPC_THREADS="4",
        KV_LIMITS_MAX_PIPELINES="7",
        KV_LIMITS_MAX_WATCHES="3",
    )
    try:
        expected = {}
        for number, (kind, slots) in enumerate(started.transports.grpc.slots._asdict().items()):
            capacity = {"pipeline": pipelines, "watch": 3, "reflection": MAX_REFLECTION_STREAMS}[kind]
            for _ in range(capacity):
                slots.enter()
            for _ in range(number):
                with pytest.raises(Overloaded, match=f" is {capacity}; try again"):
                    slots.enter()
            slots.leave()
            expected[(kind,)] = (capacity - 1, number)
        open_streams, refused = started.values("kv_streams"), started.values("kv_streams_refused_total")
        assert {kind: (open_streams[kind], refused[kind]) for kind in expected} == expected
    finally:
        yield started.server.stopService()


@pytest.mark.parametrize("name", ["limits.max_unfinished_bytes", "limits.max_unsent_bytes"])
def test_what_does_not_fit_is_refused_at_run_time_too(tmp_path: Path, name: str) -> None:
    """Naming both keys; nothing has changed then."""
    config = ConfigManager.load(None, {}, FLAGS, str(tmp_path / "runtime.json"))
    with pytest.raises(InvalidConfig, match=f"{name} must be at least .* times .*max_re.*_bytes .*, not 26214400"):
        config.update({name: 25 * MIB})
    assert config.running.limits.max_unfinished_bytes == config.running.limits.max_unsent_bytes == 256 * MIB
