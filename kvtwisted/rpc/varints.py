"""Numbers as protobuf encodes them."""

from __future__ import annotations

_SMALL = [bytes((number,)) for number in range(128)]


def varint(number: int) -> bytes:
    """An unsigned number as protobuf encodes it."""
    if number < 128:
        return _SMALL[number]
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
