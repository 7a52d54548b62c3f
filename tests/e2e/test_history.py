"""The book-keeping of the crash tests sees what it is there to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable

import pytest

from .history import LARGE, Entry, survivors

ONE, TWO = ("w/1/0",), ("w/2/0", "w/2/1")


def done(keys: tuple[str, ...], state: str | None, at: float, **more: int) -> Entry:
    """A write that took from `at` to `at` + 1 and was acknowledged."""
    entry = Entry(keys, state, begun=at, **more)
    entry.ended, entry.acknowledged = at + 1, True
    return entry


def explained_by(found: Mapping[str, str]) -> Callable[[Entry], bool]:
    """What a server with exactly these values answers, long after."""
    return lambda entry: entry.explains({key: found[key] for key in entry.keys if key in found}, 100, 101)


HISTORY = [done(ONE, "a", 0), done(TWO, "b", 2), done(ONE, "c", 4), done(TWO, None, 6)]
BEFORE = {ONE: Entry(ONE, None), TWO: Entry(TWO, None)}


@pytest.mark.parametrize(
    ("found", "left"),
    [
        ({}, 0),
        ({"w/1/0": "a"}, 1),
        ({"w/1/0": "a", "w/2/0": "b", "w/2/1": "b"}, 2),
        ({"w/1/0": "c", "w/2/0": "b", "w/2/1": "b"}, 3),
        ({"w/1/0": "c"}, 4),
    ],
)
def test_every_beginning_is_recognized(found: dict[str, str], left: int) -> None:
    """And it is enough only when nothing after it had to be kept."""
    result = survivors({"w": HISTORY}, BEFORE, explained_by(found), lambda entry: entry.ended <= 2 * left)
    assert result == ({"w": left}, {"w": left})
    if left < 4:
        with pytest.raises(AssertionError, match=f"its first {left + 1} of 4 acknowledged writes"):
            survivors({"w": HISTORY}, BEFORE, explained_by(found), lambda entry: entry is HISTORY[left])


@pytest.mark.parametrize(
    "found",
    [
        {"w/1/0": "a", "w/2/0": "b"},
        {"w/1/0": "c", "w/2/0": "b"},
        {"w/2/0": "b", "w/2/1": "b"},
        {"w/1/0": "x"},
        {"w/1/0": "a.", "w/2/0": "b", "w/2/1": "b"},
    ],
    ids=["half", "half later", "hole", "foreign", "damaged"],
)
def test_what_no_beginning_explains_is_seen(found: dict[str, str]) -> None:
    """Half of a batch, a hole in the history, and values that nobody wrote."""
    with pytest.raises(AssertionError, match="what is there fits"):
        survivors({"w": HISTORY}, BEFORE, explained_by(found), lambda entry: False)


def test_nothing_is_left_that_came_after_what_is_lost() -> None:
    """A write of one client that is there brings all with it that others were told before it began."""
    early, late = [done(("e/1/0",), "1", 0)], [done(("l/1/0",), "1", 2)]
    before = {entry.keys: Entry(entry.keys, None) for entry in (*early, *late)}
    histories = {"e": early, "l": late}
    survivors(histories, before, explained_by({"e/1/0": "1"}), lambda entry: False)
    with pytest.raises(AssertionError, match="e: its first 1 of 1"):
        survivors(histories, before, explained_by({"l/1/0": "1"}), lambda entry: False)
    late[0].begun = 0.5
    survivors(histories, before, explained_by({"l/1/0": "1"}), lambda entry: False)


def test_what_nobody_wrote_to_is_as_it_was() -> None:
    """A change of a group that no history touches is an error."""
    before = {**BEFORE, ("x/1/0",): Entry(("x/1/0",), "a")}
    found = {"w/1/0": "c", "x/1/0": "a"}
    survivors({"w": HISTORY}, before, explained_by(found), lambda entry: True)
    with pytest.raises(AssertionError, match="has changed, and nobody wrote"):
        survivors({"w": HISTORY}, before, explained_by({**found, "x/1/0": "b"}), lambda entry: True)


def test_what_was_not_acknowledged_may_be_there_or_not() -> None:
    """The last write, of which the client heard nothing."""
    last = Entry(ONE, "d", begun=8)
    for found in ({"w/1/0": "c"}, {"w/1/0": "d"}):
        survivors({"w": [*HISTORY, last]}, BEFORE, explained_by(found), lambda entry: True)


def test_ttl() -> None:
    """What has expired is gone, what has not is there; in between both may be."""
    entry = done(ONE, "a", 0, ttl=10)
    value = entry.content()
    assert entry.explains(value, 5, 6)
    assert not entry.explains({}, 5, 6)
    assert entry.explains(value, 10.5, 10.6)
    assert entry.explains({}, 10.5, 10.6)
    assert not entry.explains(value, 12, 13)
    assert entry.explains({}, 12, 13)


def test_which_ttl() -> None:
    """A key that was touched tells by its ttl whether that is left."""
    entry, touched = done(ONE, "a", 0, ttl=3600), done(ONE, "a", 1, ttl=100_000)
    for_ever = done(ONE, "a", 2)
    value = entry.content()
    for ttl, explains in ((3599, [True, False, False]), (99_990, [False, True, False]), (0, [False, False, True])):
        assert [one.explains(value, 5, 6, ttl) for one in (entry, touched, for_ever)] == explains


def test_values_of_a_batch() -> None:
    """A large batch has large values and small ones."""
    entry = Entry(TWO, "b", size=LARGE)
    assert {key: len(value) for key, value in entry.content().items()} == {"w/2/0": LARGE, "w/2/1": 1}
    assert entry.large
    assert not Entry(TWO, "b").large
    assert not Entry(TWO, None, size=LARGE).large
