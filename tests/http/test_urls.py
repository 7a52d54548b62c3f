"""Keys in paths and parameters in query strings."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.core.errors import InvalidKey, InvalidRequest
from kvtwisted.http.urls import ScanArguments, path_key, scan_arguments

from ..support.properties import repeatable

#: Says that these are about no backend.
WITHOUT_BACKEND = True

_SCAN = "scan takes prefix, limit, cursor, keys_only, start, end, reverse, count_only, delimiter, encoding, revision"

#: Any text that UTF-8 can hold.
texts = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.mark.parametrize(
    ("tail", "key"),
    [
        (b"plain", "plain"),
        (b"a/b//c/", "a/b//c/"),
        (b"a%2Fb", "a/b"),
        (b"%252F", "%2F"),
        (b"a+b", "a+b"),
        (b"a%20b", "a b"),
        (b"%3Fa%23", "?a#"),
        (b"../.", "../."),
        (b"%E2%82%AC%c3%a9", "€é"),
        (b"\xc3\xa9", "é"),
        (b"%00", "\0"),
        (b"", ""),
    ],
)
def test_keys_are_decoded_once(tail: bytes, key: str) -> None:
    """Slashes, dots and pluses are themselves; a percent sequence is decoded exactly once."""
    assert path_key(tail, b"") == key


@pytest.mark.parametrize("tail", [b"%", b"a%2", b"%zz", b"%2g", b"% 1", b"%+1", b"100%"])
def test_malformed_percent_sequences_are_refused(tail: bytes) -> None:
    """A lone % is an error, not a character."""
    with pytest.raises(InvalidKey, match="%25"):
        path_key(tail, b"")


@pytest.mark.parametrize(
    ("tail", "position"), [(b"%ff", 0), (b"a%c3", 1), (b"%ed%a0%80", 0), (b"ab\x80", 2), (b"%c0%af", 0)]
)
def test_keys_must_be_utf8(tail: bytes, position: int) -> None:
    """Cut sequences, surrogates and overlong forms are refused, and the byte is named."""
    with pytest.raises(InvalidKey, match=f"not UTF-8.*byte {position}"):
        path_key(tail, b"")


def test_a_query_behind_a_key_is_refused() -> None:
    """`?` that was not encoded would silently shorten the key."""
    with pytest.raises(InvalidKey, match="%3F"):
        path_key(b"a", b"b")


@repeatable
@given(key=texts, safe=st.sampled_from(["", "/", "/:@!$&'()*+,;=~"]))
def test_any_key_survives_its_encoding(key: str, safe: str) -> None:
    """Whatever a client leaves unencoded, the key comes back."""
    assert path_key(quote(key, safe=safe).encode(), b"") == key


def test_scan_defaults() -> None:
    """An empty query asks for the first 100 of everything, with values."""
    assert scan_arguments(b"") == ScanArguments(prefix="", limit=100, cursor="", keys_only=False)


def test_scan_parameters_are_read() -> None:
    """All four, in any order, pluses as spaces as in forms; empty pieces do not matter."""
    query = b"&keys_only=true&cursor=a%2Fb+c&&limit=10000&prefix=%E2%82%AC%2B&"
    assert scan_arguments(query) == ScanArguments(prefix="€+", limit=10_000, cursor="a/b c", keys_only=True)


def test_a_value_may_hold_equals_signs() -> None:
    """Only the first = separates."""
    assert scan_arguments(b"prefix=a=b").prefix == "a=b"


@repeatable
@given(prefix=texts, cursor=texts)
def test_any_parameters_survive_their_encoding(prefix: str, cursor: str) -> None:
    """What urlencode writes is read back."""
    arguments = scan_arguments(urlencode({"prefix": prefix, "cursor": cursor}).encode())
    assert (arguments.prefix, arguments.cursor) == (prefix, cursor)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        *[
            (b"limit=" + raw, f'limit: must be a whole number from 1 to 10000, but "{shown}" was sent')
            for raw, shown in [
                (b"", ""), (b"0", "0"), (b"-1", "-1"), (b"10001", "10001"), (b"%2B5", "+5"), (b"+5", " 5"),
                (b"1_0", "1_0"), (b"5.0", "5.0"), (b"0x10", "0x10"), (b"%D9%A5", "\u0665"), (b"%C2%B2", "\u00b2"),
                (b"000000005", "000000005"),
            ]
        ],
        *[
            (b"keys_only=" + raw, f'keys_only: must be true or false, but "{raw.decode()}" was sent')
            for raw in (b"", b"1", b"True", b"yes")
        ],
        (b"keys_only", 'keys_only: must be true or false, but "" was sent'),
        (b"prefix=a&prefix=a", "prefix: was sent more than once"),
        (b"limit=5&%6cimit=5", "limit: was sent more than once"),
        (b"Prefix=a", 'query: "Prefix" is not a parameter; ' + _SCAN),
        (b"=a", 'query: "" is not a parameter; ' + _SCAN),
        (b"prefix=%", "prefix: has a % that two hexadecimal digits do not follow; write %25 for %"),
        (b"cursor=%ff", "cursor: is not UTF-8 once decoded: invalid start byte at byte 0"),
        (b"%ff=1", "query: is not UTF-8 once decoded: invalid start byte at byte 0"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_named(query: bytes, sentence: str) -> None:
    """Unknown, repeated and malformed parameters: which one, what it must be, what was sent."""
    with pytest.raises(InvalidRequest) as caught:
        scan_arguments(query)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("query", "code"), [(b"prefix=%", "invalid_key"), (b"limit=%", "invalid_request")])
def test_codes_tell_keys_from_other_parameters(query: bytes, code: str) -> None:
    """Prefix and cursor are parts of keys; the others are not."""
    with pytest.raises(InvalidRequest) as caught:
        scan_arguments(query)
    assert caught.value.code == code
