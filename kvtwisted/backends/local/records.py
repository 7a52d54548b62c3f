"""How a value is stored: as its own bytes, or in an envelope (see docs/storage-format.md).

A value that never expires is stored as it is. Anything else is an envelope whose first byte is 0xFF, which UTF-8 text
cannot contain, so the two cannot be mistaken for one another:

    0xFF | version (1 byte) | flags (1 byte) | expiry, ms since 1970, big-endian (8 bytes, 0: never) | rest

The rest is the value or, with the flag IN_FILE, a pointer to the file that holds it. A record with an unknown version
or flag was written by a newer server and is refused.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ...core.errors import Corruption

ENVELOPE = 0xFF
VERSION = 1
#: Flag: the value is in a file of its own.
IN_FILE = 0x01

_HEADER = struct.Struct(">BBBQ")
_DEADLINE = struct.Struct(">Q")
_POINTER = struct.Struct(">16sQI")


class Pointer(NamedTuple):
    """Where a large value is: the file's name (16 random bytes), its length in bytes, and its CRC-32."""

    name: bytes
    length: int
    checksum: int

    def pack(self) -> bytes:
        """The stored form: name, length and checksum, big-endian, 28 bytes."""
        return _POINTER.pack(*self)


def unpack_pointer(stored: bytes) -> Pointer:
    """The pointer in its stored form. Raises Corruption when it is not one."""
    if len(stored) != _POINTER.size:
        raise Corruption(f"the pointer to a large value has {len(stored)} bytes instead of {_POINTER.size}")
    return Pointer(*_POINTER.unpack(stored))


class Record(NamedTuple):
    """A decoded record: the value's bytes, when it expires in ms since 1970 (0: never), and where a large value is."""

    value: bytes
    expires_at_ms: int
    pointer: Pointer | None = None


def encode(value: bytes, expires_at_ms: int) -> bytes:
    """The stored form of `value`; `expires_at_ms` 0 means that it never expires."""
    if expires_at_ms or value[:1] == b"\xff":
        return _HEADER.pack(ENVELOPE, VERSION, 0, expires_at_ms) + value
    return value


def encode_pointer(pointer: Pointer, expires_at_ms: int) -> bytes:
    """The stored form of a large value that is in a file."""
    return _HEADER.pack(ENVELOPE, VERSION, IN_FILE, expires_at_ms) + pointer.pack()


def decode(stored: bytes) -> Record:
    """The record in its stored form; the value of a large one is empty. Raises Corruption when it cannot be read."""
    if stored[:1] != b"\xff":
        return Record(stored, 0)
    if len(stored) < _HEADER.size:
        raise Corruption(f"a record's envelope is cut short: {len(stored)} of {_HEADER.size} bytes")
    _, version, flags, expires_at_ms = _HEADER.unpack_from(stored)
    if version != VERSION or flags & ~IN_FILE:
        raise Corruption(f"a record has envelope version {version}, flags {flags:#x}; this server reads version 1")
    rest = stored[_HEADER.size :]
    return Record(b"", expires_at_ms, unpack_pointer(rest)) if flags else Record(rest, expires_at_ms)


def readable(stored: bytes) -> Record | None:
    """The record in its stored form; None when it cannot be read."""
    try:
        return decode(stored)
    except Corruption:
        return None


def size_of(key: bytes, stored: bytes | None) -> int:
    """Bytes of a key and its value as clients know them; 0 for no record. One that cannot be read counts as it is."""
    if stored is None:
        return 0
    record = readable(stored)
    if record is None:
        return len(key) + len(stored)
    return len(key) + (record.pointer.length if record.pointer else len(record.value))


def index_key(expires_at_ms: int, key: bytes) -> bytes:
    """The expiry index entry of a key: its deadline (8 bytes, big-endian), then the key."""
    return _DEADLINE.pack(expires_at_ms) + key


def index_start(expires_at_ms: int) -> bytes:
    """Where the index entries of that deadline and later ones start."""
    return _DEADLINE.pack(expires_at_ms)


def split_index_key(entry: bytes) -> tuple[int, bytes]:
    """Deadline and key of an index entry."""
    return int(_DEADLINE.unpack_from(entry)[0]), entry[_DEADLINE.size :]
