"""A dict that does what commands that decide should do, in words of its own; and random commands for both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from kvtwisted.commands import conditions
from kvtwisted.commands.command import WriteCommand
from kvtwisted.commands.conditional import ConditionalDelete, ConditionalSet, Increment, Touch
from kvtwisted.commands.conditions import Condition
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.mdelete import MDelete
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.mutations import AddNumber, DeleteKey, Mutation, SetValue, TouchKey
from kvtwisted.commands.set import Set
from kvtwisted.commands.transact import Transact
from kvtwisted.core.errors import NotANumber, NumberOverflow

#: What is asked of a key: nothing, or a test's name and its operand.
Asked = tuple[str, Any]
#: What is done to a key: a name, the key, and the rest.
Done = tuple[Any, ...]

ABSENT: Asked = ("absent", None)
PRESENT: Asked = ("present", None)


def etag(value: bytes) -> str:
    """Of a value."""
    return hashlib.blake2b(value, digest_size=16).hexdigest()


def condition(asked: Asked) -> Condition:
    """The same as commands have it."""
    name, operand = asked
    if name == "etag":
        return Condition(conditions.Test.ETAG, operand.encode())
    return Condition(conditions.Test(name), operand or b"")


def mutation(done: Done) -> Mutation:
    """The same as commands have it."""
    kinds: dict[str, Any] = {"set": SetValue, "delete": DeleteKey, "touch": TouchKey, "add": AddNumber}
    made: Mutation = kinds[done[0]](*done[1:])
    return made


class Told(NamedTuple):
    """What a command should answer."""

    failed_check: int = 0
    etag: str = ""
    mutated: tuple[tuple[bool, int, bool], ...] = ()
    error: type[BaseException] | None = None
    wrote: bool = False


class Model:
    """Keys with value and deadline (0: none), at a time that a test sets."""

    def __init__(self) -> None:
        self.now = 0
        self.entries: dict[bytes, tuple[bytes, int]] = {}

    def live(self, key: bytes) -> tuple[bytes, int] | None:
        """What is at a key."""
        found = self.entries.get(key)
        return None if found is None or 0 < found[1] <= self.now else found

    def ends(self, ttl: int) -> int:
        """When what is set now ends."""
        return self.now + 1000 * ttl if ttl else 0

    def transact(self, checks: Sequence[tuple[bytes, Asked]], mutations: Sequence[Done]) -> Told:
        """All or nothing."""
        for number, (key, (name, operand)) in enumerate(checks, 1):
            there = self.live(key)
            value = None if there is None else there[0]
            holds = {
                "absent": value is None,
                "present": value is not None,
                "value": value is not None and value == operand,
                "etag": value is not None and etag(value) == operand,
            }[name]
            if not holds:
                return Told(number, "" if value is None else etag(value))
        before = dict(self.entries)
        mutated, wrote = [], False
        for done in mutations:
            key, there = done[1], self.live(done[1])
            number, created = 0, False
            if done[0] == "set":
                self.entries[key] = done[2], self.ends(done[3])
            elif done[0] == "delete":
                self.entries.pop(key, None)
            elif done[0] == "touch":
                if there is not None:
                    self.entries[key] = there[0], self.ends(done[2])
            elif there is None:
                number, created = done[2], True
                self.entries[key] = str(number).encode(), self.ends(done[3])
            else:
                try:
                    number = int(there[0])
                    canonical = str(number).encode() == there[0]
                except ValueError:
                    canonical = False
                if not canonical or abs(number) > 2**63:
                    self.entries = before
                    return Told(error=NotANumber)
                number += done[2]
                if not -(2**63) <= number < 2**63:
                    self.entries = before
                    return Told(error=NumberOverflow)
                self.entries[key] = str(number).encode(), there[1]
            wrote = wrote or done[0] != "touch" or there is not None
            mutated.append((there is not None, number, created))
        return Told(mutated=tuple(mutated), wrote=wrote)


def one(done: Done, asked: Asked | None) -> WriteCommand:
    """The command with one mutation."""
    kinds: dict[str, Any] = {"set": ConditionalSet, "delete": ConditionalDelete, "touch": Touch, "add": Increment}
    made: WriteCommand = kinds[done[0]](mutation(done), condition(asked) if asked else None)
    return made


def many(checks: Sequence[tuple[bytes, Asked]], mutations: Sequence[Done]) -> WriteCommand:
    """The command with many."""
    return Transact([(key, condition(asked)) for key, asked in checks], [mutation(done) for done in mutations])


def plain(mutations: Sequence[Done]) -> list[WriteCommand]:
    """Sets and deletions as commands that do not decide."""
    made: list[WriteCommand] = []
    for name, key, *rest in mutations:
        made.append(Set(key, *rest) if name == "set" else Delete(key))
    return made


def batch(mutations: Sequence[Done]) -> WriteCommand:
    """Sets without a ttl, of keys that differ, or deletions, as one command."""
    if mutations[0][0] == "set":
        return MSet({key: value for _, key, value, _ in mutations})
    return MDelete([done[1] for done in mutations])


KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
NUMBERS = [b"0", b"7", b"-12", b"%d" % (2**63 - 2)]
VALUES = st.sampled_from([*NUMBERS, b"", b"text", b"07", b"\xff\x00", b"x" * 40, b"y" * 60])
TTLS = st.sampled_from([0, 0, 1, 2, 5])

SETS = st.tuples(st.just("set"), KEYS, VALUES, TTLS)
DELETES = st.tuples(st.just("delete"), KEYS)
MUTATIONS = st.one_of(
    SETS,
    DELETES,
    st.tuples(st.just("touch"), KEYS, TTLS),
    st.tuples(st.just("add"), KEYS, st.sampled_from([1, -3, 2**62]), TTLS),
)
ASKED = st.one_of(
    st.just(ABSENT),
    st.just(PRESENT),
    VALUES.map(lambda value: ("value", value)),
    VALUES.map(lambda value: ("etag", etag(value))),
)
CHECKS = st.lists(st.tuples(KEYS, ASKED), max_size=3)
