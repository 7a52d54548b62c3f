"""Clients that do not read what they are answered, and those that read slowly."""

from __future__ import annotations

import json

import pytest

from kvtwisted.http.deadlines import STALL_BYTES, ByteLimits

from .slow import GET, NONE_CUT_OFF, PATIENCE, SlowWire, pass_time, world_of
from .support import World, request_bytes

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True


def large(world: World, size: int) -> None:
    """Store a value under `k`."""
    assert world.post("/api/v1/set", {"key": "k", "value": "x" * size}).status == 200


@pytest.mark.parametrize("slow", [False, True], ids=["memory", "pool"])
@pytest.mark.parametrize("request_", [GET, request_bytes("GET", "/api/v1/scan")], ids=["get", "scan"])
def test_pipelined_answers_are_not_piled_up(slow: bool, request_: bytes) -> None:
    """A client that asks for a large value again and again and reads nothing is answered once, or a few times."""
    world = world_of()
    large(world, 200_000)
    world.engine.slow = slow
    wire = SlowWire(world)
    wire.send(request_ * 100)
    assert len(wire.transport.dataBuffer) < 600_000
    # When it does read, all is there.
    assert wire.read().count(b"x" * 200_000) == 100


@pytest.mark.parametrize("request_", [GET, request_bytes("GET", "/api/v1/scan")], ids=["get", "scan"])
def test_what_is_sent_meanwhile_is_not_read(request_: bytes) -> None:
    """While an answer waits, bytes stay where TCP holds the client up."""
    world = world_of()
    large(world, 500_000)
    wire = SlowWire(world)
    wire.send(request_)
    assert wire.transport.producerState == "paused"
    wire.send(b"GET /" + b"x" * 1_000_000)
    assert len(wire.sent) > 1_000_000
    pass_time(world, PATIENCE.sending - 1)
    assert wire.open
    assert not wire.transport.half_closed


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    """A byte now and then does not help, and neither does it to send something."""
    world = world_of()
    large(world, 500_000)
    wire = SlowWire(world)
    wire.send(GET)
    for _ in range(int(PATIENCE.sending) + 1):
        assert wire.open
        wire.read(10)
        wire.send(GET)
        pass_time(world, 1)
    assert (wire.open, wire.transport.aborted) == (False, True)
    assert world.site.deadlines.unsent == 0
    assert world.site.deadlines.cut_off == {**NONE_CUT_OFF, "slow_reader": 1}
    # Nothing follows it any more, once the time of the last request is over.
    pass_time(world, world.request_timeout)
    assert min(call.getTime() for call in world.reactor.getDelayedCalls()) > 900


@pytest.mark.parametrize("idle_timeout", [3, 1000])
@pytest.mark.parametrize("request_", [GET, GET.replace(b"Host", b"Connection: close\r\nHost")], ids=["kept", "closed"])
def test_a_client_that_reads_slowly_is_served(request_: bytes, idle_timeout: float) -> None:
    """STALL_BYTES in the time allowed are enough, also when that is longer than the idle timeout, and when closing."""
    world = World(idle_timeout=idle_timeout, patience=PATIENCE)
    large(world, 1_000_000)
    wire = SlowWire(world)
    wire.send(request_)
    size = 0
    while wire.transport.dataBuffer:
        pass_time(world, PATIENCE.sending - 1)
        assert wire.open
        size += len(wire.read(STALL_BYTES))
    assert size > 1_000_000


def test_a_closing_client_that_reads_nothing_is_cut_off() -> None:
    """The same deadline, after `Connection: close`."""
    world = world_of()
    large(world, 1_000_000)
    wire = SlowWire(world)
    wire.send(GET.replace(b"Host", b"Connection: close\r\nHost"))
    pass_time(world, PATIENCE.sending + 1)
    assert (wire.open, wire.transport.aborted) == (False, True)


def test_all_together_hold_so_much() -> None:
    """When too much waits on all connections, those are cut off that have not read for the longest."""
    world = world_of(byte_limits=ByteLimits(unsent=5_000_000))
    large(world, 500_000)
    good = SlowWire(world)
    good.send(GET)
    wires = []
    for _ in range(20):
        pass_time(world, 0.5)
        wire = SlowWire(world)
        wire.send(GET)
        wires.append(wire)
        assert world.site.deadlines.unsent <= 5_000_000
        # This one reads.
        good.read(STALL_BYTES)
        good.send(GET)
    assert good.open
    still = [wire.open for wire in wires]
    assert still == sorted(still)
    assert 4 <= sum(still) <= 9
    assert world.site.deadlines.cut_off == {**NONE_CUT_OFF, "unsent": len(still) - sum(still)}


def test_a_lower_limit_holds_at_once() -> None:
    """Those that have not read for the longest go; with a higher one nobody does."""
    world = world_of(byte_limits=ByteLimits(unsent=5_000_000))
    large(world, 500_000)
    wires = []
    for _ in range(8):
        pass_time(world, 0.5)
        wires.append(SlowWire(world))
        wires[-1].send(GET)
    deadlines = world.site.deadlines
    deadlines.retune(ByteLimits(unsent=50_000_000))
    assert all(wire.open for wire in wires)
    deadlines.retune(ByteLimits(unsent=2_000_000))
    # Down to three quarters.
    assert [wire.open for wire in wires] == [False] * 6 + [True] * 2
    assert deadlines.unsent <= 1_500_000
    assert deadlines.cut_off == {**NONE_CUT_OFF, "unsent": 6}


@pytest.mark.parametrize("size", [3_700_000, 4_900_000])
def test_one_answer_gets_through(size: int) -> None:
    """Of one connection alone as much may wait as of all; the configuration has the largest answer fit into that."""
    world = world_of(byte_limits=ByteLimits(unsent=5_000_000))
    keys = [f"k{number}" for number in range(size // 100_000)]
    for key in keys:
        assert world.post("/api/v1/set", {"key": key, "value": "x" * 100_000}).status == 200
    wire = SlowWire(world)
    wire.send(request_bytes("POST", "/api/v1/mget", json.dumps({"keys": keys}).encode()))
    assert wire.open
    assert len(wire.read()) > size
