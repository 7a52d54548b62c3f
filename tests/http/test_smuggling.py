"""No request can be smuggled: both lanes together answer each stream as twisted.web alone does, in any pieces."""

from __future__ import annotations

import random
from functools import cache
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ..support.properties import sampled
from .smuggling import CORPUS, GET, SET, SIZES, SLOW, get
from .support import World
from .test_lanes import Outcome, send

#: Says that these tests need not run once for each lane.
COMPARES_LANES = True
#: Bytes of a stream up to which it is cut at every one of them; of a longer one near its ends and at so many others.
EVERY_BYTE, OTHERS = 400, 40


class Lane:
    """A server that starts from the same data for each stream."""

    def __init__(self, fast: bool, slow: bool = False) -> None:
        self.world = World(fast_lane=fast, max_body_bytes=1_000_000)
        self.world.engine.slow = slow

    def outcome(self, pieces: list[bytes]) -> tuple[bytes, tuple[Any, ...]]:
        """All that came of these bytes on a connection of their own: what was sent, done and left."""
        world = self.world
        for key in list(world.stored()):
            world.storage.store.delete(key)
        world.storage.store.set(b"k", b"before")
        world.recorder.operations.clear()
        wire = send(world, pieces)
        outcome = Outcome(world, wire)
        # The connection's timers are the other one's business.
        if wire.open:
            wire.transport.disconnect()
        return outcome.sent, outcome.rest


@cache
def lane_of(fast: bool, slow: bool = False) -> Lane:
    """The same one each time, with all that it may have kept from streams before."""
    return Lane(fast, slow)


def cut(whole: bytes, *places: int) -> list[bytes]:
    """`whole` in pieces."""
    ends = [*places, len(whole)]
    return [whole[start:end] for start, end in zip([0, *places], ends) if start != end]


def places(stream: bytes) -> list[int]:
    """Where to cut it, or just behind it."""
    end = len(stream) + 2
    if end <= EVERY_BYTE:
        return list(range(1, end))
    near = EVERY_BYTE // 2
    inner = range(near, end - near, max(1, (end - EVERY_BYTE) // OTHERS))
    return [*range(1, near), *inner, *range(end - near, end)]


def random_pieces(whole: bytes, rng: random.Random) -> list[bytes]:
    """In up to 12 pieces."""
    count = min(len(whole) - 1, rng.randint(0, 11))
    return cut(whole, *sorted(rng.sample(range(1, len(whole)), count)))


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("stream", list(CORPUS.values()), ids=list(CORPUS))
def test_the_corpus(stream: bytes, step: int) -> None:
    """Whole, cut at each fifth byte (or every one), in single bytes, in random pieces, with plain requests before and
    behind.
    """
    rng = random.Random(stream)
    fast, klein = lane_of(True), lane_of(False)
    whole = stream + GET
    expected = klein.outcome([whole])
    assert fast.outcome([whole]) == expected
    for place in places(stream)[len(stream) % step :: step]:
        assert fast.outcome(cut(whole, place)) == expected, place
    around = GET + SET + stream + GET + SET
    expected = klein.outcome([around])
    short = around if len(around) < 4000 else around[:2000] + around[-2000:]
    for slow in (False, True) if step == 1 else (len(stream) % 2 == 0,):
        lane = lane_of(True, slow)
        assert lane.outcome([around]) == expected
        for _ in range(3):
            assert lane.outcome(random_pieces(around, rng)) == expected
        assert lane.outcome(cut(short, *range(1, len(short)))) == klein.outcome([short])


@pytest.mark.parametrize("stream", list(SIZES.values()), ids=list(SIZES))
def test_bodies_of_about_the_largest_size(stream: bytes) -> None:
    """Wherever the network cuts them."""
    fast, klein = lane_of(True), lane_of(False)
    whole = GET + stream + GET
    expected = klein.outcome([whole])
    assert expected[0].count(b"HTTP/1.1 200 OK") == 3
    assert fast.outcome([whole]) == expected
    for place in places(GET + stream)[::10]:
        assert fast.outcome(cut(whole, place)) == expected
    assert fast.outcome(cut(whole, *range(1000, len(whole), 1000))) == expected


@pytest.mark.parametrize("slow", [False, True])
def test_lanes_in_any_order(slow: bool) -> None:
    """Requests for either lane, answered at once or later, in every order: the answers come in that of the requests."""
    rng = random.Random(1)
    requests = [SET, GET, SLOW["chunked"], SLOW["scan"], SLOW["length 1"]]
    fast, klein = lane_of(True, slow), lane_of(False, slow)
    for order in permutations(requests):
        whole = b"".join(order)
        expected = klein.outcome([whole])
        assert expected[0].count(b"HTTP/1.1 ") == len(order)
        assert fast.outcome([whole]) == expected
        assert fast.outcome(list(order)) == expected
        assert fast.outcome(random_pieces(whole, rng)) == expected


@pytest.mark.parametrize("last", [*SLOW, "set", "get"])
def test_a_refused_request_is_the_last(last: str) -> None:
    """What comes behind one that is not understood is done by neither lane, in the same packet or later."""
    bad = get(b"X\0: y")
    behind = {**SLOW, "set": SET, "get": GET}[last]
    for fast in (True, False):
        lane = lane_of(fast)
        for pieces in ([bad + behind], [bad, behind], [bad[:-1], bad[-1:] + behind]):
            sent, rest = lane.outcome([GET, *pieces])
            assert sent.count(b"HTTP/1.1 ") == 2
            assert b"malformed_request" in sent
            assert len(rest[4]) == 1


_PARTS = [*(part for part in CORPUS.values() if len(part) < 400), GET, SET, *SLOW.values()]
_NOISE = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b"\xff", b"0", b"1", b",", b";", b"%", b"\r\n\r\n", b"\r\n ",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"HTTP/1.1", b"0\r\n\r\n",
]  # fmt: skip
_CHANGE = st.tuples(st.integers(0, 2), st.integers(0, 4000), st.integers(1, 8), st.sampled_from(_NOISE))


def changed(stream: bytes, changes: list[tuple[int, int, int, bytes]]) -> bytes:
    """`stream` with bytes put in, replaced, and left out."""
    for kind, place, length, noise in changes:
        at = place % (len(stream) + 1)
        end = at + (0 if kind == 0 else length)
        stream = stream[:at] + (b"" if kind == 2 else noise) + stream[end:]
    return stream


@sampled(
    70,
    200,
    given(
        st.lists(st.sampled_from(_PARTS), min_size=1, max_size=5),
        st.lists(_CHANGE, max_size=4),
        st.integers(0, 1000),
        st.booleans(),
    ),
)
def test_streams_that_were_tampered_with(
    parts: list[bytes], changes: list[tuple[int, int, int, bytes]], seed: int, slow: bool
) -> None:
    """Both lanes answer them alike, whole and in pieces."""
    whole = changed(b"".join(parts), changes) or GET
    fast, klein = lane_of(True, slow), lane_of(False, slow)
    expected = klein.outcome([whole])
    assert fast.outcome([whole]) == expected
    assert fast.outcome(random_pieces(whole, random.Random(seed))) == expected
