"""How a value is stored: as its own bytes, or in an envelope (see docs/storage-format.md).

A value that never expires is stored as it is. Anything else is an envelope whose first byte is 0xFF, which UTF-8 text
cannot contain, so the two cannot be mistaken for one another:

    0xFF | version (1 byte) | flags (1 byte) | expiry, ms since 1970, big-endian (8 bytes) | value

No flag is defined yet; a record with an unknown version or flag was written by a newer server and is refused.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .errors import Corruption

ENVELOPE = 0xFF
VERSION = 1

_HEADER = struct.Struct(">BBBQ")


class Record(NamedTuple):
    """A decoded record: the value's bytes, and when it expires in ms since 1970 (0: never)."""

    value: bytes
    expires_at_ms: int


def encode(value: bytes, expires_at_ms: int) -> bytes:
    """The stored form of `value`; `expires_at_ms` 0 means that it never expires."""
    if expires_at_ms or value[:1] == b"\xff":
        return _HEADER.pack(ENVELOPE, VERSION, 0, expires_at_ms) + value
    return value


def decode(stored: bytes) -> Record:
    """The record in its stored form. Raises Corruption for an envelope this version cannot read."""
    if stored[:1] != b"\xff":
        return Record(stored, 0)
    if len(stored) < _HEADER.size:
        raise Corruption(f"a record's envelope is cut short: {len(stored)} of {_HEADER.size} bytes")
    _, version, flags, expires_at_ms = _HEADER.unpack_from(stored)
    if version != VERSION or flags != 0:
        raise Corruption(f"a record has envelope version {version}, flags {flags:#x}; this server reads version 1")
    return Record(stored[_HEADER.size :], expires_at_ms)
