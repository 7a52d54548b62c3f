"""The shortest way that calls have: in which turn they are answered, in how many writes, and where it ends."""

from __future__ import annotations

import struct

import pytest

from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.http2 import frames
from kvtwisted.rpc.http2.responder import MAX_STREAMS

from .simulation import Link, Simulation, simulation
from .wire import Request


def put(key: str, value: str = "v") -> Request:
    """A Set."""
    message = kv.SetRequest(key=key, value=value).SerializeToString()
    return Request("/kv.v1.KeyValueService/Set", (message,))


def connected(made: Simulation) -> Link:
    """A client whose header block is remembered."""
    link = made.connect()
    link.greet()
    # The first block puts its fields into the table; the second is the one that comes from then on.
    for key in ("first", "second"):
        send(link, put(key))
        made.reactor.settle()
    return link


def send(link: Link, *requests: Request, apart: bool = False) -> list[int]:
    """Have whole calls in one chunk; `apart`: all HEADERS before all DATA."""
    calls = [link.begin(request) for request in requests]
    frames = [list(frames) for _, frames in calls]
    link.unsent.clear()
    ordered = [part for place in (0, 1) for call in frames for part in call[place : place + 1]] if apart else []
    link.send(b"".join(ordered or [part for call in frames for part in call]))
    return [stream_id for stream_id, _ in calls]


def statuses(link: Link, streams: list[int]) -> list[str | None]:
    """What each call came to so far."""
    seen = [link.observer.streams.get(stream) for stream in streams]
    return [None if one is None else one.status for one in seen]


@pytest.mark.local_backend
@pytest.mark.parametrize("apart", [False, True])
def test_sets_are_answered_in_the_turn_in_which_they_came(apart: bool) -> None:
    """A lone one, and many of several connections: these are one batch of the engine, and one write for each client."""
    with simulation(in_flight=100) as made:
        links = [connected(made) for _ in range(3)]
        made.engine.calls.clear()
        (lone,) = send(links[0], put("lone"), apart=apart)
        assert statuses(links[0], [lone]) == [None]
        made.reactor.turn()
        assert statuses(links[0], [lone]) == ["0"]
        writes = [0, 0, 0]
        for place, link in enumerate(links):
            written = link.transport.written

            def count(data: bytes, place: int = place, written: object = written) -> None:
                writes[place] += 1
                written(data)  # type: ignore[operator]

            link.transport.written = count
        sent = [send(link, *[put(f"{number}") for number in range(10)], apart=apart) for link in links]
        made.reactor.turn()
        assert [statuses(link, streams) for link, streams in zip(links, sent)] == [["0"] * 10] * 3
        assert writes == [1, 1, 1]
        assert [len(mutations) for (mutations,) in made.engine.called("write")] == [1, 30]


@pytest.mark.parametrize("apart", [False, True])
def test_no_more_streams_than_there_may_be(apart: bool) -> None:
    """What comes in one chunk beyond those that may be open is refused, and all others are answered."""
    with simulation(in_flight=2 * MAX_STREAMS) as made:
        link = connected(made)
        streams = send(link, *[put(f"{number}") for number in range(MAX_STREAMS + 3)], apart=apart)
        link.connection.flush()
        refused = [stream for stream in streams if link.observer.streams.get(stream)]
        assert refused == streams[MAX_STREAMS:]
        made.reactor.settle()
        assert statuses(link, streams[:MAX_STREAMS]) == ["0"] * MAX_STREAMS


@pytest.mark.parametrize("length", [-1, 0, 1])
def test_a_prefix_that_says_another_length(length: int) -> None:
    """Both frames lie next to each other, but one message does not fill the second: then the ordinary way decides."""
    with simulation() as made:
        link = connected(made)
        stream, frames = link.begin(put("k"))
        link.unsent.clear()
        headers, data = frames
        size = len(data) - 14 + length
        link.send(headers + data[:10] + size.to_bytes(4, "big") + data[14:])
        made.reactor.settle()
        assert statuses(link, [stream]) == ["3" if length else "0"]
        after = send(link, put("after"))
        made.reactor.settle()
        assert statuses(link, after) == ["0"]


@pytest.mark.local_backend
@pytest.mark.parametrize("window", [0, 10, 65_535])
def test_conditional_writes_keep_to_the_window(window: int) -> None:
    """Their answers come together, as far as the client's windows go by then, and the rest when they are widened."""
    with simulation(in_flight=100) as made:
        link = connected(made)
        message = kv.IncrementRequest(key="n", delta=1).SerializeToString()
        streams = send(link, *[Request("/kv.v1.KeyValueService/Increment", (message,))] * 20)
        link.send(frames.frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 4, window)))
        made.reactor.settle()
        if window < 16:  # prefix and message take more
            assert statuses(link, streams) == [None] * 20
            link.send(frames.frame(frames.SETTINGS, 0, 0, struct.pack(">HI", 4, 1000)))
            made.reactor.settle()
        assert statuses(link, streams) == ["0"] * 20
        told = [kv.IncrementResponse.FromString(link.observer.streams[stream].messages[0]) for stream in streams]
        assert [answer.value for answer in told] == list(range(1, 21))
