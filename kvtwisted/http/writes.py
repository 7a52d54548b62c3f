"""Writes as JSON says them: from the fields of a body, which `bodies` or `large_bodies` has read, to what they mean.

Every function raises an InvalidRequest that names the field, such as `mutations[3].set.value`. Text may come as a
string, from a small body, or as its UTF-8, from a large one. Limits of what commands may ask for are `core.limits`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..commands.conditions import Condition, Test
from ..commands.mutations import HIGHEST, LOWEST, AddNumber, DeleteKey, Mutation, SetValue, TouchKey
from ..core.errors import InvalidKey, InvalidRequest, InvalidTtl
from ..core.limits import check_count, encode_key
from .encodings import is_base64, value_of
from .wording import missing_field, type_of, unknown_field, wrong_type

#: The fields of each kind of mutation that it needs, and others that it may have.
MUTATIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "set": (("key", "value"), ("ttl",)),
    "delete": (("key",), ()),
    "touch": (("key",), ("ttl",)),
    "increment": (("key", "delta"), ("ttl",)),
}
#: What a condition may test.
CONDITIONS = tuple(test.value for test in Test)


class Transaction(NamedTuple):
    """The arguments of a `commands.transact.Transact`."""

    checks: Sequence[tuple[bytes, Condition]]
    mutations: Sequence[Mutation]


class Range(NamedTuple):
    """The arguments of a `commands.delete_range.DeleteRange`."""

    prefix: bytes
    start: bytes
    end: bytes
    everything: bool
    dry_run: bool


def set_of(fields: Mapping[str, object]) -> tuple[SetValue, Condition | None]:
    """What `/api/v1/set` asks for."""
    in_base64 = is_base64(fields)
    written = SetValue(key_of(fields), value_of(fields["value"], "value", in_base64), ttl_of(fields))
    return written, _condition(fields, in_base64)


def touch_of(fields: Mapping[str, object]) -> tuple[TouchKey, Condition | None]:
    """What `/api/v1/touch` asks for."""
    return TouchKey(key_of(fields), ttl_of(fields)), _condition(fields, is_base64(fields))


def increment_of(fields: Mapping[str, object], prefix: str = "") -> AddNumber:
    """What `/api/v1/increment` asks for; messages begin with `prefix`."""
    delta = _integer(fields["delta"], f"{prefix}delta", "a whole number", InvalidRequest)
    if not LOWEST <= delta <= HIGHEST:
        raise InvalidRequest(f"{prefix}delta: must be of 64 bits ({LOWEST} to {HIGHEST}), but {delta} was sent")
    return AddNumber(key_of(fields, prefix), delta, ttl_of(fields, prefix))


def transaction_of(fields: Mapping[str, object], max_keys: int) -> Transaction:
    """What `/api/v1/transact` asks for; at most `max_keys` checks and mutations."""
    in_base64 = is_base64(fields)
    checks, mutations = _array_of(fields, "checks"), _array_of(fields, "mutations")
    check_count(len(checks) + len(mutations), "checks and mutations", max_keys)
    return Transaction(
        [_check_of(check, f"checks[{number}]", in_base64) for number, check in enumerate(checks)],
        [_mutation_of(mutation, f"mutations[{number}]", in_base64) for number, mutation in enumerate(mutations)],
    )


def range_of(fields: Mapping[str, object]) -> Range:
    """What `/api/v1/delete_range` asks for."""
    prefix, start, end = [key_of(fields, name=name) if name in fields else b"" for name in ("prefix", "start", "end")]
    flags = _flag_of(fields, "all"), _flag_of(fields, "dry_run")
    return Range(prefix, start, end, *flags)


def condition_of(sent: object, field: str, in_base64: bool) -> Condition:
    """A condition: an object with exactly one of CONDITIONS."""
    ((name, operand),) = _one_of(sent, field, CONDITIONS).items()
    test = Test(name)
    if test is Test.VALUE:
        return Condition(test, value_of(operand, f"{field}.value", in_base64))
    if test is Test.ETAG:
        if not isinstance(operand, (str, bytes)):
            raise InvalidRequest(wrong_type(f"{field}.etag", "a string", operand))
        return Condition(test, operand if isinstance(operand, bytes) else operand.encode())
    if operand is not True:
        sent = "false" if operand is False else type_of(operand)
        raise InvalidRequest(f"{field}.{name}: must be true, but {sent} was sent")
    return Condition(test)


def key_of(fields: Mapping[str, object], prefix: str = "", name: str = "key") -> bytes:
    """The field of that name, which is a key or like one; raises InvalidKey."""
    key = fields[name]
    if isinstance(key, bytes):
        return key
    if not isinstance(key, str):
        raise InvalidKey(wrong_type(f"{prefix}{name}", "a string", key))
    return encode_key(key, f"{prefix}{name}")


def ttl_of(fields: Mapping[str, object], prefix: str = "") -> int:
    """The field ttl, by default 0; raises InvalidTtl."""
    return _integer(fields.get("ttl", 0), f"{prefix}ttl", "a whole number of seconds", InvalidTtl)


def _condition(fields: Mapping[str, object], in_base64: bool) -> Condition | None:
    return condition_of(fields["condition"], "condition", in_base64) if "condition" in fields else None


def _check_of(sent: object, field: str, in_base64: bool) -> tuple[bytes, Condition]:
    check = _object_of(sent, field, ("key", "condition"))
    return key_of(check, f"{field}."), condition_of(check["condition"], f"{field}.condition", in_base64)


def _mutation_of(sent: object, field: str, in_base64: bool) -> Mutation:
    ((name, change),) = _one_of(sent, field, tuple(MUTATIONS)).items()
    field = f"{field}.{name}"
    fields, prefix = _object_of(change, field, *MUTATIONS[name]), f"{field}."
    if name == "set":
        value = value_of(fields["value"], f"{prefix}value", in_base64)
        return SetValue(key_of(fields, prefix), value, ttl_of(fields, prefix))
    if name == "delete":
        return DeleteKey(key_of(fields, prefix))
    if name == "touch":
        return TouchKey(key_of(fields, prefix), ttl_of(fields, prefix))
    return increment_of(fields, prefix)


def _object_of(
    sent: object, field: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Mapping[str, object]:
    if not isinstance(sent, dict):
        raise InvalidRequest(wrong_type(field, "an object", sent))
    for name in required:
        if name not in sent:
            raise missing_field(f"{field}.{name}", field, required)
    # Where all that is needed is there, and no more, there is nothing unknown.
    if len(sent) != len(required):
        for name in sent:
            if name not in required and name not in optional:
                raise unknown_field(name, field, required + optional)
    return sent


def _one_of(sent: object, field: str, names: tuple[str, ...]) -> Mapping[str, object]:
    found = _object_of(sent, field, (), names)
    if len(found) != 1:
        raise InvalidRequest(f"{field}: must have exactly one of {', '.join(names)}; {len(found)} were sent")
    return found


def _array_of(fields: Mapping[str, object], name: str) -> Sequence[object]:
    sent = fields.get(name, [])
    if not isinstance(sent, list):
        raise InvalidRequest(wrong_type(name, "an array", sent))
    return sent


def _flag_of(fields: Mapping[str, object], name: str) -> bool:
    sent = fields.get(name, False)
    if not isinstance(sent, bool):
        raise InvalidRequest(wrong_type(name, "true or false", sent))
    return sent


def _integer(sent: object, field: str, wanted: str, error: type[InvalidRequest]) -> int:
    if not isinstance(sent, int) or isinstance(sent, bool):
        kind = "a number with a fraction or exponent" if isinstance(sent, float) else type_of(sent)
        raise error(f"{field}: must be {wanted}, but {kind} was sent")
    return sent
