"""With CORS, both lanes together answer each stream as twisted.web alone does, in any pieces."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import pytest

from kvtwisted.http.cors import Cors

from .smuggling import CORPUS, GET, SET
from .support import World
from .test_lanes import ODD, PLAIN, Outcome, send
from .test_smuggling import random_pieces

#: Says that these tests need not run once for each lane.
COMPARES_LANES = True
ORIGIN = b"https://app.example.com"
STREAMS = {**PLAIN, **ODD, **{f"corpus: {name}": stream for name, stream in CORPUS.items()}}
#: What is put in front of the first header of each request.
HEADERS = {
    "none": b"",
    "listed": b"Origin: " + ORIGIN + b"\r\n",
    "other": b"origin:https://evil.example\r\n",
    "two": b"Origin: " + ORIGIN + b"\r\nOrigin: null\r\n",
    "cut": b"Origin: " + ORIGIN + b"\nX: y\r\n",
    "preflight": b"Origin: " + ORIGIN + b"\r\nAccess-Control-Request-Method: POST\r\n",
}


@cache
def world_of(fast: bool) -> World:
    """The same one for all streams. What memory knows is answered at once."""
    world = World(fast_lane=fast, max_body_bytes=1_000_000, cors=Cors([ORIGIN.decode()]))
    world.engine.slow = False
    return world


def outcome(fast: bool, pieces: list[bytes]) -> tuple[bytes, object]:
    """What comes of a connection of their own on which these bytes come in."""
    world = world_of(fast)
    for key in list(world.stored()):
        world.storage.store.delete(key)
    world.storage.store.set(b"k", b"before")
    world.recorder.operations.clear()
    wire = send(world, pieces)
    result = Outcome(world, wire)
    if wire.open:
        wire.transport.disconnect()
    return result.sent, result.rest


@pytest.mark.parametrize("headers", [("listed", "none"), pytest.param(tuple(HEADERS), marks=pytest.mark.long)])
@pytest.mark.parametrize("stream", list(STREAMS.values()), ids=list(STREAMS))
def test_streams(stream: bytes, headers: Sequence[str]) -> None:
    """Of requests with and without Origin, whole and in pieces, with plain ones before and behind."""
    rng = random.Random(stream)
    for header in headers:
        theirs = stream.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\n" + HEADERS[header])
        for whole in (theirs + GET, GET + SET + theirs + GET + SET):
            expected = outcome(False, [whole])
            assert outcome(True, [whole]) == expected
            assert outcome(True, random_pieces(whole, rng)) == expected


def test_the_streams_are_of_use() -> None:
    """They lead to answers for listed origins, for others, and for nobody."""
    for header, count in (("listed", 1), ("other", 0), ("none", 0), ("two", 0)):
        stream = GET.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\n" + HEADERS[header])
        sent, _ = outcome(True, [stream])
        assert sent.count(b"\r\nVary: Origin\r\n") == 1
        assert sent.count(b"\r\nAccess-Control-Allow-Origin: " + ORIGIN + b"\r\n") == count
