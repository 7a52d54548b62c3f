"""Batches that are read without protobuf's text mean what they mean to protobuf, whatever is in them."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from kvtwisted.rpc import quick_batches as quick
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import METHODS, Call
from kvtwisted.rpc.varints import varint

#: Says that these are about no backend.
WITHOUT_BACKEND = True

_CALL = Call(1.0, 4_194_304)
_SIZES = st.sampled_from([0, 1, 126, 127, 128, 300, 16_383, 16_384])
_text = st.text(max_size=20) | st.sampled_from(["", "k", "ü", "\x00", "\x7f", "\x80"]) | _SIZES.map("v".__mul__)
_pairs = st.dictionaries(_text, _text, max_size=8)
_ttl = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1])

_bytes = _text.map(str.encode) | st.binary(max_size=5)


def _of(number: int, contents: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """A field with a length, which may be wrong."""
    tag = bytes((number << 3 | 2,))
    more = st.sampled_from([0] * 8 + [-1, 1, 128, 2**31])
    return st.builds(lambda content, more: tag + varint(max(0, len(content) + more)) + content, contents, more)


#: Fields of entries and messages, in any number and order, with strangers among them.
_stray = st.sampled_from([b"\x18\x07", b"\x10\x01", b"\x10", b"\x1a\x01x", b"\x0d1234", b"\x0b\x0c", b"\xff"])
_entry = st.lists(_of(1, _bytes) | _of(2, _bytes) | _stray, max_size=4).map(b"".join)
#: One key more than once, with and without a value.
_again = st.lists(
    _of(1, st.sampled_from([b"\x0a\x01k", b"\x0a\x01l", b"\x0a\x01k\x12\x01v", b"\x0a\x01k\x12\x01\xff"]))
)
_hostile = _again.map(b"".join) | st.lists(
    _of(1, _bytes) | _of(1, _entry) | _of(2, _bytes) | _of(3, _entry) | _stray, max_size=6
).map(b"".join)


def _text_of(request: Any) -> Any:
    """What protobuf finds in a request."""
    if isinstance(request, kv.MSetRequest):
        if request.data:
            return None
        return {key.encode(): value.encode() for key, value in request.key_values.items()}, request.ttl
    keys = [key.encode() for key in request.keys]
    return keys, request.as_data if isinstance(request, kv.MGetRequest) else None


@given(_hostile | st.binary(max_size=40))
@example(b"\x0a\x02\xc3\xbc")
@example(b"\x0a\x01\xc3\x0a\x01\xbc")
@example(b"\x0a\x06\x0a\x01k\x12\x01\xc3")
@example(b"\x0a\x00")
@example(b"\x0a\x05\x12\x01\x80\x18\x07")
@example(b"\x0a\x06\x0a\x01k\x12\x01\xff\x0a\x06\x0a\x01k\x12\x01v")
@example(
    b"\x0a\x06\x0a\x01k\x12\x01\xff\x0a\x06\x0a\x01k\x12\x01v"
    + b"".join(b"\x0a\x03\x0a\x01%c" % key for key in b"abcd")
)
def test_whatever_comes_means_what_it_means_to_protobuf(message: bytes) -> None:
    """What is read is what protobuf reads; what protobuf refuses is not read."""
    for request, read in (
        (kv.MGetRequest, quick.read_keys),
        (kv.MDeleteRequest, quick.read_keys),
        (kv.MSetRequest, quick.read_pairs),
    ):
        found = read(message)
        try:
            meant = _text_of(request.FromString(message))
        except DecodeError:
            assert found is None
        else:
            if found is not None and request is kv.MDeleteRequest:
                found = found[0], None  # it has no such field
            assert found in (None, meant)


@given(_pairs, _ttl, st.booleans(), st.dictionaries(_text, st.binary(max_size=5), max_size=2))
def test_good_messages_make_the_same_commands_either_way(
    pairs: dict[str, str], ttl: int, as_data: bool, data: dict[str, bytes]
) -> None:
    """Quick or plain, and with text that is not ASCII too, a method's command is the same."""
    for name, request in (
        ("MGet", kv.MGetRequest(keys=[*pairs, *pairs], as_data=as_data)),
        ("MDelete", kv.MDeleteRequest(keys=list(pairs))),
        ("MSet", kv.MSetRequest(key_values=pairs, ttl=ttl)),
        ("MSet", kv.MSetRequest(key_values=pairs, ttl=ttl, data=data)),
    ):
        method = METHODS[name]
        read, plain = method.read(request.SerializeToString(), _CALL), method.make(request, _CALL)
        assert type(read) is type(plain)
        assert read.encode is plain.encode
        assert list(read.keys) == list(plain.keys) or set(read.keys) == set(plain.keys)
        assert (read.size, read.count, read.deadline) == (plain.size, plain.count, plain.deadline)
        assert getattr(read, "pairs", None) == getattr(plain, "pairs", None)
        assert getattr(read, "ttl", None) == getattr(plain, "ttl", None)


def test_plain_batches_are_read_quickly() -> None:
    """Keys and values of ASCII are: the quick form is used at all."""
    keys = [f"key:{number:012}" for number in range(100)]
    encoded = [key.encode() for key in keys]
    assert quick.read_keys(kv.MGetRequest(keys=keys).SerializeToString()) == (encoded, False)
    assert quick.read_keys(kv.MGetRequest(keys=keys, as_data=True).SerializeToString()) == (encoded, True)
    pairs = dict.fromkeys(keys, "v" * 200)
    message = kv.MSetRequest(key_values=pairs, ttl=7).SerializeToString()
    assert quick.read_pairs(message) == ({key.encode(): b"v" * 200 for key in keys}, 7)
