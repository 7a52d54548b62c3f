"""Entries that are put together by hand are those that protobuf makes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvtwisted.core.errors import Corruption
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.quick_entries import encoded_entries

#: Says that these are about no backend.
WITHOUT_BACKEND = True

_SIZES = st.sampled_from([0, 1, 126, 127, 128, 300, 16_383, 16_384])
_keys = st.text(max_size=20) | _SIZES.map("k".__mul__)
_values = st.binary(max_size=20) | _SIZES.map(b"\xff".__mul__)
_deadlines = st.sampled_from([0, 1, 127, 128, 2**53, 2**63 - 1])


@given(st.lists(st.tuples(_keys, _values, _deadlines), max_size=8), st.booleans())
@example([("", b"", 0)], True)
@example([("", b"", 0)], False)
def test_entries_are_those_of_protobuf(entries: list[tuple[str, bytes, int]], expires: bool) -> None:
    """Byte for byte, whatever is in them."""
    keys = [key.encode() for key, _, _ in entries]
    values = [value for _, value, _ in entries]
    expiries = [at for _, _, at in entries] if expires else ()
    meant = kv.ScanKeyValuesResponse(
        entries=[
            kv.Entry(key=key, data=value, expires_at_ms=at if expires else 0) for key, value, at in entries
        ]
    )  # fmt: skip
    assert encoded_entries(keys, values, expiries) == meant.SerializeToString(deterministic=True)


@pytest.mark.parametrize("expiries", [(), (5,)])
def test_a_key_that_is_no_text_is_damage(expiries: tuple[int, ...]) -> None:
    """Such a key cannot have come through any interface."""
    with pytest.raises(Corruption):
        encoded_entries([b"\xff"], [b""], expiries)
