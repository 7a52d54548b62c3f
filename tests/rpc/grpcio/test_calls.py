"""One call, from bytes to bytes, without a transport: for threads that wait."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from kvtwisted.commands.command import Command
from kvtwisted.core.errors import DeadlineExceeded
from kvtwisted.rpc.calls import Terms
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.grpcio.calls import ThreadedCalls
from kvtwisted.rpc.methods import METHODS
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.door import Done
from kvtwisted.sessions.gate import Visitor
from kvtwisted.sessions.threads import FromThreads

from ..support import MIB, World

GET = kv.GetRequest(key="a").SerializeToString()
SET = kv.SetRequest(key="a", value="1").SerializeToString()


@pytest.fixture
def world() -> Iterator[World]:
    """The parts of a server that is not started, but for its threads."""
    world = World()
    world.pool.start()
    yield world
    world.pool.stop()


def answer(world: World, method: str, message: bytes, *, arrived: float, time_left: float) -> bytes:
    """What a call into `world` is answered."""
    calls = ThreadedCalls(Terms(4 * MIB, 4 * MIB, 10.0, 10_000), FromThreads(world.reactor))
    session = world.gate.admit(Visitor(""))
    return calls.answer(session, METHODS[method], message, arrived=arrived, time_left=time_left)


@pytest.mark.parametrize("method", ["Get", "Set", "ScanKeys", "GetConfig", "UpdateConfig"])
@pytest.mark.parametrize(("age", "time_left"), [(10.0, math.inf), (0.0, 0.0), (11.0, 5.0)])
def test_a_call_whose_time_is_up_does_nothing(world: World, method: str, age: float, time_left: float) -> None:
    """After the client's time, or the server's own since the call arrived, nothing is done."""
    before = len(world.engine.calls)
    with pytest.raises(DeadlineExceeded):
        answer(world, method, b"", arrived=time.monotonic() - age, time_left=time_left)
    assert len(world.engine.calls) == before
    assert world.recorder.operations == []


def test_the_earlier_deadline_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands get the client's deadline or the server's, whichever is earlier."""
    seen: list[float] = []
    submit = world.door.submit

    def seen_to(command: Command, admission: Admission, done: Done) -> None:
        seen.append(command.deadline)
        submit(command, admission, done)

    monkeypatch.setattr(world.door, "submit", seen_to)
    now = time.monotonic()
    for time_left in (1_000.0, math.inf, 9.2e18, 3.0):
        answer(world, "Set", SET, arrived=now, time_left=time_left)
    assert seen[:3] == [now + 10.0] * 3
    assert now + 3.0 <= seen[3] < now + 10.0


@pytest.mark.local_backend
def test_what_memory_answers_takes_no_thread(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Get of what need not be waited for is answered at the door, whether there is anything or not."""
    world.store.set(b"a", b"1", 0)
    monkeypatch.setattr(world.door, "submit", None)
    for key, found in (("a", True), ("b", False)):
        message = kv.GetRequest(key=key).SerializeToString()
        encoded = answer(world, "Get", message, arrived=time.monotonic(), time_left=math.inf)
        assert kv.GetResponse.FromString(encoded).found is found


def test_bytes_in_and_bytes_out(world: World) -> None:
    """The answer is encoded, also when it is the error in a message."""
    world.store.set(b"a", b"1", 5)
    encoded = answer(world, "Get", GET, arrived=time.monotonic(), time_left=math.inf)
    assert kv.GetResponse.FromString(encoded) == kv.GetResponse(value="1", found=True, ttl=5)
    encoded = answer(world, "Get", b"", arrived=time.monotonic(), time_left=math.inf)
    assert kv.GetResponse.FromString(encoded).error.startswith("key: must not be empty")
    assert world.admission.in_flight == 0
