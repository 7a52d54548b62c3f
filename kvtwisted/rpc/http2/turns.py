"""What may be done in one turn of the reactor, of a kind of work that is not to fill it."""

from __future__ import annotations

from typing import Callable, Protocol

from twisted.internet.interfaces import IReactorTime


class Waiter(Protocol):
    """One that has work left for a later turn."""

    def go_on(self) -> None:
        """Do what may be done now; `Turns.wait` for the rest."""


class Turns:
    """Bounds a kind of work: so much in a turn of the reactor for all together. Reactor thread.

    Who comes when all is used up waits, in the order of coming.
    """

    def __init__(self, reactor: IReactorTime, amount: int, flush: Callable[[], None]) -> None:
        """`amount` is what a turn has. `flush` is called when those who waited have gone on."""
        self._reactor = reactor
        self._amount = amount
        #: What may still be done in this turn, if it is above 0.
        self.left = amount
        self._flush = flush
        self._scheduled = False
        # In the order in which they came; dictionaries, for the sake of `forget`.
        self._waiting: dict[Waiter, None] = {}
        self._waiting_longer: dict[Waiter, None] = {}

    @property
    def wanted(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting or self._waiting_longer)

    def spend(self, amount: int) -> None:
        """So much was done."""
        self.left -= amount
        self._schedule()

    def wait(self, waiter: Waiter, *, longer: bool = False) -> None:
        """Call `waiter.go_on` in a later turn, after those who wait already; `longer`: after those who did not say so.

        Of those at least one has its turn each time.
        """
        (self._waiting_longer if longer else self._waiting)[waiter] = None
        self._schedule()

    def forget(self, waiter: Waiter) -> None:
        """Stop waiting."""
        self._waiting.pop(waiter, None)
        self._waiting_longer.pop(waiter, None)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self.left = self._amount
        self._scheduled = False
        try:
            self._serve(self._waiting)
            if self._waiting_longer and self.left <= 0:
                self._take(self._waiting_longer).go_on()
            self._serve(self._waiting_longer)
        finally:
            if self.wanted:
                self._schedule()
            self._flush()

    def _serve(self, waiting: dict[Waiter, None]) -> None:
        while waiting and self.left > 0:
            self._take(waiting).go_on()

    def _take(self, waiting: dict[Waiter, None]) -> Waiter:
        waiter = next(iter(waiting))
        del waiting[waiter]
        return waiter
