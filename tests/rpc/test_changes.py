"""From messages to commands: conditions, data, mutations and ranges; and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest

from kvtwisted.commands.conditional import ConditionalDelete, ConditionalSet, Increment, Touch
from kvtwisted.commands.conditions import Condition
from kvtwisted.commands.conditions import Test as Asked
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.delete_range import DeleteRange
from kvtwisted.commands.invalid import Invalid
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.mutations import AddNumber, DeleteKey, SetValue, TouchKey
from kvtwisted.commands.scan import Scan
from kvtwisted.commands.set import Set
from kvtwisted.commands.transact import Transact
from kvtwisted.core.errors import InvalidRequest, TooLarge
from kvtwisted.core.limits import Limits
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import METHODS, Call

#: Says that these are about no backend.
WITHOUT_BACKEND = True

CALL = Call(7.0, 4_194_304)
ABSENT = kv.Condition(absent=True)
ETAG = "0123456789abcdef" * 2


def made(name: str, **fields: Any) -> Any:
    """The command of a request, which came as bytes."""
    method = METHODS[name]
    return method.read(method.request(**fields).SerializeToString(), CALL)


@pytest.mark.parametrize(
    ("message", "condition"),
    [
        (ABSENT, Condition(Asked.ABSENT)),
        (kv.Condition(present=True), Condition(Asked.PRESENT)),
        (kv.Condition(value=b""), Condition(Asked.VALUE)),
        (kv.Condition(value=b"\xff\x00"), Condition(Asked.VALUE, b"\xff\x00")),
        (kv.Condition(etag=ETAG), Condition(Asked.ETAG, ETAG.encode())),
    ],
)
def test_conditions(message: kv.Condition, condition: Condition) -> None:
    """Each kind, of each command that takes one."""
    changed = made("Set", key="k", value="v", ttl=3, condition=message)
    assert (type(changed), changed.mutation, changed.condition) == (ConditionalSet, SetValue(b"k", b"v", 3), condition)
    deleted = made("Delete", key="k", condition=message)
    assert (type(deleted), deleted.mutation, deleted.condition) == (ConditionalDelete, DeleteKey(b"k"), condition)
    touched = made("Touch", key="k", ttl=3, condition=message)
    assert (type(touched), touched.mutation, touched.condition) == (Touch, TouchKey(b"k", 3), condition)
    transact = made("Transact", checks=[kv.Check(key="k", condition=message)])
    assert transact.checks == [(b"k", condition)]
    for command in (changed, deleted, touched, transact):
        command.check(Limits())
        assert command.deadline == CALL.deadline


def test_without_a_condition() -> None:
    """They are the plain ones; a Touch need not have one."""
    assert type(made("Set", key="k", value="v")) is Set
    assert type(made("Delete", key="k")) is Delete
    assert made("Touch", key="k", ttl=3).condition is None


def test_data() -> None:
    """In place of text, also where there is none of it."""
    for data in (b"", b"\xff\xfe", b"text"):
        command = made("Set", key="k", data=data, ttl=3)
        assert (type(command), command.value, command.ttl) == (Set, data, 3)
        conditional = made("Set", key="k", data=data, condition=ABSENT)
        assert conditional.mutation == SetValue(b"k", data)
    both = made("MSet", key_values={"a": "1"}, data={"b": b"\xff", "c": b""}, ttl=3)
    assert (type(both), both.pairs, both.ttl) == (MSet, {b"a": b"1", b"b": b"\xff", b"c": b""}, 3)
    assert made("Set", key="k").value == b""


def test_numbers() -> None:
    """An Increment, of both signs."""
    command = made("Increment", key="k", delta=-(2**63), ttl=5)
    assert (type(command), command.mutation) == (Increment, AddNumber(b"k", -(2**63), 5))


def test_a_transaction() -> None:
    """Checks and mutations in their order, of every kind."""
    command = made(
        "Transact",
        checks=[kv.Check(key="a", condition=ABSENT), kv.Check(key="a", condition=kv.Condition(value=b"x"))],
        mutations=[
            kv.Mutation(set=kv.SetRequest(key="a", data=b"\xff", ttl=1)),
            kv.Mutation(delete=kv.DeleteRequest(key="b")),
            kv.Mutation(touch=kv.TouchRequest(key="c", ttl=2)),
            kv.Mutation(increment=kv.IncrementRequest(key="d", delta=3, ttl=4)),
        ],
    )
    assert type(command) is Transact
    assert command.checks == [(b"a", Condition(Asked.ABSENT)), (b"a", Condition(Asked.VALUE, b"x"))]
    assert command.mutations == [
        SetValue(b"a", b"\xff", 1), DeleteKey(b"b"), TouchKey(b"c", 2), AddNumber(b"d", 3, 4),
    ]  # fmt: skip


def test_ranges() -> None:
    """Of scans, and of keys that go."""
    scan = made(
        "ScanKeyValues", prefix="p", start="pa", end="pz", reverse=True, count_only=True, delimiter="/", cursor="pc",
        limit=4,
    )  # fmt: skip
    assert type(scan) is Scan
    asked = (scan.prefix, scan.start, scan.end, scan.delimiter, scan.cursor, scan.limit)
    assert asked == (b"p", b"pa", b"pz", b"/", b"pc", 4)
    assert scan.reverse
    assert scan.count_only
    gone = made("DeleteRange", prefix="p", start="pa", end="pz", dry_run=True)
    assert type(gone) is DeleteRange
    assert (gone.prefix, gone.start, gone.end, gone.everything, gone.dry_run) == (b"p", b"pa", b"pz", False, True)
    assert made("DeleteRange", all=True).everything


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("Set", {"value": "v", "data": b""}, "value and data: both were sent; a value is one or the other"),
        ("Set", {"condition": kv.Condition()}, "condition: must have one of absent, present, value and etag"),
        ("Set", {"condition": kv.Condition(absent=False)}, "condition.absent: must be true where it is sent"),
        ("Delete", {"condition": kv.Condition(present=False)}, "condition.present: must be true where it is sent"),
        ("Touch", {"condition": kv.Condition()}, "condition: must have one of absent, present, value and etag"),
        (
            "Transact",
            {"checks": [kv.Check(key="a", condition=ABSENT), kv.Check(key="b")]},
            "checks[1].condition: must have one of absent, present, value and etag",
        ),
        (
            "Transact",
            {"mutations": [kv.Mutation()]},
            "mutations[0].change: must be one of set, delete, touch and increment",
        ),
        (
            "Transact",
            {"mutations": [kv.Mutation(delete=kv.DeleteRequest(condition=ABSENT))]},
            "mutations[0].delete.condition: must be absent; conditions of a Transact stand in its checks",
        ),
        (
            "Transact",
            {"mutations": [kv.Mutation(set=kv.SetRequest(value="v", data=b"w"))]},
            "mutations[0].set.value and data: both were sent; a value is one or the other",
        ),
        ("MSet", {"key_values": {"k": "1"}, "data": {"k": b"1"}}, "data[k]: the key is in key_values, too"),
    ],
)
def test_what_contradicts_itself(name: str, fields: dict[str, Any], sentence: str) -> None:
    """It is refused as the command that it might have been: after its rights, and counted as that."""
    command = made(name, **({"key": "k"} if name in ("Set", "Delete", "Touch") else {}), **fields)
    assert type(command) is Invalid
    plain = made(name)
    assert (command.right, command.metric) == (plain.right, plain.metric)
    assert command.permitted((b"somewhere else",))
    with pytest.raises(InvalidRequest) as refused:
        command.check(Limits())
    assert str(refused.value) == sentence


def test_a_transaction_whose_answer_would_be_too_large() -> None:
    """It is refused before anything is done."""
    call = Call(7.0, 1_400 + 17 * 10)
    method = METHODS["Transact"]
    mutations = [kv.Mutation(delete=kv.DeleteRequest(key="k"))]
    assert type(method.make(kv.TransactRequest(mutations=mutations * 10), call)) is Transact
    with pytest.raises(
        TooLarge, match=r"mutations: too many: the answer to 100 might exceed grpc\.max_response_bytes, which is \d+$"
    ):
        method.make(kv.TransactRequest(mutations=mutations * 100), call).check(Limits())
