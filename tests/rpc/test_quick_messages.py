"""Messages read by hand mean what they mean to protobuf, whatever is in them; and those of real clients are so read."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from kvtwisted.commands.command import NEVER_TEXT
from kvtwisted.commands.conditions import Condition
from kvtwisted.core.errors import InvalidRequest
from kvtwisted.rpc import pipeline
from kvtwisted.rpc import quick_messages as quick
from kvtwisted.rpc import quick_operations as operations
from kvtwisted.rpc.changes import condition_of
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.varints import varint

#: Says that these are about no backend.
WITHOUT_BACKEND = True

_FIELDS = {operations.SET: "set", operations.GET: "get", operations.DELETE: "delete"}

_text = st.text(max_size=20) | st.sampled_from(["", "k", "ü", "\x00", "v" * 127, "v" * 128, "v" * 300, "ж" * 100])
_key = st.text(min_size=1, max_size=30)
_value = st.text(max_size=30) | st.integers(0, 70_000).map("v".__mul__)
_ttl = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 127, 128, 3_155_760_000, 2**35 - 1, 2**35, -1])
#: Numbers of 64 bits.
id_ = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 127, 128, 2**56, 2**63 - 1, 2**63, 2**64 - 1])


@st.composite
def _number(draw: Any, numbers: st.SearchStrategy[int]) -> bytes:
    """A number, perhaps in more bytes than it takes."""
    encoded = varint(draw(numbers))
    more = draw(st.sampled_from([0, 0, 0, 0, 1, 2, 4, 9, 10]))
    if not more:
        return encoded
    return encoded[:-1] + bytes((encoded[-1] | 0x80,)) + b"\x80" * (more - 1) + b"\x00"


@st.composite
def _with_length(draw: Any, contents: st.SearchStrategy[bytes]) -> bytes:
    """Bytes after their length, which may be wrong."""
    content = draw(contents)
    length = len(content) + draw(st.sampled_from([0] * 8 + [-1, 1, 128, 2**31, 2**32]))
    return draw(_number(st.just(max(0, length)))) + content


def _field(number: int, kind: int, contents: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(bytes.__add__, _number(st.just(number << 3 | kind)), contents)


#: Fields of any number and kind, well-formed or not.
_stray = st.integers(0, 20).flatmap(
    lambda number: st.one_of(
        _field(number, 0, _number(id_)),
        _field(number, 1, st.binary(min_size=8, max_size=8)),
        _field(number, 2, _with_length(st.binary(max_size=10))),
        _field(number, 3, st.just(b"")),
        _field(number, 4, st.just(b"")),
        _field(number, 5, st.binary(min_size=4, max_size=4)),
        st.binary(max_size=3),
    )
)
_string = _with_length(_text.map(str.encode) | st.binary(max_size=5))


def _fields(*usual: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """The usual fields, each once and in order; or any, in any number and order, with strays among them."""
    return (st.tuples(*usual) | st.lists(st.one_of(*usual, _stray), max_size=5)).map(b"".join)


_KEY, _VALUE = _field(1, 2, _string), _field(2, 2, _string)
_HOSTILE_GET = _fields(_KEY)
_DATA = _field(4, 2, _string)
_FLAG = _field(2, 0, _number(st.just(1)))
_HOSTILE_SET = _fields(_KEY, _VALUE) | _fields(_KEY, _VALUE, _field(3, 0, _number(id_))) | _fields(_KEY, _DATA)
#: Such as conditions have, and Increments and Touches.
_HOSTILE_CHANGE = _fields(_KEY, _field(2, 0, _number(id_))) | _fields(
    _KEY, _field(2, 0, _number(id_)), _field(3, 2, st.just(b"\x02\x08\x01"))
)
_HOSTILE_SET_IF = _fields(_KEY, _VALUE, _field(5, 2, st.just(b"\x02\x08\x01")))
#: Operations of a pipeline, well-formed or not.
hostile_operation = st.one_of(
    *[
        _fields(_field(1, 0, _number(id_)), _field(field >> 3, 2, _with_length(asked)))
        for field, asked in (
            (operations.SET, _HOSTILE_SET),
            (operations.SET, _HOSTILE_SET_IF),
            (operations.GET, _HOSTILE_GET),
            (operations.DELETE, _HOSTILE_GET),
            (operations.INCREMENT, _HOSTILE_CHANGE),
            (operations.TOUCH, _HOSTILE_CHANGE),
        )
    ]
)


@st.composite
def harmed(draw: Any, messages: st.SearchStrategy[bytes]) -> bytes:
    """A message as it is, cut short, with a byte changed, or with more behind it."""
    message = draw(messages)
    at = draw(st.integers(0, len(message)))
    change = draw(st.sampled_from(["none", "none", "cut", "byte", "more"]))
    if change == "cut":
        return message[:at]
    if change == "byte":
        return message[:at] + draw(st.binary(min_size=1, max_size=1)) + message[at + 1 :]
    return message + draw(st.binary(max_size=3)) if change == "more" else message


def _as_get(request: Any) -> bytes:
    return request.key.encode()


def _as_set(request: Any) -> Any:
    value = request.value.encode()
    if request.HasField("data"):
        value = None if value or request.data[:1] == NEVER_TEXT else request.data
    if request.HasField("condition"):
        return request.key.encode(), value, None if request.ttl else _condition_of(request)
    return request.key.encode(), value, request.ttl


def _condition_of(request: Any) -> Condition | None:
    try:
        return condition_of(request.condition)
    except InvalidRequest:
        return None


def _as_get_as(request: Any) -> Any:
    return request.key.encode(), (request.as_data, request.with_etag)


def _agree(read: Callable[[bytes], Any], parse: Callable[[bytes], Any], message: bytes) -> None:
    """What is read by hand is what protobuf reads; what that refuses is not read."""
    given_up = read(message) is None
    try:
        expected = parse(message)
    except DecodeError:
        assert given_up
    else:
        assert given_up or read(message) == expected


@given(harmed(_HOSTILE_GET))
@example(b"")
@example(b"\x0a\x00")
@example(b"\x0a\x80\x00")
@example(b"\x0a\x01\xff")
@example(b"\x0a\x03\xed\xa0\x80")
def test_hostile_gets(message: bytes) -> None:
    """GetRequests, and DeleteRequests, which are the same."""
    _agree(quick.read_get, lambda data: _as_get(kv.GetRequest.FromString(data)), message)


@given(harmed(_fields(_KEY, _FLAG) | _fields(_KEY, _FLAG, _field(3, 0, _number(st.just(1))))))
@example(b"\x0a\x01k\x10\x00")
@example(b"\x0a\x01\xff\x10\x01")
@example(b"\x0a\x05k\x10\x01")
def test_hostile_gets_of_data(message: bytes) -> None:
    """GetRequests that ask for data, or the etag."""
    _agree(quick.read_get_as, lambda data: _as_get_as(kv.GetRequest.FromString(data)), message)


@pytest.mark.parametrize("how", [(True, False), (False, True), (True, True)])
def test_gets_of_data_are_read(how: tuple[bool, bool]) -> None:
    """As protobuf's own encoder makes them."""
    message = kv.GetRequest(key="ü", as_data=how[0], with_etag=how[1]).SerializeToString()
    assert quick.read_get_as(message) == ("ü".encode(), how)
    assert quick.read_get_as(kv.GetRequest(key="k").SerializeToString()) is None


