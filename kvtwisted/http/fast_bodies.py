"""Reads the body of a set without a JSON parser, if it is so plain that cutting it at its quotes is enough.

Note [Plain set bodies]: without a backslash every quote opens or closes a string. So a body that falls into the nine
(with ttl eleven) pieces of `{"key":"...","value":"..."}`, each name once, is fully understood: nothing is nested, no
name is there twice, no escape hides a surrogate. Control characters and invalid UTF-8 are looked for. All others go to
`bodies`, which also words what is wrong with them. This takes a quarter of the time, and copies key and value once.
"""

from __future__ import annotations

import re

_SPACE = b" \t\r\n"
_CONTROL = bytes(range(0x20))
_TTL = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(0|[1-9][0-9]{0,15})[ \t\r\n]*\}[ \t\r\n]*")


def set_arguments(body: bytes) -> tuple[bytes, bytes, int] | None:
    """What `bodies.set_arguments` makes of a plain body; None of any other. See Note [Plain set bodies]."""
    if b"\\" in body:
        return None
    pieces = body.split(b'"', 11)
    ttl = 0
    if len(pieces) == 11:
        *pieces, comma, name, rest = pieces
        number = _TTL.fullmatch(rest)
        if number is None or name != b"ttl" or comma.strip(_SPACE) != b",":
            return None
        ttl = int(number[1])
        pieces.append(b"}")
    if len(pieces) != 9:
        return None
    start, first_name, first_colon, first, comma, second_name, second_colon, second, end = pieces
    if first_name == b"key" and second_name == b"value":
        key, value = first, second
    elif first_name == b"value" and second_name == b"key":
        key, value = second, first
    else:
        return None
    if (start, first_colon, comma, second_colon, end) != (b"{", b":", b",", b":", b"}") and not (
        start.strip(_SPACE) == b"{"
        and first_colon.strip(_SPACE) == b":"
        and comma.strip(_SPACE) == b","
        and second_colon.strip(_SPACE) == b":"
        and end.strip(_SPACE) == b"}"
    ):
        return None
    if len(key.translate(None, _CONTROL)) != len(key) or len(value.translate(None, _CONTROL)) != len(value):
        return None
    if not body.isascii():
        try:
            body.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return key, value, ttl
