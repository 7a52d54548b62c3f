"""Work that is bounded in each turn of the reactor."""

from __future__ import annotations

from kvtwisted.rpc.http2.turns import Turns
from tests.support.transports import ManualReactor


class _Worker:
    def __init__(self, name: str, turns: Turns, done: list[str], pieces: int, *, longer: bool = False) -> None:
        self._name = name
        self._turns = turns
        self._done = done
        self._pieces = pieces
        self._longer = longer

    def go_on(self) -> None:
        """One piece of work, and the rest later."""
        self._done.append(self._name)
        self._turns.spend(1)
        self._pieces -= 1
        if self._pieces:
            self._turns.wait(self, longer=self._longer)


def test_so_much_in_a_turn() -> None:
    """Who waits is served in the order of coming, as much as a turn has, and at least one of those who wait longer."""
    reactor, done, flushed = ManualReactor(), list[str](), list[int]()
    turns = Turns(reactor, 3, lambda: flushed.append(len(done)))
    turns.wait(_Worker("large", turns, done, 2, longer=True), longer=True)
    for name in "ab":
        turns.wait(_Worker(name, turns, done, 4))
    while turns.wanted:
        reactor.advance(0)
    assert "".join(done).replace("large", "L") == "abaLbabLab"
    assert flushed[:3] == [4, 8, 10]
    reactor.advance(0)
    assert turns.left == 3


def test_who_is_forgotten_is_not_served() -> None:
    """Neither now nor later."""
    reactor, done = ManualReactor(), list[str]()
    turns = Turns(reactor, 1, lambda: None)
    workers = [_Worker(name, turns, done, 1, longer=longer) for name, longer in (("a", False), ("b", True))]
    for worker, longer in zip(workers, (False, True)):
        turns.wait(worker, longer=longer)
        turns.forget(worker)
    reactor.advance(0)
    assert not done
    assert not turns.wanted
