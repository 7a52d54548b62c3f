"""Messages as they come off the wire: decompressed within a limit, then parsed. Pure functions; any thread."""

from __future__ import annotations

import zlib
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from .errors import CallError, Code

M = TypeVar("M", bound=Message)

_OTHER_FIELDS = 16  # a ttl takes 11 bytes at most

_GZIP = b"\x1f\x8b"
_DEFLATE = b"\x78"  # zlib's format with a window of 32 KiB, the one that every client uses
_EITHER_FORMAT = zlib.MAX_WBITS | 32


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


def decompress(message: bytes, limit: int) -> bytes:
    """The message in gzip or deflate data. Never expands to more than `limit` bytes; raises CallError instead."""
    expander = zlib.decompressobj(_EITHER_FORMAT)
    try:
        expanded = expander.decompress(message, limit + 1)
    except zlib.error:
        raise CallError(Code.INVALID_ARGUMENT, "the request is not valid compressed data") from None
    if len(expanded) > limit:
        raise CallError(Code.RESOURCE_EXHAUSTED, f"the request is over {limit} bytes once it is decompressed")
    if not expander.eof or expander.unused_data:
        raise CallError(Code.INVALID_ARGUMENT, "the request's compressed data is cut short or has a tail")
    return expanded


def parse(message_type: type[M], message: bytes) -> M:
    """The message, or a CallError that says what it should have been. Unknown fields are ignored."""
    try:
        return message_type.FromString(message)
    except DecodeError:
        name = message_type.DESCRIPTOR.full_name
        raise CallError(
            Code.INVALID_ARGUMENT, f"the request is not a {name} message, or one of its strings is not UTF-8 text"
        ) from None
