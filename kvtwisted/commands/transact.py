"""Transact: change many keys if conditions hold, all or nothing."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Callable

from ..core.errors import KvError, TooLarge
from ..core.limits import Limits, check_count, check_key
from .command import Change
from .conditional import most_of
from .conditions import Condition
from .deciding import DecidingCommand, Decision, Kept, Look, Outcome, Present, failed
from .mutations import AddNumber, DeleteKey, Mutation, SetValue, TouchKey

#: What requests call each mutation.
_KINDS = {SetValue: "set", DeleteKey: "delete", TouchKey: "touch", AddNumber: "increment"}


class Transact(DecidingCommand):
    """If all `checks` hold, of what is there before, do all `mutations`, in order, or none of them."""

    __slots__ = ("_keys", "checks", "mutations")

    name = "transact"
    right = metric = "set"

    def __init__(
        self,
        checks: Sequence[tuple[bytes, Condition]],
        mutations: Sequence[Mutation],
        deadline: float = math.inf,
        encode: Callable[[Any], Any] | None = None,
    ) -> None:
        """UTF-8 for keys, any bytes for values."""
        size = sum([len(key) + len(condition.operand) for key, condition in checks])
        for mutation in mutations:
            size += len(mutation.key) + (len(mutation.value) if isinstance(mutation, SetValue) else 0)
        DecidingCommand.__init__(self, size, deadline)
        self.checks = checks
        self.mutations = mutations
        self.encode = encode
        self._keys = [*dict.fromkeys([*[key for key, _ in checks], *[mutation.key for mutation in mutations]])]

    @property
    def count(self) -> int:
        """Checks and mutations."""
        return len(self.checks) + len(self.mutations)

    @property
    def keys(self) -> Collection[bytes]:
        """Those of checks and mutations, each once."""
        return self._keys

    @property
    def needs(self) -> Sequence[tuple[str, Collection[bytes]]]:
        """See `Command.needs`: what is checked or incremented tells of values."""
        read = [key for key, _ in self.checks]
        read += [mutation.key for mutation in self.mutations if isinstance(mutation, AddNumber)]
        deleted = [mutation.key for mutation in self.mutations if isinstance(mutation, DeleteKey)]
        return [(right, keys) for right, keys in (("get", read), ("delete", deleted)) if keys]

    @property
    def written(self) -> Sequence[tuple[str, Collection[bytes]]]:
        """See `Command.written`: not what is only checked."""
        stored = [mutation.key for mutation in self.mutations if not isinstance(mutation, DeleteKey)]
        deleted = [mutation.key for mutation in self.mutations if isinstance(mutation, DeleteKey)]
        return [(right, keys) for right, keys in (("set", stored), ("delete", deleted)) if keys]

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        check_count(self.count, "checks and mutations", limits.max_batch_keys)
        for number, (key, condition) in enumerate(self.checks):
            check_key(key, f"checks[{number}].key")
            condition.check(f"checks[{number}].condition")
        for number, mutation in enumerate(self.mutations):
            mutation.check(_field(number, mutation))
        if self.size > limits.max_request_bytes:
            raise TooLarge(
                f"checks and mutations: too large: {self.size} bytes were sent in all, "
                f"limits.max_request_bytes is {limits.max_request_bytes} bytes"
            )

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`: that is for what it stores; `needs` has the rest."""
        stored = [mutation.key for mutation in self.mutations if not isinstance(mutation, DeleteKey)]
        return all(key.startswith(prefixes) for key in stored)

    def decide(self, look: Look, now_ms: int) -> Decision:
        """See `DecidingCommand.decide`."""
        for number, (key, condition) in enumerate(self.checks, 1):
            if outcome := failed(number, condition, look(key)):
                return Decision((), outcome)
        pending: dict[bytes, Change] = {}
        mutated = []
        for number, mutation in enumerate(self.mutations):
            key = mutation.key
            there = look(key) if key not in pending else _present(pending[key])
            try:
                change, done = mutation.apply(there, now_ms)
            except KvError as error:
                raise type(error)(f"{_field(number, mutation)}{error}") from None
            mutated.append(done)
            if change is not None:
                before = pending.get(key)
                if type(change[1]) is Kept and before is not None:
                    change = key, before[1], change[2]  # what a mutation before it stored, or kept too
                pending[key] = change
        return Decision(list(pending.values()), Outcome(mutated=mutated))

    def changes(self, expires_at_ms: int) -> list[Change]:
        """See `DecidingCommand.changes`."""
        return [change for mutation in self.mutations for change in most_of(mutation)]


def _present(change: Change) -> Present | None:
    _, value, expires_at_ms = change
    return None if value is None else Present(value, expires_at_ms)


def _field(number: int, mutation: Mutation) -> str:
    """What messages about a mutation begin with, as requests name it."""
    return f"mutations[{number}].{_KINDS[type(mutation)]}."
