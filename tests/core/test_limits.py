"""What a request may hold."""

from __future__ import annotations

from functools import partial

import pytest

from kvtwisted.core import limits
from kvtwisted.core.errors import InvalidKey, InvalidRequest, InvalidTtl, InvalidValue, TooLarge
from kvtwisted.core.limits import Limits

EMOJI = "\N{GRINNING FACE}"


def test_key_from_1_to_1024_bytes() -> None:
    """Keys of 1 and 1,024 bytes pass."""
    limits.check_key(b"k")
    limits.check_key(b"k" * 1024)


def test_empty_key() -> None:
    """An empty key is refused; the message names field and limit."""
    with pytest.raises(InvalidKey) as caught:
        limits.check_key(b"")
    assert str(caught.value) == "key: must not be empty (1 to 1024 bytes)"


def test_key_of_1025_bytes() -> None:
    """One byte too many is refused; the message names field, limit and what was sent."""
    with pytest.raises(InvalidKey) as caught:
        limits.check_key(b"k" * 1025, "keys[3]")
    assert str(caught.value) == "keys[3]: too long: 1025 bytes were sent, the limit is 1024 bytes"


def test_key_limit_counts_bytes_of_utf8() -> None:
    """256 emoji of 4 bytes are 1,024 bytes and pass; one more letter is over."""
    limits.check_key(limits.encode_key(EMOJI * 256))
    with pytest.raises(InvalidKey, match="1025 bytes were sent"):
        limits.check_key(limits.encode_key(EMOJI * 256 + "x"))
    with pytest.raises(InvalidKey, match="1027 bytes were sent"):
        limits.check_key(limits.encode_key("abc" + EMOJI * 256))


def test_prefix_may_be_empty_but_not_longer_than_a_key() -> None:
    """A prefix has 0 to 1,024 bytes; the message names the field it is told."""
    limits.check_prefix(b"")
    limits.check_prefix(b"p" * 1024)
    with pytest.raises(InvalidKey) as caught:
        limits.check_prefix(b"p" * 1025, "cursor")
    assert str(caught.value) == "cursor: too long: 1025 bytes were sent, the limit is 1024 bytes"


@pytest.mark.parametrize("size", [0, 1, 1_048_576])
def test_value_up_to_1_mib(size: int) -> None:
    """Values of 0 to 1,048,576 bytes pass."""
    limits.check_value(bytes(size))


def test_value_of_one_byte_more() -> None:
    """1,048,577 bytes are refused; the message names field, limit and what was sent."""
    with pytest.raises(TooLarge) as caught:
        limits.check_value(bytes(1_048_577))
    assert str(caught.value) == "value: too large: 1048577 bytes were sent, the limit is 1048576 bytes"


def test_value_limit_counts_bytes_of_utf8() -> None:
    """262,144 emoji fill a value; the same number with a 2-byte letter more is over."""
    full = limits.encode_value(EMOJI * 262_144)
    limits.check_value(full)
    with pytest.raises(TooLarge, match="1048578 bytes were sent"):
        limits.check_value(full + limits.encode_value("é"))


@pytest.mark.parametrize("ttl", [0, 1, 3_155_760_000])
def test_ttl_from_0_to_100_years(ttl: int) -> None:
    """0 (never) to 100 years pass."""
    limits.check_ttl(ttl)


def test_negative_scan_limit() -> None:
    """A negative limit is refused, and 0 means none."""
    limits.check_scan_limit(0)
    with pytest.raises(InvalidRequest) as caught:
        limits.check_scan_limit(-1)
    assert str(caught.value) == "limit: must not be negative (0 means no limit): -1 was sent"


def test_negative_ttl() -> None:
    """-1 is refused; the message says what 0 means and what was sent."""
    with pytest.raises(InvalidTtl) as caught:
        limits.check_ttl(-1)
    assert str(caught.value) == "ttl: must not be negative (0 means never expires): -1 was sent"


def test_ttl_of_more_than_100_years() -> None:
    """One second over 100 years is refused; the message names field, limit and what was sent."""
    with pytest.raises(InvalidTtl) as caught:
        limits.check_ttl(3_155_760_001)
    assert str(caught.value) == "ttl: too large: 3155760001 s was sent, the limit is 3155760000 s (100 years)"


