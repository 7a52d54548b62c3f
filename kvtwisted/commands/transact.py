"""Transact: change many keys if conditions hold, all or nothing."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Callable

from ..core.errors import KvError, TooLarge
from ..core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES, Limits, check_count, check_key
from .command import Change
from .conditional import most_of
from .conditions import Condition, Test, etag_of
from .deciding import DecidingCommand, Decision, Kept, Look, Mutated, Outcome, Present
from .mutations import AddNumber, DeleteKey, Mutation, SetValue, TouchKey

if TYPE_CHECKING:
    from typing_extensions import TypeGuard

#: What requests call each mutation.
_KINDS = {SetValue: "set", DeleteKey: "delete", TouchKey: "touch", AddNumber: "increment"}

_FOUND, _NOT_FOUND = Mutated(True), Mutated()
_SETS = {SetValue}
_VALUE, _ETAG = Test.VALUE, Test.ETAG


class Transact(DecidingCommand):
    """If all `checks` hold, of what is there before, do all `mutations`, in order, or none of them."""

    __slots__ = ("checks", "mutations")

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
        size = sum([len(key) + len(condition[1]) for key, condition in checks])
        if _all_sets(mutations):
            keys, values, _ = zip(*mutations)
            size += sum(map(len, keys)) + sum(map(len, values))
        else:
            for mutation in mutations:
                size += len(mutation[0]) + (len(mutation[1]) if type(mutation) is SetValue else 0)
        DecidingCommand.__init__(self, size, deadline)
        self.checks = checks
        self.mutations = mutations
        self.encode = encode

    @property
    def count(self) -> int:
        """Checks and mutations."""
        return len(self.checks) + len(self.mutations)

    @property
    def keys(self) -> Collection[bytes]:
        """Those of checks and mutations, each once."""
        return [*dict.fromkeys([key for key, _ in self.checks] + [mutation[0] for mutation in self.mutations])]

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
        if not (self.checks and _all_sets(self.mutations)):
            return False
        # Column by column.
        keys, values, ttls = zip(*self.mutations)
        checked, conditions = zip(*self.checks)
        tests, operands = zip(*conditions)
        sizes = [*map(len, keys), *map(len, checked)]
        return (
            not any(ttls)
            and _ETAG not in tests
            and 0 < min(sizes) <= max(sizes) <= MAX_KEY_BYTES
            and max(map(len, values)) <= MAX_VALUE_BYTES
            and max(map(len, operands)) <= MAX_VALUE_BYTES
        )

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
        digested: dict[bytes, bytes] = {}
        for number, (key, condition) in enumerate(self.checks, 1):
            there = look(key)
            value = None if there is None else there[0]
            # What `holds` says, without the call, and with one digest of each key however often it is checked.
            if condition[0] is _VALUE:
                holds = value == condition[1]
            elif condition[0] is _ETAG and value is not None:
                if key not in digested:
                    digested[key] = etag_of(value).encode()
                holds = digested[key] == condition[1]
            else:
                holds = condition.holds(value)
            if not holds:
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


def _all_sets(mutations: Sequence[Mutation]) -> TypeGuard[Sequence[SetValue]]:
    return set(map(type, mutations)) == _SETS


def _failed(check: int, there: Present | None) -> Outcome:
    return Outcome(failed_check=check, etag="" if there is None else etag_of(there.value))


def _present(change: Change) -> Present | None:
    _, value, expires_at_ms = change
    return None if value is None else Present(value, expires_at_ms)


def _field(number: int, mutation: Mutation) -> str:
    """What messages about a mutation begin with, as requests name it."""
    return f"mutations[{number}].{_KINDS[type(mutation)]}."
