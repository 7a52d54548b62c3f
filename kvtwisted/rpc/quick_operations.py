"""The operations of a pipeline that come most often, read by hand: see Note [Plain messages] in `quick_messages`.

Pure functions; any thread.
"""

from __future__ import annotations

import math
from typing import Any

from ..commands.get import Get
from .answers import GET_ANSWERS
from .quick_changes import read_increment, read_set_if, read_touch
from .quick_messages import LONG, as_long, read_get, read_get_as, read_set

#: An operation of a pipeline: its `id` as it is encoded, with the tag; which one it is, as the tag of its field; and
#: what `read_set` gives of it, without a value and a ttl where it is no Set. One that has more to it, or is of another
#: kind, has no value here. If it is BY_CHANGE, which is added to the tag, the last of the five is its
#: `quick_changes.Change`; if it is BY_COMMAND, that is its `Command`.
Operation = tuple[bytes, int, bytes, bytes, Any]

_ID = 0x08
#: The fields of a PipelineRequest that are operations.
SET, GET, DELETE, INCREMENT, TOUCH = 0x12, 0x1A, 0x22, 0x2A, 0x32
_OF_A_KEY = (GET, DELETE)
_CHANGES = {SET: read_set_if, INCREMENT: read_increment, TOUCH: read_touch}
BY_COMMAND, BY_CHANGE = 0x100, 0x200
#: What of a kind is the tag.
TAG = 0xFF
#: The `id` of a message that leaves it out, since it is 0.
NO_ID = b"\x08\x00"

#: Bytes of the longest `id`, with its tag; and what the last of them must be, so that it has 64 bits.
LONGEST_ID, _LAST_BIT = 11, 1


def read_operation(message: bytes) -> Operation | None:
    """The operation in a PipelineRequest; or None. See Note [Plain messages]."""
    try:
        at = 0
        if message[0] == _ID:
            at = 1
            while message[at] >= LONG:
                at += 1
                if at >= LONGEST_ID:
                    return None
            if at > 1 and (not message[at] or (at == LONGEST_ID - 1 and message[at] != _LAST_BIT)):
                return None
            at += 1
        kind, length, begin = message[at], message[at + 1], at + 2
        if length >= LONG:
            length, begin = as_long(message, at + 1)
    except IndexError:
        return None
    if begin + length != len(message):
        return None
    if kind == SET:
        fields = read_set(message, begin)
        if fields is not None:
            key, value, ttl = fields
            return message[:at] or NO_ID, kind, key, value, ttl
    elif kind in _OF_A_KEY:
        asked = read_get(message, begin)
        if asked is not None:
            return message[:at] or NO_ID, kind, asked, b"", 0
        more = read_get_as(message, begin) if kind == GET else None
        if more is None:
            return None
        key, how = more
        get = Get(key, math.inf, GET_ANSWERS[how], digests=how[1])
        return message[:at] or NO_ID, kind | BY_COMMAND, key, b"", get
    read = _CHANGES.get(kind)
    change = None if read is None else read(message, begin)
    return None if change is None else (message[:at] or NO_ID, kind | BY_CHANGE, change[0][0], b"", change)
