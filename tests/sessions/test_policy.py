"""The table against what is really served: every RPC and route has its entry, and no entry is stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.python.threadpool import ThreadPool

from kvtwisted.core.errors import PermissionDenied, Unauthenticated
from kvtwisted.core.health import Health
from kvtwisted.http.routes import ROUTES
from kvtwisted.observability.health_checks import HealthChecks
from kvtwisted.reactor.fair_pool import FairPool
from kvtwisted.rpc import pipeline
from kvtwisted.rpc.grpcio.server import ThreadedGrpcServer
from kvtwisted.rpc.http2.server import NativeGrpcServer
from kvtwisted.rpc.options import GrpcOptions
from kvtwisted.sessions import policy
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.gate import OpenGate, Visitor
from kvtwisted.sessions.grants import OPERATIONS, Principal

from ..docs.pages import ROOT, tables
from ..support.doors import Doorway
from .support import grant


@pytest.fixture
def parts() -> tuple[Door, OpenGate, Health, dict[str, Any]]:
    """What both gRPC servers are made of."""
    doorway = Doorway()
    checks = HealthChecks(reactor, ThreadPool(0, 1), doorway.door.health)
    limits = {
        "max_response_bytes": lambda: 1 << 22, "request_timeout": lambda: 30.0, "max_batch_keys": lambda: 10_000,
        "checks": checks,
    }  # fmt: skip
    return doorway.door, OpenGate(doorway.door, Admission(10)), doorway.health, limits


OPTIONS = GrpcOptions(host="127.0.0.1", port=0, threads=2, max_in_flight=10, max_request_bytes=1 << 23)


def test_every_rpc_of_the_native_server(parts: Any) -> None:
    """All paths that it routes, and no other."""
    door, gate, health, limits = parts
    server = NativeGrpcServer(reactor, gate, door, FairPool(reactor, ThreadPool(0, 1)), health, OPTIONS, **limits)
    assert {path.decode() for path in server.enter(Visitor(""), b"")} == policy.RPCS.keys()


def test_every_rpc_of_the_threaded_server(parts: Any) -> None:
    """The same."""
    _, gate, health, limits = parts
    server = ThreadedGrpcServer(reactor, gate, health, OPTIONS, **limits)
    server.start()
    try:
        running: Any = server._running
        assert running._handlers._handlers.keys() == policy.RPCS.keys()
    finally:
        server.stop(0)


def test_every_operation_of_pipelines() -> None:
    """Each needs what its method needs."""
    assert policy.PIPELINE.keys() == pipeline.METHODS_BY_FIELD.keys()
    for field, method in pipeline.METHODS_BY_FIELD.items():
        assert policy.PIPELINE[field] == policy.rpc_requirement(f"/kv.v1.KeyValueService/{method.name}")


def test_every_requirement_is_one() -> None:
    """An operation, or one of the words; for nobody is only what is not in the table."""
    assert {*policy.RPCS.values(), *[route.requirement for route in ROUTES]} <= {
        policy.PUBLIC,
        policy.AUTHENTICATED,
        *OPERATIONS,
    }
    assert policy.rpc_requirement("/kv.v1.KeyValueService/Drop") == policy.NOBODY


def test_public_is_health_alone() -> None:
    """Nothing else is to be had without a token."""
    public = [path for path, needed in policy.RPCS.items() if needed == policy.PUBLIC]
    assert public == ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"]
    assert [route.name for route in ROUTES if route.requirement == policy.PUBLIC] == ["health"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_admit(operation: str) -> None:
    """Whoever may do it somewhere passes; others are told whether it is the token or the right that is missing."""
    able, other = Principal("a", [grant(operation)]), Principal("b", [])
    policy.admit(operation, able)
    with pytest.raises(PermissionDenied):
        policy.admit(operation, other)
    with pytest.raises(Unauthenticated, match="a token is required"):
        policy.admit(operation, None)
    for anybody in (able, other, None):
        policy.admit(policy.PUBLIC, anybody)
    policy.admit(policy.AUTHENTICATED, other)
    with pytest.raises(Unauthenticated):
        policy.admit(policy.AUTHENTICATED, None)
    with pytest.raises(PermissionDenied):
        policy.admit(policy.NOBODY, able)
    with pytest.raises(Unauthenticated):
        policy.admit(policy.NOBODY, None)


def test_a_prefix_passes_at_the_door() -> None:
    """Which keys is looked at later, when they are known."""
    policy.admit("get", Principal("a", [grant("get", b"x/")]))


def test_the_page_has_the_table() -> None:
    """docs/security.md: each RPC and each route with what it requires."""
    page: Path = ROOT / "docs" / "security.md"
    rpcs = {row[0].strip("`"): row[1].strip("`") for row in tables(page, "RPC")}
    named = {path.rpartition("/")[2] if "KeyValue" in path else path: needed for path, needed in policy.RPCS.items()}
    assert rpcs == named
    assert {row[0].strip("`"): row[1].strip("`") for row in tables(page, "route")} == {
        route.name: route.requirement for route in ROUTES
    }
