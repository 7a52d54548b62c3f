"""What commands that decide make of what is there: no store, no thread."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.commands import conditions, transact
from kvtwisted.commands.command import WriteCommand
from kvtwisted.commands.conditional import ConditionalDelete, ConditionalSet, Increment, Touch
from kvtwisted.commands.conditions import Condition, etag_of
from kvtwisted.commands.deciding import DecidingCommand, Kept, Look, Mutated, Outcome, Present
from kvtwisted.commands.decisions import Decisions
from kvtwisted.commands.mutations import HIGHEST, LOWEST, AddNumber, DeleteKey, SetValue, TouchKey, number_of
from kvtwisted.commands.transact import Transact
from kvtwisted.core.errors import InvalidKey, InvalidRequest, InvalidTtl, KvError, NotANumber, NumberOverflow, TooLarge
from kvtwisted.core.limits import Limits

from ..support.properties import repeatable

Asks = conditions.Test
ABSENT, PRESENT = Condition(Asks.ABSENT), Condition(Asks.PRESENT)
NOW = 1_000_000
ETAG = Condition(Asks.ETAG, etag_of(b"v").encode())


def at(**there: bytes | tuple[bytes, int]) -> Look:
    """A look at these keys: values, some with a deadline."""
    found = {
        key.encode(): Present(*value) if isinstance(value, tuple) else Present(value, 0) for key, value in there.items()
    }
    return found.get


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (ABSENT, [None]),
        (PRESENT, [b"", b"v", b"w"]),
        (Condition(Asks.VALUE, b"v"), [b"v"]),
        (Condition(Asks.VALUE, b""), [b""]),
        (ETAG, [b"v"]),
    ],
)
def test_conditions(condition: Condition, holds: list[bytes | None]) -> None:
    """Of a missing key, and of some values."""
    assert [value for value in (None, b"", b"v", b"w") if condition.holds(value)] == holds


def test_etags() -> None:
    """As published for BLAKE2b with a digest of 128 bits."""
    assert etag_of(b"") == "cae66941d9efbd404e4d88758ea67670"
    assert etag_of(b"abc") == "cf4ab791c62b8d2b2109c90275287816"


@pytest.mark.parametrize(
    ("condition", "error", "message"),
    [
        (Condition(Asks.ETAG, b""), InvalidRequest, "condition.etag: must be 32 hexadecimal digits in lower case"),
        (Condition(Asks.ETAG, b"A" * 32), InvalidRequest, "condition.etag"),
        (Condition(Asks.ETAG, b"a" * 33), InvalidRequest, "condition.etag"),
        (Condition(Asks.VALUE, bytes(1_048_577)), TooLarge, "condition.value: too large"),
    ],
)
def test_conditions_that_cannot_be(condition: Condition, error: type[KvError], message: str) -> None:
    """They are refused with the field's name."""
    with pytest.raises(error, match=message):
        ConditionalSet(SetValue(b"k", b""), condition).check(Limits())
    with pytest.raises(error, match=r"checks\[1\]\." + message):
        Transact([(b"k", ABSENT), (b"k", condition)], []).check(Limits())


@pytest.mark.parametrize(
    ("value", "number"),
    [(b"0", 0), (b"-1", -1), (b"9223372036854775807", HIGHEST), (b"-9223372036854775808", LOWEST)],
)
def test_numbers(value: bytes, number: int) -> None:
    """In the text that Increment writes."""
    assert number_of(value) == number


@pytest.mark.parametrize(
    "value",
    [b"", b"-", b"+1", b"01", b"-0", b"--1", b" 1", b"1 ", b"1\n", b"1_000", b"1.0", b"0x1", b"\xd9\xa1", b"\xff",
     b"9223372036854775808", b"-9223372036854775809", b"1" * 100],
)  # fmt: skip
def test_what_is_no_number(value: bytes) -> None:
    """Whatever else."""
    with pytest.raises(NotANumber, match="not a decimal number of 64 bits"):
        number_of(value)


