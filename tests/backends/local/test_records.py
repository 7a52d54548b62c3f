"""How a value is stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local import records
from kvtwisted.backends.local.records import Record
from kvtwisted.core.errors import Corruption

from ...support.properties import repeatable


@repeatable
@given(st.binary(max_size=64), st.integers(0, 2**64 - 1))
def test_what_is_encoded_is_decoded(value: bytes, expires_at_ms: int) -> None:
    """Any bytes with any deadline come back."""
    assert records.decode(records.encode(value, expires_at_ms)) == Record(value, expires_at_ms)


@repeatable
@given(st.text())
def test_plain_text_is_stored_as_it_is(text: str) -> None:
    """UTF-8 text that never expires is stored without any conversion."""
    assert records.encode(text.encode("utf-8", "surrogatepass"), 0) == text.encode("utf-8", "surrogatepass")


def test_envelope_layout() -> None:
    """A value with a deadline stands behind 0xFF, version 1, no flags and the deadline, big-endian."""
    assert records.encode(b"value", 0x0102030405060708) == b"\xff\x01\x00\x01\x02\x03\x04\x05\x06\x07\x08value"


def test_bytes_that_look_like_an_envelope() -> None:
    """A value whose first byte is 0xFF is put into an envelope, so that it is not taken for one."""
    assert records.encode(b"\xff\x01", 0) == b"\xff\x01\x00" + bytes(8) + b"\xff\x01"
    assert records.decode(records.encode(b"\xff", 0)) == Record(b"\xff", 0)


@pytest.mark.parametrize("size", range(1, 11))
def test_truncated_envelope(size: int) -> None:
    """An envelope that is cut short is corrupt; the message says how short."""
    whole = records.encode(b"", 5)
    assert len(whole) == 11
    with pytest.raises(Corruption, match=f"cut short: {size} of 11 bytes"):
        records.decode(whole[:size])


@pytest.mark.parametrize("version", [0, 2, 255])
def test_unknown_version(version: int) -> None:
    """Another version is refused, never read as if it were this one."""
    stored = bytes([0xFF, version, 0]) + bytes(8) + b"value"
    with pytest.raises(Corruption, match=f"envelope version {version}, flags 0x0; this server reads version 1"):
        records.decode(stored)


@pytest.mark.parametrize("flags", [2, 3, 0x80, 0xFF])
def test_unknown_flags(flags: int) -> None:
    """Any flag but IN_FILE is refused."""
    stored = bytes([0xFF, 1, flags]) + bytes(8) + b"value"
    with pytest.raises(Corruption, match=f"envelope version 1, flags {flags:#x}"):
        records.decode(stored)


def test_pointer_round_trip() -> None:
    """The pointer to a large value comes back, with the deadline or without."""
    pointer = records.Pointer(bytes(range(16)), 1_048_576, 0xDEADBEEF)
    for deadline in (0, 1_700_000_000_000):
        stored = records.encode_pointer(pointer, deadline)
        assert stored[:3] == b"\xff\x01\x01"
        assert records.decode(stored) == records.Record(b"", deadline, pointer)
        assert records.size_of(b"key", stored) == 3 + 1_048_576


def test_damaged_pointer() -> None:
    """A pointer of another length is no pointer."""
    with pytest.raises(Corruption, match="the pointer to a large value has 27 bytes instead of 28"):
        records.decode(records.encode_pointer(records.Pointer(bytes(16), 1, 1), 0)[:-1])
