"""Writes that depend on what is there, read by hand: SetRequests with a condition, IncrementRequest and TouchRequest.

See Note [Plain messages] in `kvtwisted.rpc.quick_messages`: what is read here is what every encoder makes of such a
message, and means what it means to protobuf; of all else this gives None.

Source: https://protobuf.dev/programming-guides/encoding/. Pure functions; any thread.
"""

from __future__ import annotations

from typing import Optional

from ..commands.conditions import Condition
from ..commands.mutations import AddNumber, Mutation, SetValue, TouchKey
from .quick_messages import LONG, as_long, is_text, read_condition

#: A change and the condition that it is done under, if there is one.
Change = tuple[Mutation, Optional[Condition]]

#: Tags: a field's number and the kind of what follows.
_KEY, _VALUE, _SET_TTL, _DATA, _SET_CONDITION = 0x0A, 0x12, 0x18, 0x22, 0x2A
_DELTA, _ADD_TTL = 0x10, 0x18
_TOUCH_TTL, _TOUCH_CONDITION = 0x10, 0x1A
#: Makes tuples in half the time that their classes take.
_make = tuple.__new__

#: Bits of the longest number, and what its last byte may be.
_LAST_SHIFT, _LAST_BYTE = 63, 1
_SIGN, _MODULUS = 1 << 63, 1 << 64


def read_set_if(message: bytes, start: int = 0) -> Change | None:
    """What a SetRequest with a condition that begins at `start` and ends with `message` asks for; or None."""
    try:
        if message[start] != _KEY or message[start + 1] >= LONG:
            return None
        begin = start + 2
        after = begin + message[start + 1]
        key = message[begin:after]
        tag = message[after]
        value, ttl = b"", 0
        if tag == _VALUE:
            length, begin = message[after + 1], after + 2
            if length >= LONG:
                length, begin = as_long(message, after + 1)
            after = begin + length
            value = message[begin:after]
            if not (value.isascii() or is_text(value)):
                return None
            tag = message[after]
        if tag == _SET_TTL:
            ttl, after = as_long(message, after + 1)
            tag = message[after]
        if tag == _DATA and not value:
            length, begin = as_long(message, after + 1)
            after = begin + length
            value = message[begin:after]
            tag = message[after]
        if tag != _SET_CONDITION:
            return None
        condition = _condition(message, after + 1)
    except IndexError:
        return None
    if condition is None or not (key.isascii() or is_text(key)):
        return None
    return _make(SetValue, (key, value, ttl)), condition


def read_increment(message: bytes, start: int = 0) -> Change | None:
    """What an IncrementRequest that begins at `start` and ends with `message` asks for; or None."""
    end = len(message)
    delta = ttl = 0
    try:
        if message.isascii() and not start:
            # Then the number has one byte.
            after = message[1] + 2
            if message[0] == _KEY and after + 2 == end and message[after] == _DELTA:
                return _make(AddNumber, (message[2:after], message[after + 1], 0)), None
        if message[start] != _KEY or message[start + 1] >= LONG:
            return None
        begin = start + 2
        after = begin + message[start + 1]
        key = message[begin:after]
        if len(key) != after - begin:
            return None
        if after < end and message[after] == _DELTA:
            delta, after = message[after + 1], after + 2
            if delta >= LONG:
                delta, after = _int64(message, after - 1)
        if after < end and message[after] == _ADD_TTL:
            ttl, after = as_long(message, after + 1)
    except IndexError:
        return None
    if after != end or not (key.isascii() or is_text(key)):
        return None
    return _make(AddNumber, (key, delta, ttl)), None


def read_touch(message: bytes, start: int = 0) -> Change | None:
    """What a TouchRequest that begins at `start` and ends with `message` asks for; or None."""
    end = len(message)
    ttl, condition = 0, None
    try:
        if message[start] != _KEY or message[start + 1] >= LONG:
            return None
        begin = start + 2
        after = begin + message[start + 1]
        key = message[begin:after]
        if len(key) != after - begin:
            return None
        if after < end and message[after] == _TOUCH_TTL:
            ttl, after = as_long(message, after + 1)
        if after < end and message[after] == _TOUCH_CONDITION:
            condition = _condition(message, after + 1)
            if condition is None:
                return None
            after = end
    except IndexError:
        return None
    if after != end or not (key.isascii() or is_text(key)):
        return None
    return _make(TouchKey, (key, ttl)), condition


def _condition(message: bytes, at: int) -> Condition | None:
    """The one whose length is at `at`, and which ends with `message`; or None. Raises IndexError if it is cut short."""
    length, begin = message[at], at + 1
    if length >= LONG:
        length, begin = as_long(message, at)
    return read_condition(message, begin) if begin + length == len(message) else None


def _int64(message: bytes, at: int) -> tuple[int, int]:
    """A number with a sign that begins at `at`, and where it ends. Raises IndexError if it is none."""
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < LONG:
            break
        shift += 7
        if shift > _LAST_SHIFT:
            raise IndexError("a number has more than 64 bits")
    if shift == _LAST_SHIFT and byte > _LAST_BYTE:
        raise IndexError("a number has more than 64 bits")
    return (number if number < _SIGN else number - _MODULUS), at
