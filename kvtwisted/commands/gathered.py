"""What commands that came one after the other, and go together as one command, have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from .command import Command, WriteCommand

#: Told, on the reactor thread, what became of commands of a waiter: the waiter, its tokens for them, and what the
#: subclass says. Must not raise.
Told = Callable[[Any, Sequence[Any], Any], object]


class Gathered(WriteCommand):
    """Commands that came in one turn of the reactor. What is the same for all of them is done once.

    To those who sent them each is a command of its own: it is counted as one, has a revision, and is refused or fails
    by itself. So whoever cannot do the same with all takes them one by one (`singles`).
    """

    __slots__ = ("tokens", "waiter", "waiters")

    name = right = metric = "set"

    def __init__(self, admission: Any, started: float, deadline: float) -> None:
        """None yet. All have `admission`, came about when it was `started`, and have time until the deadline."""
        WriteCommand.__init__(self, 0, deadline)
        self.admission = admission
        self.started = started
        self.ttl = 0
        #: One of each, in the order in which they came.
        self.tokens: list[Any] = []
        #: Who waits for those that are appended now.
        self.waiter: Any = None
        #: All who wait, with their tokens, in the same order.
        self.waiters: list[tuple[Any, list[Any], Told]] = []

    def join(self, waiter: Any, told: Told) -> None:
        """Those that are appended from now on are this waiter's, each with a token that tells it which one it is."""
        self.waiter = waiter
        self.tokens = []
        self.waiters.append((waiter, self.tokens, told))

    def single(self, number: int) -> WriteCommand:
        """The one with this number, from 0 on, as a command of its own."""
        raise NotImplementedError

    @staticmethod
    def told_of(single: Command) -> Any:
        """What the waiter of a single is told: what it would have been told of all, with this one alone."""
        raise NotImplementedError

    def singles(self) -> list[Any]:
        """Each as a command of its own, in their place: this one is not to be settled then."""
        singles: list[WriteCommand] = []
        for waiter, tokens, told in self.waiters:
            for token in tokens:
                single = self.single(len(singles))
                single.admission, single.started = self.admission, self.started
                single.context, single.done = (waiter, token, told, self.told_of), _tell_single
                singles.append(single)
        return singles


def _tell_single(single: Command) -> None:
    waiter, token, told, told_of = single.context
    told(waiter, (token,), told_of(single))
