"""Decompressing and parsing what comes off the wire."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.rpc.errors import CallError, Code
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.messages import decompress, is_compressed, message_limit, parse

from .support import CLASSES, MIB

#: Says that these are about no backend.
WITHOUT_BACKEND = True


@given(st.binary(max_size=2000), st.sampled_from([gzip.compress, zlib.compress]))
def test_round_trip(message: bytes, compress: object) -> None:
    """What a client compresses is recognized and comes back as it was."""
    compressed = compress(message)
    assert is_compressed(compressed)
    assert decompress(compressed, len(message)) == message


@given(st.text(max_size=50), st.text(max_size=50), st.integers(-(2**63), 2**63 - 1))
def test_no_message_looks_compressed(key: str, value: str, number: int) -> None:
    """No request, whatever is in it, is taken for compressed data."""
    for request, _ in CLASSES.values():
        fields = {
            "key": key, "value": value, "prefix": key, "cursor": value, "config": key,
            "ttl": number, "limit": number, "keys": [key, value], "key_values": {key: value}, "id": abs(number) + 1,
            "set": kv.SetRequest(key=key, value=value), "get": None, "delete": None, "increment": None, "touch": None,
            "data": value.encode(), "condition": kv.Condition(etag=value), "as_data": True, "with_etag": True,
            "start": key, "end": value, "reverse": True, "count_only": True, "delimiter": value, "delta": number,
            "all": True, "dry_run": True, "with_values": True, "after_revision": number, "checks": [kv.Check(key=key)],
            "mutations": [kv.Mutation(set=kv.SetRequest(key=key))],
        }  # fmt: skip
        if request is kv.MSetRequest:
            fields["data"] = {key: value.encode()}
        known = {name: fields[name] for name in request.DESCRIPTOR.fields_by_name}
        assert not is_compressed(request(**known).SerializeToString())


def test_field_numbers_stay_clear_of_compressed_data() -> None:
    """Field 15 would begin like deflate data; no message has it. No valid tag begins like gzip data."""
    for request, _ in CLASSES.values():
        assert 15 not in request.DESCRIPTOR.fields_by_number
    with pytest.raises(CallError):
        parse(kv.GetConfigRequest, b"\x1f\x8b")


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_the_limit_is_exact(compress: object) -> None:
    """As many bytes as the limit pass, one more does not."""
    compressed = compress(bytes(1000))
    assert decompress(compressed, 1000) == bytes(1000)
    with pytest.raises(CallError) as refused:
        decompress(compressed, 999)
    assert refused.value.code is Code.RESOURCE_EXHAUSTED


def test_a_bomb_is_not_expanded() -> None:
    """The memory that a bomb takes is bounded by the limit, not by what is in it."""
    bomb = gzip.compress(bytes(64 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(CallError):
            decompress(bomb, MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


@pytest.mark.parametrize(
    "data",
    [gzip.compress(b"a")[:-1], gzip.compress(b"a") * 2, b"\x1f\x8b", b"x\x9cx", b""],
    ids=["cut short", "twice", "no gzip", "no deflate", "empty"],
)
def test_broken_data(data: bytes) -> None:
    """Data that is cut short, goes on after its end, or is none is INVALID_ARGUMENT."""
    with pytest.raises(CallError) as refused:
        decompress(data, 100)
    assert refused.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("size", [24, 123, 124, 1000, 16_384, MIB])
def test_the_message_limit_has_room_for_the_encoding(size: int) -> None:
    """A batch at the limit fits, encoded, when its pairs have 24 bytes or more."""
    one = kv.MSetRequest(key_values={"k" * 20: "v" * (size - 20)}).ByteSize()
    pairs = 2 * MIB // size
    assert one * pairs + kv.MSetRequest(ttl=-1).ByteSize() <= message_limit(2 * MIB)
