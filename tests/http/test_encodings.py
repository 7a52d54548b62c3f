"""Values in base64: every value comes back, and each has one spelling."""

from __future__ import annotations

import base64
import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.core.errors import InvalidRequest, InvalidValue, ValueNotText
from kvtwisted.core.limits import MAX_VALUE_BYTES
from kvtwisted.http.encodings import MAX_CHARACTERS, decoded, encoded, is_base64, text_of, value_of

from ..support.properties import repeatable

#: Says that these are about no backend.
WITHOUT_BACKEND = True


@repeatable
@given(st.binary(max_size=80))
def test_any_bytes_survive(value: bytes) -> None:
    """What is encoded is what everybody else's base64 is, and decodes to the value."""
    text = encoded(value)
    assert text == base64.b64encode(value).decode()
    assert decoded(text.encode(), "value") == value


@repeatable
@given(st.text("AQZaz09+/=-_ \n", max_size=12) | st.text(max_size=6))
def test_one_spelling_for_each_value(text: str) -> None:
    """Whatever is taken is what the value would be answered as."""
    try:
        value = decoded(text.encode(), "value")
    except InvalidValue:
        try:
            value = base64.b64decode(text.encode(), validate=True)
        except binascii.Error:
            return
        assert encoded(value) != text
    else:
        assert encoded(value) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("YQ", "4 characters"), ("YQ=", "4 characters"), ("YWI", "4 characters"), ("Y", "4 characters"),
        ("====", "4 characters"), ("Y===", "4 characters"), ("YWJj=", "4 characters"), ("=", "4 characters"),
        ("YWJj====", "4 characters"), ("YW Jj", "only A-Z"), ("YWJj\n", "only A-Z"), ("YW-_", "only A-Z"),
        ("YQ==YQ==", "only A-Z"), ("=YWJ", "only A-Z"), ("é", "only A-Z"), ("YR==", "lost"), ("YWJ=", "lost"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, why: str) -> None:
    """Missing padding, too much, characters of other alphabets, line ends, and bits that mean nothing."""
    with pytest.raises(InvalidValue, match=rf"^x\.value: is not base64: .*{why}"):
        value_of(text, "x.value", True)


def test_the_largest_value_has_so_many_characters() -> None:
    """As many are read of a large body."""
    assert len(encoded(bytes(MAX_VALUE_BYTES))) == MAX_CHARACTERS


def test_the_encoding_is_base64_or_absent() -> None:
    """Nothing else, of whatever type."""
    assert [is_base64({}), is_base64({"encoding": "base64"})] == [False, True]
    for sent in ("", "BASE64", "text", None, 64, True, ["base64"]):
        with pytest.raises(InvalidRequest, match=r"^encoding: must be"):
            is_base64({"encoding": sent})


def test_values_are_strings() -> None:
    """Text, base64, or the UTF-8 of either."""
    assert [value_of("é", "v", False), value_of(b"\xc3\xa9", "v", False)] == ["é".encode()] * 2
    assert [value_of("/w==", "v", True), value_of(b"/w==", "v", True)] == [b"\xff"] * 2
    for sent in (None, 1, [], {}, True):
        with pytest.raises(InvalidValue, match=r"^v: must be a string, but"):
            value_of(sent, "v", True)


def test_text_is_never_mangled() -> None:
    """What is not UTF-8 is no text."""
    assert text_of("é".encode()) == "é"
    for value in (b"\xff", b"a\xc3", b"\xed\xa0\x80"):
        with pytest.raises(ValueNotText, match="encoding=base64"):
            text_of(value)