@pytest.mark.parametrize(
    ("command", "there", "changes", "mutated"),
    [
        (ConditionalSet(SetValue(b"k", b"new", 5), ABSENT), {}, [(b"k", b"new", NOW + 5000)], [(False, 0, False)]),
        (ConditionalSet(SetValue(b"k", b"new"), ETAG), {"k": (b"v", 9)}, [(b"k", b"new", 0)], [(True, 0, False)]),
        (ConditionalDelete(DeleteKey(b"k"), PRESENT), {"k": b"v"}, [(b"k", None, 0)], [(True, 0, False)]),
        (ConditionalDelete(DeleteKey(b"k"), ABSENT), {}, [(b"k", None, 0)], [(False, 0, False)]),
        (Touch(TouchKey(b"k", 5)), {"k": b"v"}, [(b"k", Kept(b"v"), NOW + 5000)], [(True, 0, False)]),
        (Touch(TouchKey(b"k", 0)), {"k": (b"v", 9)}, [(b"k", Kept(b"v"), 0)], [(True, 0, False)]),
        (Touch(TouchKey(b"k", 5)), {}, [], [(False, 0, False)]),
        (Increment(AddNumber(b"k", -3, 5)), {}, [(b"k", b"-3", NOW + 5000)], [(False, -3, True)]),
        (Increment(AddNumber(b"k", 2, 5)), {"k": (b"40", 9)}, [(b"k", b"42", 9)], [(True, 42, False)]),
        (
            Transact([(b"a", PRESENT), (b"b", ABSENT)], [SetValue(b"b", b"1", 5), AddNumber(b"b", 1, 9)]),
            {"a": b""},
            [(b"b", b"2", NOW + 5000)],
            [(False, 0, False), (True, 2, False)],
        ),
        (
            Transact([], [DeleteKey(b"a"), TouchKey(b"a", 5), AddNumber(b"a", 1), TouchKey(b"a", 5)]),
            {"a": b"7"},
            [(b"a", b"1", NOW + 5000)],
            [(True, 0, False), (False, 0, False), (False, 1, True), (True, 0, False)],
        ),
        (Transact([], [TouchKey(b"a", 5), TouchKey(b"a", 6)]), {"a": b"7"}, [(b"a", Kept(b"7"), NOW + 6000)],
         [(True, 0, False)] * 2),
        (Transact([], []), {}, [], []),
    ],
)  # fmt: skip
def test_decisions(command: DecidingCommand, there: dict[str, Any], changes: list[Any], mutated: list[Any]) -> None:
    """What it changes, and tells; of several mutations of one key only the end is stored."""
    command.check(Limits())
    decision = command.decide(at(**there), NOW)
    assert list(decision.changes) == changes
    assert [type(change[1]) for change in decision.changes] == [type(change[1]) for change in changes]
    assert decision.outcome == Outcome(mutated=decision.outcome.mutated)
    assert [tuple(done) for done in decision.outcome.mutated] == mutated
    # It was told no more than this for quotas and files.
    most = {key: value for key, value, _ in command.changes(0)}
    for key, value, _ in decision.changes:
        if type(value) is not Kept:
            assert len(value or b"") <= len(most[key] or b"")


@pytest.mark.parametrize(
    ("command", "there", "failed", "etag"),
    [
        (ConditionalSet(SetValue(b"k", b""), ABSENT), {"k": b"v"}, 1, etag_of(b"v")),
        (ConditionalDelete(DeleteKey(b"k"), PRESENT), {}, 1, ""),
        (Touch(TouchKey(b"k", 5), ETAG), {"k": b"w"}, 1, etag_of(b"w")),
        (Touch(TouchKey(b"k", 5), ETAG), {}, 1, ""),
        (Transact([(b"a", ABSENT), (b"b", ABSENT), (b"c", ABSENT)], [SetValue(b"x", b"")]), {"b": b"v", "c": b""}, 2,
         etag_of(b"v")),
    ],
)  # fmt: skip
def test_what_does_not_hold(command: DecidingCommand, there: dict[str, Any], failed: int, etag: str) -> None:
    """Nothing is changed; the first check that failed is told, with what is there."""
    assert command.decide(at(**there), NOW) == ((), Outcome(failed_check=failed, etag=etag))


