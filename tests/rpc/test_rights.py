"""The table against what is really served: every RPC has its entry, and no entry is stale."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import reactor
from twisted.python.threadpool import ThreadPool

from kvtwisted.config.settings import Settings
from kvtwisted.core.health import Health
from kvtwisted.observability.health_checks import HealthChecks
from kvtwisted.rpc.calls import Terms
from kvtwisted.rpc.grpcio.calls import ThreadedCalls
from kvtwisted.rpc.grpcio.handlers import Handlers
from kvtwisted.rpc.grpcio.streams import ThreadedStreams
from kvtwisted.rpc.http2.server import NativeGrpcServer
from kvtwisted.rpc.rights import RPCS, rpc_requirement
from kvtwisted.sessions import policy
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.gate import Gate, Visitor
from kvtwisted.sessions.grants import OPERATIONS
from kvtwisted.sessions.threads import FromThreads

from ..docs.pages import ROOT, tables
from ..support.doors import Doorway


@pytest.fixture
def parts() -> tuple[Door, Gate, Health, dict[str, Any]]:
    """What both gRPC servers are made of."""
    doorway = Doorway()
    checks = HealthChecks(reactor, ThreadPool(0, 1), doorway.door.health)
    limits = {"terms": Terms(1 << 23, 1 << 22, 30.0, 10_000), "checks": checks}
    return doorway.door, Gate(doorway.door, Admission(10)), doorway.health, limits


def test_every_rpc_of_the_native_server(parts: Any) -> None:
    """All paths that it routes, and no other."""
    door, gate, health, limits = parts
    server = NativeGrpcServer(reactor, gate, door, ThreadPool(0, 1), health, Settings(), **limits)
    assert {path.decode() for path in server.enter(Visitor(""), b"")} == RPCS.keys()


def test_every_rpc_of_the_threaded_server(parts: Any) -> None:
    """The same."""
    _, gate, _, limits = parts
    calls = ThreadedCalls(limits["terms"], FromThreads(reactor))
    others: Any = [*[None] * 4, ThreadedStreams(reactor, limits["terms"], 4)]
    assert Handlers(gate, calls, limits["checks"], *others)._handlers.keys() == RPCS.keys()


def test_every_requirement_is_one() -> None:
    """An operation, or one of the words; for nobody is only what is not in the table."""
    assert set(RPCS.values()) <= {policy.PUBLIC, policy.AUTHENTICATED, *OPERATIONS}
    assert rpc_requirement("/kv.v1.KeyValueService/Drop") == policy.NOBODY


def test_public_is_health_alone() -> None:
    """Nothing else is to be had without a token."""
    public = [path for path, needed in RPCS.items() if needed == policy.PUBLIC]
    assert public == ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"]


def test_the_page_has_the_other_services() -> None:
    """docs/security.md: what health and reflection require; docs/grpc-api.md has the methods."""
    others = {path: needed for path, needed in RPCS.items() if "KeyValue" not in path}
    rows = tables(ROOT / "docs" / "security.md", "RPC")
    assert {row[0].strip("`"): row[1].strip("`") for row in rows} == others
