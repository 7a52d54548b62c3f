"""Writes under conditions that are read by hand mean what they mean to protobuf; those of real clients are so read."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given
from hypothesis import strategies as st

from kvtwisted.commands.conditional import MutateKey
from kvtwisted.commands.set import Set
from kvtwisted.rpc import quick_changes as quick
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import METHODS, Call

from .test_quick_messages import _field, _fields, _number, _string, _with_length, harmed, id_

#: Says that these are about no backend.
WITHOUT_BACKEND = True

_CALL = Call(7.0, 1000)
_ETAG = "0123456789abcdef" * 2
_READERS: dict[str, Callable[[bytes], quick.Change | None]] = {
    "Set": quick.read_set_if,
    "Increment": quick.read_increment,
    "Touch": quick.read_touch,
}

_int64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1, 127, 128, 2**35, -(2**63), 2**63 - 1])
_key = st.text(min_size=1, max_size=30) | st.sampled_from(["k" * 127, "k" * 128])
_data = st.binary(max_size=20) | st.sampled_from([b"", b"\xff", b"v" * 127, b"v" * 128, b"\xff" * 20_000])
_ttl = st.sampled_from([0, 0, 1, 127, 128, 3_155_760_000, -1])
_condition = st.one_of(
    st.just(kv.Condition(absent=True)),
    st.just(kv.Condition(present=True)),
    st.builds(lambda value: kv.Condition(value=value), _data),
    st.just(kv.Condition(etag=_ETAG)),
)
_odd_condition = _condition | st.sampled_from(
    [kv.Condition(), kv.Condition(absent=False), kv.Condition(present=False), kv.Condition(etag="x"),
     kv.Condition(etag="ü" * 16)]
)  # fmt: skip

#: A condition, and messages that have one, well-formed or not.
_hostile_condition = _with_length(
    _odd_condition.map(lambda condition: condition.SerializeToString())
    | _fields(_field(1, 0, _number(id_)))
    | _fields(_field(3, 2, _string))
    | _fields(_field(4, 2, _string), _field(1, 0, _number(id_)))
)
_K, _V = _field(1, 2, _string), _field(2, 2, _string)
_NUMBER = _number(id_)
_HOSTILE = {
    "Set": _fields(_K, _V, _field(5, 2, _hostile_condition))
    | _fields(_K, _V, _field(3, 0, _NUMBER), _field(4, 2, _string), _field(5, 2, _hostile_condition)),
    "Increment": _fields(_K, _field(2, 0, _NUMBER)) | _fields(_K, _field(2, 0, _NUMBER), _field(3, 0, _NUMBER)),
    "Touch": _fields(_K, _field(2, 0, _NUMBER)) | _fields(_K, _field(2, 0, _NUMBER), _field(3, 2, _hostile_condition)),
}


def meant(name: str, message: bytes) -> Any:
    """What protobuf makes of a message: the mutation and the condition; else the command, or None for no message."""
    method = METHODS[name]
    try:
        command = method.make(method.request.FromString(message), _CALL)
    except DecodeError:
        return None
    return (command.mutation, command.condition) if isinstance(command, MutateKey) else command


@pytest.mark.parametrize("name", _READERS)
@given(st.data())
@example(None)
def test_hostile_messages(name: str, data: Any) -> None:
    """What is read by hand is what protobuf reads; what that refuses, or what contradicts itself, is not read."""
    if data is None:
        messages = [
            b"", b"\x0a", b"\x0a\x01", b"\x0a\x01k", b"\x0a\x02k", b"\x0a\x01k\x10", b"\x0a\x01k\x18\x05",
            b"\x0a\x01k\x10" + b"\xff" * 9 + b"\x01", b"\x0a\x01k\x10" + b"\xff" * 9 + b"\x02",
            b"\x0a\x01k\x10" + b"\x80" * 9 + b"\x01", b"\x0a\x01k\x10" + b"\xff" * 10 + b"\x01",
            b"\x0a\x01k\x2a\x02\x08\x01", b"\x0a\x01k\x2a\x02\x08\x00", b"\x0a\x01k\x2a\x03\x08\x81\x00",
            b"\x0a\x01k\x2a\x00", b"\x0a\x01k\x1a\x02\x10\x01", b"\x0a\x01k\x2a\x04\x08\x01\x10\x01",
            b"\x0a\x01\xff\x2a\x02\x08\x01", b"\x0a\x01k\x12\x01\xff\x2a\x02\x08\x01", b"\x0a\x01k\x2a\x03\x1a\x05x",
            b"\x0a\x01k\x12\x01v\x22\x01d\x2a\x02\x08\x01", b"\x0a\x01k\x12\x00\x22\x01\xff\x2a\x02\x08\x01",
            b"\x0a\x01k\x2a\x02\x08\x01\x2a\x02\x10\x01", b"\x0a\x01k\x2a\x22\x22\x20" + b"\xc3\xbc" * 16,
        ]  # fmt: skip
    else:
        messages = [data.draw(harmed(_HOSTILE[name]))]
    for message in messages:
        read = _READERS[name](message)
        assert read is None or read == meant(name, message), message


def _read(name: str, request: Message) -> quick.Change | None:
    return _READERS[name](request.SerializeToString())


@given(_key, _data, _ttl, _condition, st.booleans())
def test_conditional_sets_are_read(key: str, data: bytes, ttl: int, condition: kv.Condition, is_data: bool) -> None:
    """What protobuf's own encoder makes, of keys up to 127 bytes, and values that there may be."""
    request = kv.SetRequest(key=key, ttl=ttl, condition=condition)
    if is_data:
        request.data = data
    else:
        request.value = data.decode("latin-1")
    expected = meant("Set", request.SerializeToString())
    assert _read("Set", request) == (expected if len(key.encode()) < 128 and ttl >= 0 else None)


@given(_key, _int64, _ttl)
def test_increments_are_read(key: str, delta: int, ttl: int) -> None:
    """Of both signs."""
    request = kv.IncrementRequest(key=key, delta=delta, ttl=ttl)
    expected = meant("Increment", request.SerializeToString())
    assert _read("Increment", request) == (expected if len(key.encode()) < 128 and ttl >= 0 else None)


@given(_key, _ttl, st.none() | _condition)
def test_touches_are_read(key: str, ttl: int, condition: kv.Condition | None) -> None:
    """With a condition or without."""
    request = kv.TouchRequest(key=key, ttl=ttl, condition=condition)
    expected = meant("Touch", request.SerializeToString())
    assert _read("Touch", request) == (expected if len(key.encode()) < 128 and ttl >= 0 else None)


def test_a_plain_set_is_none_of_these() -> None:
    """It is read by another."""
    message = kv.SetRequest(key="k", value="v", ttl=3).SerializeToString()
    assert quick.read_set_if(message) is None
    assert type(meant("Set", message)) is Set