@given(harmed(_HOSTILE_SET | _HOSTILE_SET_IF))
@example(b"\x0a\x01k\x12\x01v\x2a\x02\x08\x01")
@example(b"\x0a\x01k\x12\x01v\x2a\x03\x1a\x01x")
@example(b"\x0a\x01k\x12\x01v\x2a\x04\x08\x01\x10\x01")
@example(b"\x0a\x01k\x12\x01v\x2a\x00")
@example(b"")
@example(b"\x0a\x01k\x12\x00\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\x0a\x01k\x12\x00\x18\x01\x18\x02")
@example(b"\x0a\x01k\x12\x01\xff")
def test_hostile_sets(message: bytes) -> None:
    """SetRequests."""
    _agree(quick.read_set, lambda data: _as_set(kv.SetRequest.FromString(data)), message)


def _as_operation(message: bytes) -> tuple[Any, ...]:
    request = kv.PipelineRequest.FromString(message)
    field = request.WhichOneof("operation")
    if field is None:
        raise DecodeError("is for protobuf's way to refuse")
    asked = getattr(request, field)
    if field in ("increment", "touch") or (field == "set" and asked.HasField("condition")):
        by_protobuf = pipeline._read(message)
        assert isinstance(by_protobuf, tuple)
        return request.id, *by_protobuf[1:]
    (tag,) = [tag for tag, name in _FIELDS.items() if name == field]
    return request.id, tag, *(_as_set(asked) if field == "set" else (_as_get(asked), b"", 0))


