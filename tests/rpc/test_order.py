"""Calls are refused in the one order on every transport: small, large, compressed, and as operations of a pipeline."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from grpc import StatusCode

from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import SERVICES

from ..support.order import CONTENT, QUOTA, RATE, RIGHTS, ROOM, Case, Guards, cases
from .support import PATIENCE, World
from .test_access import PIPELINE, metadata

#: Says that these tests run by the pool, too, at every change.
POOL_DIFFERS = True

#: Quotas need a backend that can tell how much is stored; the order is no backend's matter.
pytestmark = pytest.mark.local_backend

CAPACITY = 4
ANSWERS = {
    RIGHTS: (StatusCode.PERMISSION_DENIED, "does not allow"),
    RATE: (StatusCode.RESOURCE_EXHAUSTED, "is over its rate"),
    QUOTA: (StatusCode.RESOURCE_EXHAUSTED, "over the token's quota"),
    ROOM: (StatusCode.RESOURCE_EXHAUSTED, "limits.max_in_flight"),
    CONTENT: (StatusCode.INVALID_ARGUMENT, ""),
}
SIZE = 100_000
MESSAGES = {
    "set": lambda value: kv.SetRequest(key="k", value=value),
    "get": lambda value: kv.GetRequest(key="k"),
    "delete": lambda value: kv.DeleteRequest(key="k"),
    "mset": lambda value: kv.MSetRequest(key_values={"k": value}),
    "mget": lambda value: kv.MGetRequest(keys=["k"] * (len(value) // 10)),
    "mdelete": lambda value: kv.MDeleteRequest(keys=["k"] * (len(value) // 10)),
    "scan": lambda value: kv.ScanRequest(limit=1),
}
METHODS = {
    "set": "Set", "get": "Get", "delete": "Delete", "mset": "MSet", "mget": "MGet", "mdelete": "MDelete",
    "scan": "ScanKeys",
}  # fmt: skip


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("case", cases())
def test_the_first_refusal(make_world: Callable[..., World], case: Case, compressed: bool) -> None:
    """A call that is wrong in several ways is told the first."""
    guards = Guards()
    world = make_world(make_gate=guards.gate, max_in_flight=CAPACITY)
    token = guards.prepare(case, CAPACITY)
    message = MESSAGES[case.request]("v" * (SIZE if case.large else 10)).SerializeToString()
    if CONTENT in case.wrong:
        message += b"\xff"
    failure = world.channel.unary_unary(f"/{SERVICES[0]}/{METHODS[case.request]}").future(
        message, timeout=PATIENCE, metadata=metadata(token), compression=grpc.Compression.Gzip if compressed else None
    ).exception()  # fmt: skip
    status, sentence = ANSWERS[case.wrong[0]]
    assert failure.code() is status
    assert sentence in failure.details()
    assert not world.stored()


SINGLE = [case for case in cases(without=(CONTENT,)) if case.values[0].request in ("set", "get", "delete")]


@pytest.mark.parametrize("case", SINGLE)
def test_operations_of_a_pipeline(make_world: Callable[..., World], case: Case) -> None:
    """The same, of what each of them asks for."""
    guards = Guards()
    world = make_world(make_gate=guards.gate, max_in_flight=CAPACITY)
    token = guards.prepare(case, CAPACITY)
    request = MESSAGES[case.request]("v" * (SIZE if case.large else 10))
    stub = world.channel.stream_stream(
        PIPELINE, kv.PipelineRequest.SerializeToString, kv.PipelineResponse.FromString
    )  # fmt: skip
    operation = kv.PipelineRequest(id=1, **{case.request: request})
    stream = stub(iter([operation]), timeout=PATIENCE, metadata=metadata(token))
    status, sentence = ANSWERS[case.wrong[0]]
    if case.wrong[0] == RIGHTS:
        assert stream.code() is status
        return
    (answer,) = stream
    assert answer.code == status.value[0]
    assert sentence in answer.message
    assert not world.stored()
