"""Sets: many that came one after the other, as one command."""

from __future__ import annotations

from typing import Any

from ..core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES, Limits, check_key, check_value
from .command import Change, Command
from .gathered import Gathered
from .set import Set


class Sets(Gathered):
    """Sets without a ttl. A waiter is told the error of its Sets, or None."""

    __slots__ = ("keys", "values")

    is_plain = True

    def __init__(self, admission: Any, started: float, deadline: float) -> None:
        """None yet. All have `admission`, came about when it was `started`, and have time until the deadline."""
        Gathered.__init__(self, admission, started, deadline)
        self.done = _tell
        #: To add one, append to these two, and to `tokens`.
        self.keys: list[bytes] = []
        self.values: list[bytes] = []

    def seal(self) -> None:
        """No more come."""
        self.size = sum(map(len, self.keys)) + sum(map(len, self.values))

    @property
    def count(self) -> int:
        """As many as there are."""
        return len(self.keys)

    @property
    def commits(self) -> int:
        """See `WriteCommand.commits`."""
        return len(self.keys)

    @property
    def is_good(self) -> bool:
        """Whether `check` would pass all of them."""
        sizes = list(map(len, self.keys))
        return min(sizes) > 0 and max(sizes) <= MAX_KEY_BYTES and max(map(len, self.values)) <= MAX_VALUE_BYTES

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        for key, value in zip(self.keys, self.values):
            check_key(key)
            check_value(value)

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return all(key.startswith(prefixes) for key in self.keys)

    def changes(self, expires_at_ms: int) -> list[Change]:
        """See `WriteCommand.changes`."""
        return [(key, value, expires_at_ms) for key, value in zip(self.keys, self.values)]

    def single(self, number: int) -> Set:
        """See `Gathered.single`."""
        return Set(self.keys[number], self.values[number], 0, self.deadline)

    @staticmethod
    def told_of(single: Command) -> BaseException | None:
        """See `Gathered.told_of`."""
        return single.error


def _tell(sets: Sets) -> None:
    for waiter, tokens, told in sets.waiters:
        told(waiter, tokens, sets.error)
