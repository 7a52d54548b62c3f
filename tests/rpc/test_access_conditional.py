"""What conditions, numbers and transactions require, in calls and in pipelines of every transport."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from grpc import StatusCode

from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.sessions.entries import OwnRate
from tests.sessions.support import grant, made

from .support import PATIENCE, World
from .test_access import PIPELINE, Guarded, metadata

WRITER, _WRITER = made("writer", grant("set,delete", b"a/"))
BOTH, _BOTH = made("both", grant("set,get,delete", b"a/"))
NO_DELETE, _NO_DELETE = made("keeper", grant("set,get", b"a/"))

PRESENT = kv.Condition(present=True)
DENIED, OK = StatusCode.PERMISSION_DENIED, StatusCode.OK


@pytest.fixture
def guarded(make_world: Callable[..., World]) -> Guarded:
    """A server with these tokens."""
    guarded = Guarded(make_world)
    guarded.authority.replace([_WRITER, _BOTH, _NO_DELETE])
    return guarded


def _mutate(**change: Any) -> dict[str, Any]:
    return {"mutations": [kv.Mutation(**change)]}


@pytest.mark.parametrize(
    ("method", "fields", "writer", "both", "no_delete"),
    [
        ("Set", {"key": "a/k", "condition": PRESENT}, DENIED, OK, OK),
        ("Set", {"key": "b/k", "condition": PRESENT}, DENIED, DENIED, DENIED),
        ("Set", {"key": "a/k", "data": b"\xff"}, OK, OK, OK),
        ("Delete", {"key": "a/k", "condition": PRESENT}, DENIED, OK, DENIED),
        ("Touch", {"key": "a/k", "ttl": 9}, OK, OK, OK),
        ("Touch", {"key": "a/k", "condition": PRESENT}, DENIED, OK, OK),
        ("Increment", {"key": "a/n", "delta": 1}, DENIED, OK, OK),
        ("Increment", {"key": "b/n", "delta": 1}, DENIED, DENIED, DENIED),
        ("Get", {"key": "a/k", "as_data": True, "with_etag": True}, DENIED, OK, OK),
        ("DeleteRange", {"prefix": "a/"}, OK, OK, DENIED),
        ("DeleteRange", {"prefix": "a"}, DENIED, DENIED, DENIED),
        ("DeleteRange", {"all": True}, DENIED, DENIED, DENIED),
        ("Transact", _mutate(set=kv.SetRequest(key="a/k")), OK, OK, OK),
        ("Transact", _mutate(delete=kv.DeleteRequest(key="a/k")), OK, OK, DENIED),
        ("Transact", _mutate(increment=kv.IncrementRequest(key="a/n", delta=1)), DENIED, OK, OK),
        ("Transact", _mutate(touch=kv.TouchRequest(key="b/k")), DENIED, DENIED, DENIED),
        ("Transact", {"checks": [kv.Check(key="a/k", condition=PRESENT)]}, DENIED, OK, OK),
        ("Transact", {"checks": [kv.Check(key="b/k", condition=PRESENT)]}, DENIED, DENIED, DENIED),
    ],
)
def test_rights(
    guarded: Guarded, method: str, fields: dict[str, Any], writer: StatusCode, both: StatusCode, no_delete: StatusCode
) -> None:
    """By the keys that each is about; in a pipeline the same, as the operation's code."""
    operations = {"Set": "set", "Get": "get", "Delete": "delete", "Increment": "increment", "Touch": "touch"}
    for token, expected in ((WRITER, writer), (BOTH, both), (NO_DELETE, no_delete)):
        call = guarded.start(method, token, **fields)
        assert call.code() is expected, call.details()
        if method in operations:
            request: Any = {operations[method]: getattr(kv, f"{method}Request")(**fields)}
            stub = guarded.channel.stream_stream(
                PIPELINE, kv.PipelineRequest.SerializeToString, kv.PipelineResponse.FromString
            )
            (answer,) = stub(
                iter([kv.PipelineRequest(id=1, **request)]), timeout=PATIENCE, metadata=metadata(token)
            )  # fmt: skip
            assert answer.code == expected.value[0]


def test_what_contradicts_itself_is_charged(make_world: Callable[..., World]) -> None:
    """It takes from the rate what any request does, in calls and in pipelines."""
    guarded = Guarded(make_world)
    token, entry = made("slow", rate=OwnRate(operations=2))
    guarded.authority.replace([entry])
    codes = [guarded.start("Set", token, key="k", condition=kv.Condition()).code() for _ in range(20)]
    assert codes[0] is OK
    assert StatusCode.RESOURCE_EXHAUSTED in codes
    stub = guarded.channel.stream_stream(PIPELINE, kv.PipelineRequest.SerializeToString, kv.PipelineResponse.FromString)
    bad = kv.PipelineRequest(id=1, set=kv.SetRequest(key="k", value="v", data=b"d"))
    answers = list(stub(iter([bad] * 20), timeout=PATIENCE, metadata=metadata(token)))
    assert StatusCode.RESOURCE_EXHAUSTED.value[0] in {answer.code for answer in answers}
