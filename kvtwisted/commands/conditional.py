"""Writes of one key that depend on what is there: Set and Delete with a condition, Touch and Increment."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Callable, ClassVar

from ..core.limits import Limits
from .command import Change
from .conditions import Condition
from .deciding import DecidingCommand, Decision, Look, Outcome, failed
from .mutations import NUMBER_BYTES, DeleteKey, Mutation, SetValue, TouchKey


class MutateKey(DecidingCommand):
    """One mutation, done if the condition holds, or there is none."""

    __slots__ = ("condition", "mutation")

    #: Whether it tells of values without a condition, too.
    reads_without_condition: ClassVar[bool] = False

    def __init__(
        self,
        mutation: Mutation,
        condition: Condition | None = None,
        deadline: float = math.inf,
        encode: Callable[[Any], Any] | None = None,
    ) -> None:
        """UTF-8 for keys, any bytes for values."""
        size = len(mutation.key) + (len(mutation.value) if isinstance(mutation, SetValue) else 0)
        DecidingCommand.__init__(self, size + (len(condition.operand) if condition else 0), deadline)
        self.mutation = mutation
        self.condition = condition
        self.encode = encode

    @property
    def key(self) -> bytes:
        """That of the mutation."""
        return self.mutation.key

    @property
    def keys(self) -> Collection[bytes]:
        """The one."""
        return (self.mutation.key,)

    @property
    def needs(self) -> Sequence[tuple[str, Collection[bytes]]]:
        """See `Command.needs`: conditions and numbers tell of values."""
        return (("get", self.keys),) if self.condition or self.reads_without_condition else ()

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        self.mutation.check()
        if self.condition:
            self.condition.check()

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return self.mutation.key.startswith(prefixes)

    def decide(self, look: Look, now_ms: int) -> Decision:
        """See `DecidingCommand.decide`."""
        there = look(self.mutation.key)
        if self.condition and (outcome := failed(1, self.condition, there)):
            return Decision((), outcome)
        change, mutated = self.mutation.apply(there, now_ms)
        return Decision((change,) if change else (), Outcome(mutated=(mutated,)))

    def changes(self, expires_at_ms: int) -> list[Change]:
        """See `DecidingCommand.changes`."""
        return most_of(self.mutation)


class ConditionalSet(MutateKey):
    """Set, if the condition holds."""

    __slots__ = ()
    name = right = metric = "set"


class ConditionalDelete(MutateKey):
    """Delete, if the condition holds."""

    __slots__ = ()
    name = right = metric = "delete"


class Touch(MutateKey):
    """Change when a key expires, if the condition holds."""

    __slots__ = ()
    name = "touch"
    right = metric = "set"


class Increment(MutateKey):
    """Add to a number."""

    __slots__ = ()
    name = "increment"
    right = metric = "set"
    reads_without_condition = True


def most_of(mutation: Mutation) -> list[Change]:
    """What a mutation stores or deletes at most."""
    if isinstance(mutation, SetValue):
        return [(mutation.key, mutation.value, 0)]
    if isinstance(mutation, DeleteKey):
        return [(mutation.key, None, 0)]
    return [] if isinstance(mutation, TouchKey) else [(mutation.key, b"0" * NUMBER_BYTES, 0)]
