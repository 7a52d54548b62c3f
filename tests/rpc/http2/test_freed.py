"""Connections that have ended leave no cycles of references: their memory does not wait for Python's collector."""

from __future__ import annotations

import gc
import gzip
import struct
import weakref
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hyperframe.frame import DataFrame

from kvtwisted.rpc.errors import CallError, Code
from tests.support.certificates import Pair
from tests.support.collector import without_collector

from ..support import MIB, PATIENCE, World
from .bystander import eventually
from .floods import half_open
from .peer import Peer, request_fields


@pytest.fixture(params=["plain", "TLS"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A started server."""
    pair = Pair(tmp_path_factory.mktemp("tls"))
    files = {"certificate": pair.certificate, "private_key": pair.private_key} if request.param == "TLS" else {}
    world = World(transport="native", **files)
    world.pair = pair  # type: ignore[attr-defined]
    world.start()
    yield world
    world.stop()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Within the test cycles are not collected."""
    with without_collector():
        yield


def references(world: World) -> list[weakref.ref[Any]]:
    """To what each open connection consists of."""
    native = world.server.native  # type: ignore[union-attr]  # it is the native one
    found = []
    for connection in tuple(native._connections):
        parts = (
            connection,
            connection.transport,
            connection.lifetime,
            connection.streams,
            connection.streams.responder,
        )
        found += [weakref.ref(part) for part in parts]
    return found


def is_free(lost: list[weakref.ref[Any]]) -> bool:
    """Whether nothing of it is there any more."""
    return all(reference() is None for reference in lost)


def test_calls_of_every_kind(world: World, no_collector: None) -> None:
    """A client that has called, watched and opened a pipeline, and goes."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    lost: list[weakref.ref[Any]] = []
    for _ in range(3):
        before = set(references(world))
        if world.server.native._certificates is None:  # type: ignore[union-attr]
            channel = grpc.insecure_channel(world.address, options)
        else:
            credentials = grpc.ssl_channel_credentials(world.pair.chain)  # type: ignore[attr-defined]
            channel = grpc.secure_channel(f"localhost:{world.address.rpartition(':')[2]}", credentials, options)
        with channel:
            ask = channel.unary_unary("/kv.v1.KeyValueService/Get")
            ask(b"\n\1k", timeout=PATIENCE)
            channel.unary_unary("/kv.v1.KeyValueService/ScanKeys")(b"", timeout=PATIENCE)
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=PATIENCE)
            next(watch)
            new = [reference for reference in references(world) if reference not in before]
            assert len(new) == 5
            lost += new
    eventually(lambda: is_free(lost))


def test_peers_that_misbehave(world: World, no_collector: None) -> None:
    """Calls that have only begun, half a header block, and a fault that the server ends the connection for."""
    if world.server.native._certificates is not None:  # type: ignore[union-attr]
        pytest.skip("frames go over plain TCP")
    lost: list[weakref.ref[Any]] = []
    before = set(references(world))
    for fault in (b"", b"\0\0\4\x01\0\0\0\0\3\x83", b"\0\0\1\x06\0\0\0\0\0x"):
        with Peer(world.address) as peer:
            peer.send(*[half_open(peer) for _ in range(5)])
            peer.sync()
            lost += [reference for reference in references(world) if reference not in before]
            peer.send(fault)
    assert len(lost) >= 12
    eventually(lambda: is_free(lost))


def test_a_refused_bomb(world: World, no_collector: None) -> None:
    """The refusal of a compressed message does not keep what it was expanded to: no traceback has the frames."""
    if world.server.native._certificates is not None:  # type: ignore[union-attr]
        pytest.skip("frames go over plain TCP")
    with Peer(world.address) as peer:
        for _ in range(3):
            stream_id = peer.next_stream()
            bomb = gzip.compress(bytes(8 * MIB))
            peer.send(
                peer.headers(stream_id, request_fields("/kv.v1.KeyValueService/Set", ("grpc-encoding", "gzip"))),
                DataFrame(stream_id, struct.pack(">BI", 1, len(bomb)) + bomb, flags=["END_STREAM"]),
            )
            assert peer.answer(stream_id).status == str(int(Code.RESOURCE_EXHAUSTED))
    assert [found for found in gc.get_objects() if isinstance(found, CallError) and found.__traceback__] == []
