"""Slots for streams, without a transport."""

from __future__ import annotations

import pytest

from kvtwisted.core.errors import Overloaded
from kvtwisted.sessions.slots import Slots


@pytest.mark.parametrize(("capacity", "share"), [(1, 1), (2, 1), (3, 2), (100, 75)])
def test_shares(capacity: int, share: int) -> None:
    """Three quarters, rounded down but for the last one; who has no share may have all."""
    slots = Slots("streams", "a limit", capacity, "owner")
    for _ in range(share):
        slots.enter("a")
    # All is taken when a single one is: that is said first.
    more = f", of which each owner may have {share}" if share < capacity else ""
    with pytest.raises(Overloaded, match=f"^too many streams: a limit is {capacity}{more}; try again$"):
        slots.enter("a")
    for _ in range(capacity - share):
        slots.enter()
    for owner in ("a", "b", None):
        with pytest.raises(Overloaded, match=f"^too many streams: a limit is {capacity}; try again$"):
            slots.enter(owner)
    assert (slots.open, slots.refused) == (capacity, 4)
    for _ in range(share):
        slots.leave("a")
    for _ in range(capacity - share):
        slots.leave()
    for _ in range(capacity):
        slots.enter()


def test_nothing_is_kept_of_owners_who_left() -> None:
    """However many there were: an address costs nothing for longer than its streams."""
    slots = Slots("streams", "a limit", 10, "owner")
    for number in range(100):
        slots.enter(f"{number}")
        slots.leave(f"{number}")
    assert (slots.open, slots._counts._by_owner) == (0, {})
