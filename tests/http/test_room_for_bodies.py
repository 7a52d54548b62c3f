"""Bodies that are not complete and take too much together: who makes room, and that nothing else comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from kvtwisted.http.deadlines import ByteLimits, Deadlines

from .slow import pass_time, world_of
from .support import Wire, World, problem
from .test_openapi import TOKEN, closed

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

LIMIT = 1_000_000


def begin(world: World, size: int, length: int = 200_000, token: str = "") -> Wire:
    """A connection that has sent so much of a body, for a route that Klein answers."""
    wire = world.wire()
    shown = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"POST /api/v1/mdelete HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{shown}"
    wire.send(f"{head}Content-Length: {length}\r\n\r\n".encode())
    more(wire, size)
    return wire


def more(wire: Wire, size: int) -> None:
    """So much more of it."""
    while size > 0 and not wire.transport.half_closed:
        wire.send(b" " * min(size, 65_536))
        size -= 65_536


def refused(wires: list[Wire]) -> list[Wire]:
    """Those that were refused."""
    return [wire for wire in wires if wire.transport.half_closed]


def sentence(wire: Wire) -> str:
    """Why it was refused for want of room."""
    (reply,) = wire.replies()
    status, code, why = problem(reply)
    assert (status, code) == (429, "overloaded")
    assert f"limits.max_unfinished_bytes is {LIMIT} bytes" in why
    return why


def test_connections_that_break_are_forgotten() -> None:
    """Also while the others have too much; the server can stop."""
    world = world_of(byte_limits=ByteLimits(unfinished=LIMIT))
    wires = [begin(world, 60_000, 65_000) for _ in range(20)]
    gone = refused(wires)
    for wire in [wire for wire in wires if wire not in gone][:3] + gone[:3]:
        wire.transport.disconnect()
    assert world.site.connections == 14
    assert world.site.deadlines.unfinished == 60_000 * (20 - len(gone) - 3)
    for wire in wires:
        wire.transport.disconnect()
    assert (world.site.connections, world.site.deadlines.unfinished) == (0, 0)
    stopped: list[None] = []
    world.site.drain(10).addCallback(stopped.append)
    assert stopped == [None]
    assert world.reactor.getDelayedCalls() == []


def test_a_defect_does_not_keep_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails when it is lost, it is not counted any more."""
    world = world_of()
    wire = begin(world, 60_000, 65_000)
    monkeypatch.setattr(wire.channel.requests[0], "connectionLost", lambda reason: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wire.transport.disconnect()
    assert (world.site.connections, world.site.deadlines.unfinished) == (0, 0)


def test_small_bodies_make_room_for_a_quick_one() -> None:
    """Many that have stopped do not keep a larger body from coming, and are told how slow they were."""
    world = world_of(byte_limits=ByteLimits(unfinished=LIMIT))
    small = [begin(world, 50_000, 65_000) for _ in range(20)]
    pass_time(world, 5)
    assert refused(small) == []
    quick = begin(world, 200_000 - 2)
    assert not quick.transport.half_closed
    gone = refused(small)
    assert 5 <= len(gone) <= 10
    assert "since it came at 10000 bytes a second, more slowly than others; try again" in sentence(gone[0])
    assert world.site.refused["no_room"] == world.site.deadlines.refused == len(gone)
    quick.send(b"{}")
    assert [reply.status for reply in quick.replies()] == [400]


def test_nobody_calls_a_body_slow_that_has_just_begun() -> None:
    """What it is told is true."""
    world = world_of(byte_limits=ByteLimits(unfinished=LIMIT))
    wires = [begin(world, 60_000, 65_000) for _ in range(20)]
    why = sentence(refused(wires)[0])
    assert why.endswith("bytes; this one is refused; try again")


def test_the_unknown_do_not_starve_the_known() -> None:
    """However quick they are, they go first; a slow client with a token goes on."""
    world = world_of(byte_limits=ByteLimits(unfinished=LIMIT), make_gate=closed)
    known = begin(world, 100_000, token=TOKEN)
    tiny = begin(world, 10)
    pass_time(world, 5)
    flood = [begin(world, 65_000, 65_535) for _ in range(100)]
    assert not known.transport.half_closed
    assert tiny.transport.half_closed
    assert "; this one is refused before those of known clients; try again" in sentence(refused(flood)[0])
    more(known, 99_998)
    known.send(b"{}")
    assert [reply.status for reply in known.replies()] == [400]


def test_what_takes_little_is_left_alone() -> None:
    """A slow client whose body could not make room."""
    world = world_of(byte_limits=ByteLimits(unfinished=LIMIT))
    little = begin(world, 100)
    pass_time(world, 9)
    large = [begin(world, 150_000) for _ in range(10)]
    assert refused(large) != []
    assert not little.transport.half_closed


def test_all_are_looked_at_once_in_a_while() -> None:
    """Not at each piece that comes: only when a quarter of the limit has come again."""
    world = world_of(byte_limits=ByteLimits(unfinished=LIMIT))
    looks = 0
    make_room = Deadlines._make_room

    def counted(deadlines: Any) -> None:
        nonlocal looks
        looks += 1
        make_room(deadlines)

    world.site.deadlines._make_room = counted.__get__(world.site.deadlines)  # type: ignore[method-assign]
    for _ in range(200):
        begin(world, 50_000, 65_000)
    # 10 MB came, of which the first took no look.
    assert 1 < looks <= 9 * LIMIT // (LIMIT // 4)
    assert world.site.deadlines.unfinished <= LIMIT


def test_a_lower_limit_under_load() -> None:
    """As many refusals as there have to be, one after the other."""
    world = world_of(byte_limits=ByteLimits(unfinished=100 * LIMIT))
    wires = [begin(world, 100_000) for _ in range(400)]
    assert world.site.deadlines.unfinished == 40 * LIMIT
    world.site.deadlines.retune(ByteLimits(unfinished=LIMIT))
    assert len(refused(wires)) == 393
    assert world.site.deadlines.unfinished == 700_000
    assert world.site.deadlines.refused == 393


def test_one_that_cannot_be_refused() -> None:
    """It is cut off, and the others make room all the same."""
    world = world_of(byte_limits=ByteLimits(unfinished=100 * LIMIT))
    wires = [begin(world, 100_000) for _ in range(20)]
    wires[0].transport.write = lambda data: 1 / 0  # type: ignore[assignment,return-value]
    world.site.deadlines.retune(ByteLimits(unfinished=LIMIT))
    assert wires[0].transport.aborted
    assert len(refused(wires)) == 12
    assert world.site.deadlines.unfinished == 700_000
    assert world.site.connections == 19


def test_a_connection_that_is_closed_holds_nothing() -> None:
    """Nor does one whose patience has ended in the middle of a body."""
    world = world_of(byte_limits=ByteLimits(unfinished=LIMIT))
    wire = begin(world, 60_000, 65_000)
    wire.transport.stalled = True
    wire.channel.loseConnection()
    assert world.site.deadlines.unfinished == 0
    assert wire.channel.requests[0].content.tell() == 0
