"""Places for streams, without a transport."""

from __future__ import annotations

import pytest

from kvtwisted.rpc.errors import CallError
from kvtwisted.rpc.stream_slots import Places


@pytest.mark.parametrize(("capacity", "share"), [(1, 1), (2, 1), (3, 2), (100, 75)])
def test_shares(capacity: int, share: int) -> None:
    """Three quarters, rounded down but for the last one; who has no share may have all."""
    places = Places("streams", "a limit", capacity, "owner")
    for _ in range(share):
        places.enter("a")
    # All is taken when a single one is: that is said first.
    more = f", of which each owner may have {share}" if share < capacity else ""
    with pytest.raises(CallError, match=f"^too many streams: a limit is {capacity}{more}; try again$"):
        places.enter("a")
    for _ in range(capacity - share):
        places.enter()
    for owner in ("a", "b", None):
        with pytest.raises(CallError, match=f"^too many streams: a limit is {capacity}; try again$"):
            places.enter(owner)
    assert (places.open, places.refused) == (capacity, 4)
    for _ in range(share):
        places.leave("a")
    for _ in range(capacity - share):
        places.leave()
    for _ in range(capacity):
        places.enter()


def test_nothing_is_kept_of_owners_who_left() -> None:
    """However many there were: an address costs nothing for longer than its streams."""
    places = Places("streams", "a limit", 10, "owner")
    for number in range(100):
        places.enter(f"{number}")
        places.leave(f"{number}")
    assert (places.open, places._counts._by_owner) == (0, {})
