"""Transact: change many keys if conditions hold, all or nothing."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Callable

from ..core.errors import KvError, TooLarge
from ..core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES, Limits, check_count, check_key
from .command import Change
from .conditional import most_of
from .conditions import Condition, Test, etag_of
from .deciding import DecidingCommand, Decision, Kept, Look, Mutated, Outcome, Present
from .mutations import AddNumber, DeleteKey, Mutation, SetValue, TouchKey

#: What requests call each mutation.
_KINDS = {SetValue: "set", DeleteKey: "delete", TouchKey: "touch", AddNumber: "increment"}

_FOUND, _NOT_FOUND = Mutated(True), Mutated()


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
        if not self._is_plain():
            self._check_each()
        if self.size > limits.max_request_bytes:
            raise TooLarge(
                f"checks and mutations: too large: {self.size} bytes were sent in all, "
                f"limits.max_request_bytes is {limits.max_request_bytes} bytes"
            )

    def _is_plain(self) -> bool:
        """Whether there is nothing wrong with any of them for certain: that is known in fewer steps."""
        sizes = list(map(len, self._keys))
        odd: list[Any] = [mutation for mutation in self.mutations if type(mutation) is not SetValue or mutation[2]]
        odd += [0 for _, (test, operand) in self.checks if test is Test.ETAG or len(operand) > MAX_VALUE_BYTES]
        if odd or not sizes:
            return False
        largest = max([len(mutation[1]) for mutation in self.mutations], default=0)  # type: ignore[misc, arg-type]
        return largest <= MAX_VALUE_BYTES and 0 < min(sizes) <= max(sizes) <= MAX_KEY_BYTES

    def _check_each(self) -> None:
        for number, (key, condition) in enumerate(self.checks):
            check_key(key, f"checks[{number}].key")
            condition.check(f"checks[{number}].condition")
        for number, mutation in enumerate(self.mutations):
            mutation.check(_field(number, mutation))

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`: that is for what it stores; `needs` has the rest."""
        stored = [mutation.key for mutation in self.mutations if not isinstance(mutation, DeleteKey)]
        return all(key.startswith(prefixes) for key in stored)

    def decide(self, look: Look, now_ms: int) -> Decision:
        """See `DecidingCommand.decide`."""
        for number, (key, condition) in enumerate(self.checks, 1):
            there = look(key)
            if not condition.holds(None if there is None else there[0]):
                return Decision((), _failed(number, there))
        pending: dict[bytes, Change] = {}
        mutated = []
        for number, mutation in enumerate(self.mutations):
            key = mutation[0]
            there = look(key) if key not in pending else _present(pending[key])
            if type(mutation) is SetValue and not mutation[2]:
                # What its `apply` says, without the call.
                pending[key] = key, mutation[1], 0
                mutated.append(_NOT_FOUND if there is None else _FOUND)
                continue
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


def _failed(check: int, there: Present | None) -> Outcome:
    return Outcome(failed_check=check, etag="" if there is None else etag_of(there.value))


def _present(change: Change) -> Present | None:
    _, value, expires_at_ms = change
    return None if value is None else Present(value, expires_at_ms)


def _field(number: int, mutation: Mutation) -> str:
    """What messages about a mutation begin with, as requests name it."""
    return f"mutations[{number}].{_KINDS[type(mutation)]}."
