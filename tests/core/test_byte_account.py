"""Accounts of bytes: sums, room, and who must give up what they hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.core.counting import ByteAccount, Holding


def test_sums() -> None:
    """An account has what its holders have, whichever way that changes."""
    account = ByteAccount(100)
    first, second = Holding(account), Holding(account, since=3.0)
    first.add(30)
    second.become(20)
    second.become(25)
    first.add(-10)
    assert (first.bytes, second.bytes, account.bytes, account.room) == (20, 25, 45, 55)
    assert (first.since, second.since) == (0.0, 3.0)
    first.free()
    first.free()
    assert (first.bytes, account.bytes) == (0, 25)


def test_room() -> None:
    """One that holds much may hold less more; a lower limit leaves no room, never less than none."""
    account = ByteAccount(100)
    much, little = Holding(account), Holding(account)
    much.add(40)
    assert much.fits(20)
    assert not much.fits(21)
    assert little.fits(60)
    assert not little.fits(61)
    account.limit = 30
    assert account.room == 0
    assert little.fits(0)
    assert not little.fits(1)
    assert not much.fits(0)


@given(sizes=st.lists(st.integers(0, 5)), down_to=st.integers(0, 30), at_once=st.booleans())
def test_victims(sizes: list[int], down_to: int, at_once: bool) -> None:
    """As few as it takes, in their order, none that holds nothing, whether they free it at once or later."""
    account = ByteAccount(0)
    holdings = [Holding(account) for _ in sizes]
    for holding, size in zip(holdings, sizes):
        holding.add(size)
    victims = []
    for index in account.victims(enumerate(holdings), down_to):
        victims.append(index)
        if at_once:
            holdings[index].free()
    left = sum(sizes) - sum(sizes[index] for index in victims)
    assert left <= down_to
    assert victims == [index for index in range(len(sizes)) if sizes[index] and sum(sizes[index:]) > down_to]
