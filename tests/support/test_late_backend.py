"""The late backend is as late, and as out of order, as it says; that it keeps the port is said by its contract."""

from __future__ import annotations

from typing import Any

import pytest

from kvtwisted.commands.command import Command
from kvtwisted.commands.get import Get
from kvtwisted.commands.set import Set
from kvtwisted.core.errors import Unavailable

from .backends import LATE, backend
from .doors import Doorway

__all__ = ["backend"]

pytestmark = pytest.mark.parametrize("backend", [LATE], indirect=True)


def order_of(count: int) -> list[int]:
    """In which order so many commands of one turn are settled, and how many groups there are."""
    doorway, told = Doorway(), []
    groups: list[int] = []
    doorway.door.on_settled(lambda: groups.append(len(told)))
    for number in range(count):
        doorway.session.submit(Set(b"%d" % number, b"v"), lambda _, number=number: told.append(number))
    doorway.reactor.turn()
    assert told == []
    doorway.run()
    assert len(groups) > 2
    return told


def test_order() -> None:
    """Later than asked, in another order, in several groups, and the same each time."""
    order = order_of(50)
    assert sorted(order) == list(range(50))
    assert order != sorted(order)
    assert order_of(50) == order


def test_failing() -> None:
    """Some fail, before they are carried out and after."""
    doorway = Doorway()
    doorway.backend.failing = 0.5  # type: ignore[attr-defined]
    outcomes = [doorway.submit(Set(b"%d" % number, b"v")) for number in range(100)]
    doorway.run()
    failed = {b"%d" % number for number, one in enumerate(outcomes) if one.done and one.done.error is not None}
    stored = set(doorway.storage.data())
    assert 20 < len(failed) < 80
    assert failed & stored
    assert failed - stored
    with pytest.raises(Unavailable):
        [outcome.result() for outcome in outcomes]


def test_a_reason() -> None:
    """Health is what it is told to be."""
    doorway: Any = Doorway()
    doorway.backend.reason = "the storage is far away"
    assert doorway.door.health() == "the storage is far away"


def test_memory_knows_nothing() -> None:
    """However often it was read."""
    doorway = Doorway()
    command: Command = Set(b"k", b"v")
    doorway.blocking().run(command)
    for _ in range(3):
        doorway.blocking().run(Get(b"k"))
        assert doorway.session.get_now(b"k") == (False, None)
