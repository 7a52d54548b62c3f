"""Decisions: conditional Sets, Touches and Increments that came one after the other, as one command."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ..core.errors import KvError
from ..core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES, Limits
from .command import Change, Command
from .conditional import ConditionalSet, Increment, MutateKey, Touch, most_of
from .conditions import Condition, Test
from .gathered import Gathered
from .mutations import AddNumber, Mutation, SetValue, TouchKey

_COMMANDS: dict[type, type[MutateKey]] = {SetValue: ConditionalSet, TouchKey: Touch, AddNumber: Increment}
_SETS = {SetValue}


class Decisions(Gathered):
    """Commands each of which may be a `ConditionalSet`, `Touch` or `Increment`.

    A waiter is told for each the `Outcome`, or the error.
    """

    __slots__ = ("_is_plain", "conditions", "count", "is_done", "mutations", "results")

    capability = MutateKey.capability

    count: int  # set by `seal`

    def __init__(self, admission: Any, started: float, deadline: float) -> None:
        """None yet. All have `admission`, came about when it was `started`, and have time until the deadline."""
        Gathered.__init__(self, admission, started, deadline)
        self.done = _tell
        #: To add one, append to these two, and to `tokens`.
        self.mutations: list[Mutation] = []
        self.conditions: list[Condition | None] = []
        #: Once they are done: for each the `Outcome`, or its error.
        self.results: Sequence[Any] = ()
        #: Whether all of them were done, and every condition held.
        self.is_done = False

    def seal(self) -> None:
        """No more come."""
        mutations = self.mutations
        keys: Collection[bytes]
        values: Collection[bytes]
        ttls: Collection[Any]
        if set(map(type, mutations)) == _SETS:
            keys, values, ttls = zip(*mutations)
        else:
            keys = [mutation[0] for mutation in mutations]
            values = [mutation[1] for mutation in mutations if type(mutation) is SetValue]
            ttls = [mutation[-1] for mutation in mutations]  # the last field of all
        tests = [condition[0] for condition in self.conditions if condition is not None]
        operands = [condition[1] for condition in self.conditions if condition is not None]
        self.count = len(mutations)
        self.size = sum(map(len, keys)) + sum(map(len, values)) + sum(map(len, operands))
        self._is_plain = (
            not any(ttls)
            and Test.ETAG not in tests
            and min(map(len, keys), default=0) > 0
            and max(map(len, keys)) <= MAX_KEY_BYTES
            and max(map(len, values), default=0) <= MAX_VALUE_BYTES
            and max(map(len, operands), default=0) <= MAX_VALUE_BYTES
        )

    @property
    def commits(self) -> int:
        """See `WriteCommand.commits`: as many as there may be."""
        return len(self.mutations)

    @property
    def keys(self) -> Collection[bytes]:
        """One of each."""
        return [mutation[0] for mutation in self.mutations]

    def check(self, limits: Limits | None) -> None:
        """See `Command.check`."""
        for mutation, condition in zip(self.mutations, self.conditions):
            mutation.check()
            if condition is not None:
                condition.check()

    @property
    def is_good(self) -> bool:
        """Whether `check` would pass all of them: of what is plain that is known already."""
        if self._is_plain:
            return True
        try:
            self.check(None)
        except KvError:
            return False
        return True

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return all(mutation[0].startswith(prefixes) for mutation in self.mutations)

    def changes(self, expires_at_ms: int) -> list[Change]:
        """See `DecidingCommand.changes`."""
        return [change for mutation in self.mutations for change in most_of(mutation)]

    def take_out(self, numbers: Collection[int]) -> list[MutateKey]:
        """Those with these numbers as commands of their own, and no longer in this one. It is sealed already."""
        singles = self.singles()
        kept = [number for number in range(self.count) if number not in numbers]
        self.results = [self.results[number] for number in kept]
        at = 0
        for place, (waiter, tokens, told) in enumerate(self.waiters):
            left = [token for number, token in enumerate(tokens, at) if number not in numbers]
            at += len(tokens)
            self.waiters[place] = waiter, left, told
        self.mutations = [self.mutations[number] for number in kept]
        self.conditions = [self.conditions[number] for number in kept]
        self.seal()
        return [singles[number] for number in numbers]

    def single(self, number: int) -> MutateKey:
        """See `Gathered.single`."""
        mutation = self.mutations[number]
        return _COMMANDS[type(mutation)](mutation, self.conditions[number], self.deadline)

    @staticmethod
    def told_of(single: Command) -> Sequence[Any]:
        """See `Gathered.told_of`."""
        return (single.result if single.error is None else single.error,)


def _tell(decisions: Decisions) -> None:
    results = decisions.results if decisions.error is None else [decisions.error] * decisions.count
    if len(decisions.waiters) == 1:
        waiter, tokens, told = decisions.waiters[0]
        told(waiter, tokens, results)
        return
    at = 0
    for waiter, tokens, told in decisions.waiters:
        told(waiter, tokens, results[at : at + len(tokens)])
        at += len(tokens)