@pytest.mark.parametrize(
    ("encode", "error", "field"),
    [(limits.encode_key, InvalidKey, "key"), (limits.encode_value, InvalidValue, "value")],
)
def test_lone_surrogates(encode: partial[bytes], error: type[Exception], field: str) -> None:
    """Text with a lone surrogate is not Unicode; the message names the field and where, not the content."""
    with pytest.raises(error) as caught:
        encode("ab\ud800c")
    assert str(caught.value) == f"{field}: not valid Unicode: a lone surrogate at character 2"
    with pytest.raises(error, match=r"^keys\[7\]: not valid Unicode"):
        encode("\udfff", "keys[7]")


def test_encoding_is_utf8() -> None:
    """Text becomes its UTF-8 bytes."""
    assert limits.encode_key("é/" + EMOJI) == "é/😀".encode()
    assert limits.encode_value("") == b""


SMALL = Limits(max_batch_keys=3, max_request_bytes=10)


def test_batch_of_keys_at_the_limits() -> None:
    """As many keys, and as many bytes, as the limits allow pass; so does an empty batch."""
    limits.check_keys([], SMALL)
    limits.check_keys([b"aaaa", b"bbb", b"ccc"], SMALL)


def test_batch_of_too_many_keys() -> None:
    """One key too many is refused; the message names field, limit and what was sent."""
    with pytest.raises(TooLarge) as caught:
        limits.check_keys([b"a", b"b", b"c", b"d"], SMALL)
    assert str(caught.value) == "keys: too many: 4 keys were sent, limits.max_batch_keys is 3"


def test_batch_of_too_many_bytes() -> None:
    """One byte too many in all is refused; the message names field, limit and what was sent."""
    with pytest.raises(TooLarge) as caught:
        limits.check_keys([b"aaaa", b"bbb", b"cccc"], SMALL)
    assert str(caught.value) == "keys: too large: 11 bytes were sent in all, limits.max_request_bytes is 10 bytes"


@pytest.mark.parametrize(("bad", "message"), [(b"", "must not be empty"), (b"k" * 1025, "too long: 1025 bytes")])
def test_batch_with_one_bad_key(bad: bytes, message: str) -> None:
    """A bad key is named by its position."""
    with pytest.raises(InvalidKey, match=rf"^keys\[1\]: {message}"):
        limits.check_keys([b"a", bad], Limits())


def _check_pairs(pairs: dict[bytes, bytes], allowed: Limits = SMALL) -> None:
    limits.check_pairs(pairs, allowed)


def test_batch_of_pairs_at_the_limits() -> None:
    """Keys and values together may fill the limit; so may an empty batch."""
    _check_pairs({})
    _check_pairs({b"a": b"1234", b"b": b"567", b"c": b""})


def test_batch_of_too_many_pairs() -> None:
    """One pair too many is refused; the message names field, limit and what was sent."""
    with pytest.raises(TooLarge) as caught:
        _check_pairs({b"a": b"", b"b": b"", b"c": b"", b"d": b""})
    assert str(caught.value) == "key_values: too many: 4 keys were sent, limits.max_batch_keys is 3"


def test_batch_of_pairs_with_too_many_bytes() -> None:
    """One byte too many of keys and values together is refused."""
    with pytest.raises(TooLarge) as caught:
        _check_pairs({b"a": b"1234", b"b": b"567", b"cc": b""})
    assert str(caught.value) == "key_values: too large: 11 bytes were sent in all, limits.max_request_bytes is 10 bytes"


@pytest.mark.parametrize(("bad", "message"), [(b"", "must not be empty"), (b"k" * 1025, "too long: 1025 bytes")])
def test_batch_of_pairs_with_one_bad_key(bad: bytes, message: str) -> None:
    """The message names the field."""
    with pytest.raises(InvalidKey, match=rf"^key_values: key: {message}"):
        _check_pairs({b"a": b"1", bad: b"2"}, Limits())


def test_batch_of_pairs_with_one_large_value() -> None:
    """The message names the value's key (its first 64 bytes), the limit and what was sent."""
    _check_pairs({b"a": bytes(1_048_576)}, Limits())
    with pytest.raises(TooLarge) as caught:
        _check_pairs({b"a": b"", b"x" * 65: bytes(1_048_577)}, Limits())
    assert str(caught.value) == (
        f"key_values[{'x' * 64}]: too large: 1048577 bytes were sent, the limit is 1048576 bytes"
    )


def test_defaults() -> None:
    """The contract's defaults: 10,000 keys and 16 MiB."""
    assert Limits() == Limits(max_batch_keys=10_000, max_request_bytes=16_777_216)
