"""One call, from bytes to bytes, without a transport."""

from __future__ import annotations

import math
import time

import pytest

from kvtwisted.rpc.calls import Calls
from kvtwisted.rpc.errors import CallError, Code
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import METHODS
from kvtwisted.security.gate import OpenGate, Visitor

from .support import MIB, World

GET = kv.GetRequest(key="a").SerializeToString()


@pytest.fixture
def world() -> World:
    """The parts of a server that is not started."""
    return World()


def calls(world: World, request_timeout: float = 10.0) -> Calls:
    """Calls into `world`."""
    return Calls(
        OpenGate(world.operations, world.admission).admit(Visitor("")),
        message_limit=4 * MIB,
        max_response_bytes=lambda: 4 * MIB,
        request_timeout=lambda: request_timeout,
        max_batch_keys=lambda: 10_000,
    )


@pytest.mark.parametrize("method", ["Get", "Set", "ScanKeys", "GetConfig", "UpdateConfig"])
@pytest.mark.parametrize(("age", "time_left"), [(10.0, math.inf), (0.0, 0.0), (11.0, 5.0)])
def test_a_call_whose_time_is_up_does_nothing(world: World, method: str, age: float, time_left: float) -> None:
    """After the client's time, or the server's own since the call arrived, nothing is done."""
    before = len(world.engine.calls)
    with pytest.raises(CallError) as refused:
        calls(world).answer(METHODS[method], b"", arrived=time.monotonic() - age, time_left=time_left)
    assert refused.value.code is Code.DEADLINE_EXCEEDED
    assert len(world.engine.calls) == before
    assert world.recorder.operations == []


def test_the_earlier_deadline_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operations get the client's deadline or the server's, whichever is earlier."""
    seen: list[float] = []

    def get(key: bytes, *, deadline: float) -> None:
        seen.append(deadline)

    monkeypatch.setattr(world.operations, "get", get)
    now = time.monotonic()
    for time_left in (1_000.0, math.inf, 9.2e18, 3.0):
        calls(world).answer(METHODS["Get"], GET, arrived=now, time_left=time_left)
    assert seen[:3] == [now + 10.0] * 3
    assert now + 3.0 <= seen[3] < now + 10.0


def test_bytes_in_and_bytes_out(world: World) -> None:
    """The answer is encoded, also when it is the error in a message."""
    world.operations.set(b"a", b"1", 5)
    answer = calls(world).answer(METHODS["Get"], GET, arrived=time.monotonic(), time_left=math.inf)
    assert kv.GetResponse.FromString(answer) == kv.GetResponse(value="1", found=True, ttl=5)
    answer = calls(world).answer(METHODS["Get"], b"", arrived=time.monotonic(), time_left=math.inf)
    assert kv.GetResponse.FromString(answer).error.startswith("key: must not be empty")
    assert world.admission.in_flight == 0