def test_a_key_is_digested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often its etag is checked: a request would keep a thread, and writers, for seconds."""
    digested: list[bytes] = []
    monkeypatch.setattr(transact, "etag_of", lambda value: (digested.append(value), etag_of(value))[1])
    other = Condition(Asks.ETAG, etag_of(b"w").encode())
    holds: list[tuple[bytes, Condition]] = [(b"a", ETAG), (b"a", PRESENT), (b"b", other)]
    assert Transact(holds * 3, []).decide(at(a=b"v", b=b"w"), NOW).outcome.failed_check == 0
    assert digested == [b"v", b"w"]
    outcome = Transact([*holds, (b"a", other)], []).decide(at(a=b"v", b=b"w"), NOW).outcome
    assert outcome == Outcome(failed_check=4, etag=etag_of(b"v"))
    assert Transact([*holds, (b"c", ETAG)], []).decide(at(a=b"v", b=b"w"), NOW).outcome == Outcome(failed_check=4)


def test_what_cannot_be_added() -> None:
    """Beyond 64 bits, and to what is no number; of a Transact which mutation it was."""
    with pytest.raises(NumberOverflow, match="delta: the sum would be beyond 64 bits"):
        Increment(AddNumber(b"k", 1)).decide(at(k=b"%d" % HIGHEST), NOW)
    with pytest.raises(NumberOverflow):
        Increment(AddNumber(b"k", -1)).decide(at(k=b"%d" % LOWEST), NOW)
    both = Transact([], [SetValue(b"k", b"x"), AddNumber(b"k", 1)])
    with pytest.raises(NotANumber, match=r"^mutations\[1\]\.increment\.key: the value is not"):
        both.decide(at(), NOW)


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        (Touch(TouchKey(b"", 5)), InvalidKey, "^key: must not be empty"),
        (Touch(TouchKey(b"k", -1)), InvalidTtl, "^ttl: must not be negative"),
        (Increment(AddNumber(b"k", 1, -1)), InvalidTtl, "^ttl"),
        (ConditionalSet(SetValue(b"k", bytes(1_048_577)), ABSENT), TooLarge, "^value: too large"),
        (ConditionalDelete(DeleteKey(b"k" * 1025), ABSENT), InvalidKey, "^key: too long"),
        (Transact([(b"", ABSENT)], []), InvalidKey, r"^checks\[0\]\.key"),
        (Transact([], [DeleteKey(b"k"), SetValue(b"k", b"", -1)]), InvalidTtl, r"^mutations\[1\]\.set\.ttl"),
        (Transact([(b"k", ABSENT)] * 2, [DeleteKey(b"k")]), TooLarge, "too many: 3 keys were sent"),
        (Transact([(b"k", Condition(Asks.VALUE, b"abcde"))], [SetValue(b"k", b"abcde")]), TooLarge, "12 bytes were"),
    ],
)  # fmt: skip
def test_what_cannot_be(command: DecidingCommand, error: type[KvError], message: str) -> None:
    """It is refused, and the message names the field and the limit."""
    with pytest.raises(error, match=message):
        command.check(Limits(max_batch_keys=2, max_request_bytes=11))


@pytest.mark.parametrize(
    ("command", "right", "keys", "needs", "written"),
    [
        (ConditionalSet(SetValue(b"k", b""), ABSENT), "set", [b"k"], {"get": [b"k"]}, {"set": [b"k"]}),
        (ConditionalDelete(DeleteKey(b"k"), ABSENT), "delete", [b"k"], {"get": [b"k"]}, {"delete": [b"k"]}),
        (Touch(TouchKey(b"k", 5)), "set", [b"k"], {}, {"set": [b"k"]}),
        (Touch(TouchKey(b"k", 5), PRESENT), "set", [b"k"], {"get": [b"k"]}, {"set": [b"k"]}),
        (Increment(AddNumber(b"k", 5)), "set", [b"k"], {"get": [b"k"]}, {"set": [b"k"]}),
        (
            Transact(
                [(b"c", ABSENT), (b"s", ABSENT)],
                [SetValue(b"s", b""), DeleteKey(b"d"), TouchKey(b"t", 5), AddNumber(b"n", 1)],
            ),
            "set",
            [b"c", b"s", b"d", b"t", b"n"],
            {"get": [b"c", b"s", b"n"], "delete": [b"d"]},
            {"set": [b"s", b"t", b"n"], "delete": [b"d"]},
        ),
        (Transact([], [DeleteKey(b"d")]), "set", [b"d"], {"delete": [b"d"]}, {"delete": [b"d"]}),
    ],
)  # fmt: skip
def test_rights(
    command: WriteCommand, right: str, keys: list[bytes], needs: dict[str, Any], written: dict[str, Any]
) -> None:
    """What it needs besides its own right, for which keys, and what the audit log says that it changes."""

    def listed(said: Collection[tuple[str, Collection[bytes]]]) -> dict[str, list[bytes]]:
        return {operation: list(of) for operation, of in said}

    assert (command.right, list(command.keys)) == (right, keys)
    assert listed(command.needs) == needs
    assert listed(command.written) == written


def test_what_it_is_told() -> None:
    """The result of a command with one mutation."""
    assert Outcome(mutated=(Mutated(True, 5),)).only == (True, 5, False)
    assert Outcome(failed_check=1).only == Mutated()


_SIZES = st.sampled_from([0, 1, 1024, 1025])
_KEYS = _SIZES.map(lambda size: b"k" * size)
_VALUES = st.sampled_from([b"", b"v", bytes(1_048_576), bytes(1_048_577)])
_TTLS = st.sampled_from([0, 0, 1, -1, 3_155_760_001])
_SETS = st.builds(SetValue, _KEYS, _VALUES, _TTLS)
_STORED = st.one_of(_SETS, st.builds(TouchKey, _KEYS, _TTLS), st.builds(AddNumber, _KEYS, st.just(1), _TTLS))
_TESTS = st.one_of(
    st.sampled_from([ABSENT, PRESENT, ETAG, Condition(Asks.ETAG, b"none")]), _VALUES.map(partial(Condition, Asks.VALUE))
)


def _is_refused(check: Callable[[], object]) -> bool:
    try:
        check()
    except KvError:
        return True
    return False


@repeatable
@given(
    st.lists(st.tuples(_KEYS, _TESTS), max_size=3),
    st.lists(st.one_of(_SETS, _SETS, _STORED, st.builds(DeleteKey, _KEYS)), max_size=3),
)
def test_a_transact_is_checked_the_same_in_fewer_steps(checks: list[Any], mutations: list[Any]) -> None:
    """What is plain at a glance would pass each check by itself; whatever else is looked at one by one."""
    command = Transact(checks, mutations)
    limits = Limits(max_request_bytes=1 << 30)
    assert _is_refused(lambda: command.check(limits)) is _is_refused(command._check_each)


@repeatable
@given(st.lists(st.tuples(_STORED, st.none() | _TESTS), min_size=1, max_size=4))
def test_decisions_are_good_if_each_is(asked: list[Any]) -> None:
    """Known at a glance, or not: it is what each command says by itself."""
    decisions = Decisions(None, 0.0, math.inf)
    decisions.join(None, lambda *told: None)
    for number, (mutation, condition) in enumerate(asked):
        decisions.mutations.append(mutation)
        decisions.conditions.append(condition)
        decisions.tokens.append(number)
    decisions.seal()
    singles = decisions.singles()
    assert [(single.mutation, single.condition) for single in singles] == asked
    assert decisions.size == sum(single.size for single in singles)
    assert decisions.is_good is not any(_is_refused(partial(single.check, Limits())) for single in singles)