def _read(message: bytes) -> tuple[Any, ...] | None:
    read = operations.read_operation(message)
    if read is None:
        return None
    id_field, *others = read
    number = kv.PipelineResponse.FromString(id_field).id
    assert id_field == b"\x08" + varint(number), "an answer would begin with another encoding of the id"
    return number, *others


@given(harmed(hostile_operation))
@example(b"")
@example(b"\x08")
@example(b"\x08" + b"\xff" * 9 + b"\x02\x1a\x03\x0a\x01k")
@example(b"\x08\x80\x00\x1a\x03\x0a\x01k")
@example(b"\x08\x01\x1a\x03\x0a\x01k\x12\x06\x0a\x01k\x12\x01v")
@example(b"\x08\x01\x1a\x03\x0a\x01k\x08\x02")
@example(b"\x08\x01\x1a\x02\x0a\x01k")
def test_hostile_operations(message: bytes) -> None:
    """Operations of a pipeline: ids, one operation in a message or several."""
    _agree(_read, _as_operation, message)


def test_an_endless_id() -> None:
    """A number without an end is not followed to the end of the message."""

    class Watched(bytes):
        furthest = 0

        def __getitem__(self, index: Any) -> Any:
            Watched.furthest = max(Watched.furthest, index)
            return bytes.__getitem__(self, index)

    assert operations.read_operation(Watched(b"\x08" + b"\xff" * 1000)) is None
    assert operations.read_operation(Watched(b"\x1a" + b"\xff" * 1000)) is None
    assert Watched.furthest < 20


@given(_key, _value, _ttl)
def test_plain_requests_are_read(key: str, value: str, ttl: int) -> None:
    """What protobuf's own encoder makes is read by hand: keys up to 127 bytes, values and ttls that there may be."""
    get = kv.GetRequest(key=key).SerializeToString()
    assert quick.read_get(get) == key.encode()
    if value:
        set_ = kv.SetRequest(key=key, value=value, ttl=ttl).SerializeToString()
        expected = (key.encode(), value.encode(), ttl)
        assert quick.read_set(set_) == (expected if 0 <= ttl < 2**35 else None)


@given(_key, st.binary(max_size=30) | st.integers(0, 70_000).map(b"v".__mul__))
@example("k", b"\xff")
def test_plain_data_is_read(key: str, data: bytes) -> None:
    """As text is, but for what begins as no text does: that goes by itself."""
    read = quick.read_set(kv.SetRequest(key=key, data=data).SerializeToString())
    assert read == (None if data[:1] == NEVER_TEXT else (key.encode(), data, 0))


@given(id_, st.sampled_from(sorted(_FIELDS)), _key, _value.filter(bool))
def test_plain_operations_are_read(number: int, tag: int, key: str, value: str) -> None:
    """So are operations of any id."""
    request = kv.PipelineRequest(id=number)
    asked = getattr(request, _FIELDS[tag])
    asked.key = key
    if tag == operations.SET:
        asked.value = value
    expected = (number, tag, key.encode(), value.encode() if tag == operations.SET else b"", 0)
    assert _read(request.SerializeToString()) == expected


@pytest.mark.parametrize("size", [127, 128, 1024])
def test_long_keys(size: int) -> None:
    """Keys that are longer than most are left to protobuf."""
    key = "k" * size
    read = quick.read_get(kv.GetRequest(key=key).SerializeToString())
    assert read == (key.encode() if size < 128 else None)
