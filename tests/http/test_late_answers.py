"""Over a backend whose answers come later, in any order, and which fails now and then."""

from __future__ import annotations

import json
import random

import pytest

from .support import World, problem, request_bytes

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

pytestmark = pytest.mark.late_backend


def test_the_storage_fails_now_and_then() -> None:
    """Each request of many connections is answered, in its place; what was answered with success was done."""
    world, chance = World(), random.Random(14)
    world.backend.failing = 0.3
    world.held = True
    wires = [world.wire() for _ in range(8)]
    asked: dict[int, list[str]] = {number: [] for number in range(len(wires))}
    for turn in range(30):
        for number, wire in enumerate(wires):
            key = f"{number}.{turn}"
            body = json.dumps({"key": key, "value": "v"}).encode()
            if chance.random() < 0.6:
                asked[number].append(key)
                wire.send(request_bytes("POST", "/api/v1/set", body))
            else:
                asked[number].append("")
                wire.send(request_bytes("GET", f"/api/v1/get/{number}.none"))
        for _ in range(chance.randrange(3)):
            if world.pool.waiting:
                world.pool.run_one()
            world.reactor.advance(0)
    world.held = False
    world.work()
    failed = 0
    for number, wire in enumerate(wires):
        replies = wire.replies()
        assert len(replies) == len(asked[number])
        for key, reply in zip(asked[number], replies):
            if reply.status == 503:
                failed += 1
                assert problem(reply)[1] == "unavailable"
            else:
                assert reply.status == (200 if key else 404)
                assert not key or key.encode() in world.stored()
    assert 0 < failed < 120
    assert world.admission.in_flight == 0


def test_the_connection_to_the_storage_ends() -> None:
    """What is under way is answered when the backend stops."""
    world = World()
    world.held = True
    wires = [world.wire() for _ in range(5)]
    for number, wire in enumerate(wires):
        wire.send(request_bytes("POST", "/api/v1/mset", json.dumps({"key_values": {f"{number}": "v"}}).encode()))
    world.backend.stop()
    assert [wire.replies()[0].status for wire in wires] == [200] * 5
    assert (len(world.stored()), world.admission.in_flight) == (5, 0)
