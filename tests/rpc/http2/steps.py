"""All that may happen to the native server, step by step.

A step is a name and what it is told; `act` does it. So a failing example prints what happened.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .simulation import Link, Simulation
from .wire import END_HEADERS, HEADERS, Request, frame, settings, window_update

SERVICES = ("kv.v1.KeyValueService", "KeyValueService")


class Step(NamedTuple):
    """What happens, and on which of the connections."""

    name: str
    arguments: tuple[Any, ...]
    link: int = 0
    #: Whether what is sent waits for what is sent next, to be in the same chunk.
    hold: bool = False


def stream_of(link: Link, which: int | str) -> int:
    """The number of a stream by its place."""
    if which == "even":
        return 2
    if which == "first":
        return 1
    if which == "next":
        return link.next_id
    return max(link.next_id + 2 * int(which), 1) if which else 0


def act(sim: Simulation, step: Step) -> None:
    """Let it happen."""
    link = sim.living(step.link)
    _ACTS[step.name](sim, link, step.hold, *step.arguments)


def _send(link: Link, hold: bool, data: bytes) -> None:
    link.send(data, hold=hold)


def _call(sim: Simulation, link: Link, hold: bool, request: Request, now: int) -> None:
    link.begin(request)
    _more(sim, link, hold, -1, now)


def _burst(sim: Simulation, link: Link, hold: bool, count: int, key: str, headers_first: bool) -> None:
    """Many small Gets, as clients send them that have many calls under way."""
    request = Request(f"/{SERVICES[0]}/Get", (kv.GetRequest(key=key).SerializeToString(),))
    calls = [link.begin(request)[1] for _ in range(count)]
    del link.unsent[-count:]
    if headers_first:
        _send(link, True, b"".join([frames.popleft() for frames in calls]))
    _send(link, hold, b"".join([part for frames in calls for part in frames]))


def _more(sim: Simulation, link: Link, hold: bool, which: int, count: int) -> None:
    if link.unsent:
        call = link.unsent[which % len(link.unsent)]
        _send(link, hold, b"".join([call[1].popleft() for _ in range(min(count, len(call[1])))]))
        if not call[1]:
            link.unsent.remove(call)


def _mutated(sim: Simulation, link: Link, hold: bool, request: Request, place: int, change: int) -> None:
    frames = link.begin(request)[1]
    link.unsent.pop()
    data = bytearray(b"".join(frames)[:40_000])
    data[place % min(len(data), 120)] ^= change
    _send(link, hold, bytes(data))


def _frame(
    sim: Simulation, link: Link, hold: bool, kind: int, flags: int, which: int | str, payload: bytes, lie: int
) -> None:
    reserved = 1 << 31 if flags & 0x40 else 0
    length = max(len(payload) + lie, 0)
    _send(link, hold, frame(kind, flags, stream_of(link, which) | reserved, payload, length=length))
    if kind == HEADERS and which == "next":
        link.next_id += 2


def _table(sim: Simulation, link: Link, hold: bool, size: int) -> None:
    link.encoder.header_table_size = size


def _drain(sim: Simulation, link: Link, hold: bool) -> None:
    link.connection.drain()
    # Answers to both PINGs that a server sends of itself.
    _answer_pings(sim, link, hold)


def _answer_pings(sim: Simulation, link: Link, hold: bool) -> None:
    _send(link, hold, frame(6, 1, 0, b"kvt-last") + frame(6, 1, 0, b"kvt-live"))


def _health(sim: Simulation, link: Link, hold: bool) -> None:
    if sim.health.failing("disk"):
        sim.health.recover("disk")
    else:
        sim.health.fail("disk", "it is full")


def _accept(sim: Simulation, link: Link, hold: bool, count: int) -> None:
    link.transport.accepts = count
    link.transport.carry()
    link.read()


def _pool(sim: Simulation, link: Link, hold: bool, count: int) -> None:
    for _ in range(min(count, sim.reactor.pool.waiting)):
        sim.reactor.pool.run_one()


_ACTS: dict[str, Any] = {
    "call": _call,
    "burst": _burst,
    "more": _more,
    "mutated": _mutated,
    "frame": _frame,
    "window": lambda sim, link, hold, which, size: _send(link, hold, window_update(stream_of(link, which), size)),
    "settings": lambda sim, link, hold, values: _send(link, hold, settings(*values)),
    "cancel": lambda sim, link, hold, which, code: _send(
        link, hold, frame(3, 0, stream_of(link, which), struct.pack(">I", code))
    ),
    "table": _table,
    "block": lambda sim, link, hold, which, block: _send(
        link, hold, frame(HEADERS, END_HEADERS, stream_of(link, which), block)
    ),
    "noise": lambda sim, link, hold, data: _send(link, hold, data),
    "pool": _pool,
    "turn": lambda sim, link, hold: sim.reactor.turn(),
    "time": lambda sim, link, hold, seconds: sim.reactor.advance(seconds),
    "accept": _accept,
    "cut": lambda sim, link, hold, sizes: setattr(link, "sizes", sizes),
    "health": _health,
    "slow": lambda sim, link, hold, slow: setattr(sim.engine, "slow", slow),
    "lose": lambda sim, link, hold: link.transport.lose(),
    "drain": _drain,
    "answer_pings": _answer_pings,
}
