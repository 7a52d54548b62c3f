"""The pieces of a range, and whose turn it is."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.engines.pieces import FairLock, Pieces

from ....support.properties import repeatable

_keys = st.binary(max_size=4)


def _walk(
    keys: dict[bytes, bool], start: bytes, end: bytes | None, skips: int, *, reverse: bool = False
) -> list[bytes]:
    """What a scan finds that reads over `skips` dead keys in one go, or in reverse keys; `keys` says which live."""
    pieces, found = Pieces(start, end, reverse=reverse), []
    pieces.begin(end if reverse else start)
    for _ in range(100_000):
        inside = [key for key in sorted(keys) if pieces.low <= key and (pieces.high is None or key < pieces.high)]
        living = [key for key in inside if keys[key]]
        read = inside if reverse or not living else inside[: inside.index(living[0])]
        if pieces.limited and len(read) > skips:
            pieces.given_up()
        elif living:
            found.append(living[-1 if reverse else 0])
            pieces.begin(found[-1] if reverse else found[-1] + b"\0")
        elif pieces.last:
            return found
        else:
            pieces.passed()
    raise AssertionError("no end")


@repeatable
@given(st.dictionaries(_keys, st.booleans(), max_size=40), _keys, st.none() | _keys, st.integers(1, 3), st.booleans())
def test_every_living_key_is_found_once(
    keys: dict[bytes, bool], start: bytes, end: bytes | None, skips: int, reverse: bool
) -> None:
    """However few dead keys may be read over at once, and however close keys lie."""
    expected = [key for key in sorted(keys) if keys[key] and start <= key and (end is None or key < end)]
    if end is None or start < end:
        assert _walk(keys, start, end, skips, reverse=reverse) == (expected[::-1] if reverse else expected)


def test_keys_of_any_length() -> None:
    """Long prefixes in common, and keys that differ in NULs at their end alone."""
    long = b"p" * 1020
    keys = {long + b"%04d" % number: number == 77 for number in range(100)}
    keys.update({long + b"\0" * number: False for number in range(5)})
    assert _walk(keys, b"", None, 3) == [long + b"0077"]
    assert _walk(keys, long, long + b"0078", 3) == [long + b"0077"]
    assert _walk(keys, b"", None, 3, reverse=True) == [long + b"0077"]


@pytest.mark.parametrize("reverse", [False, True])
def test_no_key_lies_between_pieces(reverse: bool) -> None:
    """Each piece begins where the one before it ended, so that a key at that very place is read."""
    pieces = Pieces(b"a", b"b", reverse=reverse)
    pieces.begin(b"b" if reverse else b"a")
    while not pieces.last:
        end = pieces.low if reverse else pieces.high
        pieces.passed()
        assert pieces.reached == end


@pytest.mark.parametrize("reverse", [False, True])
def test_pieces_grow_again(reverse: bool) -> None:
    """Behind the dead keys few pieces more are needed."""
    pieces = Pieces(b"a", b"b", reverse=reverse)
    pieces.begin(b"b" if reverse else b"a")
    for _ in range(50):
        pieces.given_up()
    steps = 0
    while not pieces.last:
        pieces.passed()
        steps += 1
    assert steps < 200


def test_turns_go_round() -> None:
    """Who waits gets the lock in order, and the one that had it queues up again."""
    turns, order = FairLock(), []

    def work(name: str) -> None:
        for _ in range(3):
            with turns:
                order.append(name)
                time.sleep(0.01)

    with turns:
        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
    for thread in threads:
        thread.join(10)
    assert "".join(order) == "ababab"


def test_turns_are_exclusive() -> None:
    """Never two at once."""
    turns, inside, most = FairLock(), [], []

    def work() -> None:
        for _ in range(200):
            with turns:
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(most) == {1}
    with turns:
        """It is free again."""
