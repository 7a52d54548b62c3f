"""The messages that come most often, read by hand: SetRequest and GetRequest.

Note [Plain messages]: protobuf takes about a microsecond to make an object of a small message, and text of its strings,
which the server would encode again. What is read here is the form that every encoder makes: each field once, in the
order of its number, and no unknown ones. Whatever is not that, or is malformed, is not read here (None). Then protobuf
decides, which alone says what is wrong with it. So a message means the same whichever way it is read; a test holds both
together.

Source: https://protobuf.dev/programming-guides/encoding/. Pure functions; any thread.
"""

from __future__ import annotations

from typing import Union

from ..commands.command import NEVER_TEXT
from ..commands.conditions import ETAG_DIGITS, Condition, Test

#: A Set's key, value and ttl; or, in place of that, its condition, if it has one and no ttl: that is as true as a ttl.
SetFields = tuple[bytes, bytes, Union[int, Condition]]
#: Tags: a field's number and the kind of what follows. Those of the keys are the same in all requests of one key.
_KEY, _VALUE, _TTL, _DATA, _CONDITION = 0x0A, 0x12, 0x18, 0x22, 0x2A
#: Those of a condition's value and etag; and, by what is encoded of them, conditions that have neither.
_EQUAL, _ETAG = 0x1A, 0x22
_IF = {b"\x08\x01": Condition(Test.ABSENT), b"\x10\x01": Condition(Test.PRESENT)}
_VALUE_TEST, _ETAG_TEST = Test.VALUE, Test.ETAG
#: What is behind the key of a GetRequest that asks for data, or the etag, or both.
_GET_AS = {b"\x10\x01": (True, False), b"\x18\x01": (False, True), b"\x10\x01\x18\x01": (True, True)}
#: Makes tuples in half the time that their classes take.
_make = tuple.__new__

#: From here on a number has more than one byte.
LONG = 0x80


def read_get(message: bytes, start: int = 0) -> bytes | None:
    """The key in a GetRequest, or a DeleteRequest, that begins at `start` and ends with `message`; or None.

    See Note [Plain messages].
    """
    begin = start + 2
    length = len(message) - begin
    if 0 <= length < LONG and message[start] == _KEY and message[start + 1] == length:
        key = message[begin:]
        if key.isascii() or is_text(key):
            return key
    return None


def read_get_as(message: bytes, start: int = 0) -> tuple[bytes, tuple[bool, bool]] | None:
    """The same with whether data is asked for, and the etag, if any of both is; or None."""
    begin = start + 2
    if len(message) <= begin or message[start] != _KEY or message[start + 1] >= LONG:
        return None
    after = begin + message[start + 1]
    how = _GET_AS.get(message[after:])
    key = message[begin:after]
    return (key, how) if how is not None and (key.isascii() or is_text(key)) else None


def read_set(message: bytes, start: int = 0) -> SetFields | None:
    """The key, value and ttl in a SetRequest that begins at `start` and ends with `message`; or None.

    Those with a condition are left to `quick_changes`, but for the plainest of calls. See Note [Plain messages].
    """
    end = len(message)
    try:
        if message.isascii() and not start:
            # Most are. Then lengths have one byte each, and key and value are text.
            after = message[1] + 2
            if message[0] == _KEY and message[after] == _VALUE:
                last = message[after + 1] + after + 2
                if last == end:
                    return message[2:after], message[after + 2 :], 0
                if message[last] == _CONDITION and message[last + 1] + last + 2 == end:
                    condition = read_condition(message, last + 2)
                    return None if condition is None else (message[2:after], message[after + 2 : last], condition)
        if message[start] != _KEY or message[start + 1] >= LONG:
            return None
        begin = start + 2
        after = begin + message[start + 1]
        if message[after] != _VALUE:
            return _read_data(message, begin, after)
        key = message[begin:after]
        begin = after + 2
        length = message[after + 1]
        if length >= LONG:
            length, begin = as_long(message, after + 1)
        after = begin + length
        ttl = 0
        if after != end:
            if message[after] != _TTL:
                return None
            ttl, last = as_long(message, after + 1)
            if last != end:
                return None
        value = message[begin:after]
    except IndexError:
        return None
    if (key.isascii() or is_text(key)) and (value.isascii() or is_text(value)):
        return key, value, ttl
    return None


def read_condition(message: bytes, begin: int) -> Condition | None:
    """The Condition that begins there, and ends with `message`; or None. Raises IndexError if it is cut short."""
    kind = message[begin]
    if kind != _EQUAL and kind != _ETAG:
        return _IF.get(message[begin:])
    length, begin = message[begin + 1], begin + 2
    if length >= LONG:
        length, begin = as_long(message, begin - 1)
    if begin + length != len(message):
        return None
    if kind == _EQUAL:
        return _make(Condition, (_VALUE_TEST, message[begin:]))
    etag = message[begin:]
    return _make(Condition, (_ETAG_TEST, etag)) if length == ETAG_DIGITS and etag.isascii() else None


def _read_data(message: bytes, begin: int, after: int) -> SetFields | None:
    """`read_set` for one with a key from `begin` to `after`, and nothing but data behind it. Raises IndexError.

    Not for data that begins with NEVER_TEXT, which may not go together with others.
    """
    if message[after] != _DATA:
        return None
    key = message[begin:after]
    length, begin = as_long(message, after + 1)
    if begin + length != len(message) or not (key.isascii() or is_text(key)):
        return None
    data = message[begin:]
    return None if data[:1] == NEVER_TEXT else (key, data, 0)


def as_long(message: bytes, at: int) -> tuple[int, int]:
    """A number of up to 35 bits that begins at `at`, and where it ends. Raises IndexError if it is none."""
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < LONG:
            return number, at
        shift += 7
        if shift > 28:
            raise IndexError("a longer number than any that is plain")


def is_text(data: bytes) -> bool:
    """Whether it is UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
