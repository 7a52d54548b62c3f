"""Messages as they come off the wire: decompressed within a limit, then parsed. Pure functions; any thread."""

from __future__ import annotations

import zlib
from typing import Callable, TypeVar

from google.protobuf.message import DecodeError, Message

from .errors import CallError, Code

M = TypeVar("M", bound=Message)

_OTHER_FIELDS = 16  # a ttl takes 11 bytes at most

_GZIP = b"\x1f\x8b"
_DEFLATE = b"\x78"  # zlib's format with a window of 32 KiB, the one that every client uses
_EITHER_FORMAT = zlib.MAX_WBITS | 32
#: Bytes that are expanded at a time.
_PIECE = 65_536

#: Wire types of protobuf: a number, text and messages; and those of a fixed size, with their bytes.
_VARINT, _WITH_LENGTH = 0, 2
#: Of the last bits of a number that has 64.
_LARGEST_SHIFT = 63
_FIXED = {1: 8, 5: 4}


def message_limit(max_request_bytes: int) -> int:
    """Bytes of one message at most, once decompressed: a quarter more than the keys and values that it may carry.

    The quarter is for the encoding around them, 6 bytes for a small pair and 11 at most for a large one. A batch that
    the store accepts fits if its pairs have 24 bytes or more on average; with the default of `limits.max_batch_keys`
    those of a batch at the limit have 200 and more.
    """
    return max_request_bytes + max_request_bytes // 4 + _OTHER_FIELDS


def is_compressed(message: bytes) -> bool:
    """Whether `message` begins as gzip or deflate data does.

    No message of this server's services does: 0x1f is no valid tag in protobuf, and 0x78 would be a field number 15.
    """
    if message[:1] == _DEFLATE:
        return int.from_bytes(message[:2], "big") % 31 == 0
    return message[:2] == _GZIP


def expanded(message: bytes, compressed: bool, limit: int, what: str = "message") -> bytes:
    """The message, decompressed if it is `compressed`. Raises CallError when it has over `limit` bytes."""
    if compressed:
        return decompress(message, limit)
    if len(message) > limit:
        raise CallError(Code.RESOURCE_EXHAUSTED, f"the {what} is over {limit} bytes")
    return message


def decompress(message: bytes, limit: int, grown: Callable[[int], object] = lambda size: None) -> bytes:
    """The message in gzip or deflate data. Never expands to more than `limit` bytes; raises CallError instead.

    `grown` is told of the bytes of each piece as it comes, and may raise what ends it.
    """
    expander = zlib.decompressobj(_EITHER_FORMAT)
    pieces: list[bytes] = []
    size, rest = 0, message
    try:
        while not expander.eof:
            piece = expander.decompress(rest, min(_PIECE, limit + 1 - size))
            rest = expander.unconsumed_tail
            if not (piece or rest or expander.eof):
                break  # it is cut short
            size += len(piece)
            if size > limit:
                raise CallError(Code.RESOURCE_EXHAUSTED, f"the request is over {limit} bytes once it is decompressed")
            grown(len(piece))
            pieces.append(piece)
    except zlib.error:
        raise CallError(Code.INVALID_ARGUMENT, "the request is not valid compressed data") from None
    if not expander.eof or expander.unused_data:
        raise CallError(Code.INVALID_ARGUMENT, "the request's compressed data is cut short or has a tail")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def count_fields(message: bytes, enough: int) -> int:
    """How many fields a message has, or `enough` if it has that many or more.

    A field can take two bytes on the wire and a hundred as an object; so this comes before the objects are made.
    Whether the message is well-formed is for `parse` to say. Source: https://protobuf.dev/programming-guides/encoding/.
    """
    position = count = 0
    end = len(message)
    try:
        while position < end and count < enough:
            count += 1
            tag, position = _varint(message, position)
            kind = tag & 7
            if kind == _WITH_LENGTH:
                length, position = _varint(message, position)
                position += length
            elif kind == _VARINT:
                _, position = _varint(message, position)
            else:
                position += _FIXED.get(kind, 0)
    except IndexError:
        pass  # cut short, or no protobuf
    return count


def _varint(message: bytes, position: int) -> tuple[int, int]:
    number = message[position]
    position += 1
    if number >= 0x80:
        number &= 0x7F
        shift = 0
        more = 0x80
        while more >= 0x80:
            shift += 7
            if shift > _LARGEST_SHIFT:
                raise IndexError("a number has more than 64 bits")
            more = message[position]
            position += 1
            number |= (more & 0x7F) << shift
    return number, position


def parse(message_type: type[M], message: bytes) -> M:
    """The message, or a CallError that says what it should have been. Unknown fields are ignored."""
    try:
        return message_type.FromString(message)
    except DecodeError:
        name = message_type.DESCRIPTOR.full_name
        raise CallError(
            Code.INVALID_ARGUMENT, f"the request is not a {name} message, or one of its strings is not UTF-8 text"
        ) from None
