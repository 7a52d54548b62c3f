"""Counts of what stays open."""

from __future__ import annotations

import pytest

from kvtwisted.sessions.shares import IN_ALL, OF_OWNER, Shares, three_quarters


def test_in_all_and_by_owner() -> None:
    """Who has a share is refused at its end, everybody at that of all; what left makes room."""
    shares = Shares()
    assert [shares.enter("a", 4, 2) for _ in range(3)] == [None, None, OF_OWNER]
    assert [shares.enter("b", 4, 2), shares.enter(None, 4, 2)] == [None, None]
    assert [shares.enter(owner, 4, 2) for owner in ("a", "b", None)] == [IN_ALL] * 3
    assert shares.open == 4
    shares.leave("b")
    assert [shares.enter("a", 4, 2), shares.enter(None, 4, 2), shares.enter(None, 4, 2)] == [OF_OWNER, None, IN_ALL]
    for owner in ("a", "a", None, None):
        shares.leave(owner)
    assert shares.open == 0
    with pytest.raises(KeyError):
        shares.leave("a")


@pytest.mark.parametrize(("capacity", "share"), [(1, 1), (2, 1), (3, 2), (4, 3), (100, 75)])
def test_three_quarters(capacity: int, share: int) -> None:
    """One at least, and never all where there are several."""
    assert three_quarters(capacity) == share
