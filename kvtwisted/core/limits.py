"""Limits of what a request may hold: keys, values, ttls and batches are refused here and nowhere else.

Sizes are bytes of UTF-8, as stored. Every message names the field, the limit and what was sent, and none repeats
a value, which may be secret or huge.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .errors import Corruption, InvalidKey, InvalidRequest, InvalidTtl, InvalidValue, TooLarge

MAX_KEY_BYTES = 1024
MAX_VALUE_BYTES = 1_048_576
#: 100 years of 365.25 days, in seconds. A deadline further in the future is more likely a wrong unit.
MAX_TTL_SECONDS = 3_155_760_000


@dataclass(frozen=True)
class Limits:
    """The limits that the configuration may change (`limits.*`)."""

    max_batch_keys: int = 10_000
    max_request_bytes: int = 16 * 1_048_576


def encode_key(text: str, field: str = "key") -> bytes:
    """The UTF-8 bytes of a key, or InvalidKey when `text` has lone surrogates."""
    return _encode(text, field, InvalidKey)


def encode_value(text: str, field: str = "value") -> bytes:
    """The UTF-8 bytes of a value, or InvalidValue when `text` has lone surrogates."""
    return _encode(text, field, InvalidValue)


def _encode(text: str, field: str, error: type[InvalidRequest]) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as reason:
        raise error(f"{field}: not valid Unicode: a lone surrogate at character {reason.start}") from None


def check_key(key: bytes, field: str = "key") -> None:
    """Raise InvalidKey unless `key` has 1 to MAX_KEY_BYTES bytes."""
    if not key:
        raise InvalidKey(f"{field}: must not be empty (1 to {MAX_KEY_BYTES} bytes)")
    check_prefix(key, field)


def check_prefix(prefix: bytes, field: str = "prefix") -> None:
    """Raise InvalidKey when `prefix` is longer than any key can be; empty is fine."""
    if len(prefix) > MAX_KEY_BYTES:
        raise InvalidKey(f"{field}: too long: {len(prefix)} bytes were sent, the limit is {MAX_KEY_BYTES} bytes")


def check_value(value: bytes, field: str = "value") -> None:
    """Raise TooLarge when `value` is over MAX_VALUE_BYTES."""
    if len(value) > MAX_VALUE_BYTES:
        raise TooLarge(f"{field}: too large: {len(value)} bytes were sent, the limit is {MAX_VALUE_BYTES} bytes")


def check_scan_limit(limit: int) -> None:
    """Raise InvalidRequest when `limit` is negative; 0 means no limit."""
    if limit < 0:
        raise InvalidRequest(f"limit: must not be negative (0 means no limit): {limit} was sent")


def check_ttl(ttl: int, field: str = "ttl") -> None:
    """Raise InvalidTtl unless `ttl` is 0 (never expires) to MAX_TTL_SECONDS."""
    if ttl < 0:
        raise InvalidTtl(f"{field}: must not be negative (0 means never expires): {ttl} was sent")
    if ttl > MAX_TTL_SECONDS:
        raise InvalidTtl(f"{field}: too large: {ttl} s was sent, the limit is {MAX_TTL_SECONDS} s (100 years)")


def check_keys(keys: Collection[bytes], limits: Limits) -> None:
    """Check the keys of an MGet or MDelete: each one, how many, and their bytes in all."""
    check_count(len(keys), "keys", limits.max_batch_keys)
    sizes = list(map(len, keys))
    if sizes and not 0 < min(sizes) <= max(sizes) <= MAX_KEY_BYTES:
        for position, key in enumerate(keys):
            check_key(key, f"keys[{position}]")
    _check_total(sum(sizes), "keys", limits)


def check_pairs(pairs: Mapping[bytes, bytes], limits: Limits) -> None:
    """Check the pairs of an MSet: each key and value, how many, and their bytes in all."""
    check_count(len(pairs), "key_values", limits.max_batch_keys)
    sizes, value_sizes = list(map(len, pairs)), list(map(len, pairs.values()))
    if sizes and (not 0 < min(sizes) <= max(sizes) <= MAX_KEY_BYTES or max(value_sizes) > MAX_VALUE_BYTES):
        for key, value in pairs.items():
            check_key(key, "key_values: key")
            check_value(value, f"key_values[{key[:64].decode('utf-8', 'replace')}]")
    _check_total(sum(sizes) + sum(value_sizes), "key_values", limits)


def check_count(count: int, field: str, limit: int) -> None:
    """Raise TooLarge for more than `limit` (`limits.max_batch_keys`) keys."""
    if count > limit:
        raise TooLarge(f"{field}: too many: {count} keys were sent, limits.max_batch_keys is {limit}")


def _check_total(total: int, field: str, limits: Limits) -> None:
    if total > limits.max_request_bytes:
        raise TooLarge(
            f"{field}: too large: {total} bytes were sent in all, "
            f"limits.max_request_bytes is {limits.max_request_bytes} bytes"
        )


def as_text(stored: bytes) -> str:
    """A stored key or value as the text it must be. Raises Corruption when it is not UTF-8."""
    try:
        return stored.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Corruption(f"stored bytes are not UTF-8 text: {error.reason} at byte {error.start}") from None
