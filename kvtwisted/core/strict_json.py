"""Strict JSON: like `json.loads`, but refuses what that lets through.

The standard parser accepts duplicate keys, NaN and Infinity, lone surrogates, floats that overflow to infinity,
integers of any length and nesting down to the interpreter's recursion limit. Each of these would be stored, echoed or
computed with as something the sender did not mean. The C scanner does the parsing; the checks around it look at the
text only as far as memchr is enough, and closer only when that finds something.

Pure functions without state; any thread may call them.
"""

from __future__ import annotations

import json
import math
import re

from .errors import InvalidRequest

#: Digits of one integer at most. Longer ones cost quadratic time to convert, and no field takes one.
MAX_INTEGER_DIGITS = 100

_SURROGATE_ESCAPE = re.compile(r"\\u([dD][89a-fA-F][0-9a-fA-F]{2})")
_SURROGATE_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_SHOWN_CHARACTERS = 60


class InvalidJson(InvalidRequest):
    """Text that is not JSON, or JSON with more than one possible meaning; the message says what is wrong and where."""

    code = "invalid_json"


def loads(data: bytes | str, max_depth: int = 32, max_parts: int | None = None) -> object:
    """Parse one JSON text (UTF-8 when bytes), with objects and arrays at most `max_depth` deep.

    Raises `InvalidJson` for anything that is not exactly one JSON value: empty input, a byte order mark, invalid UTF-8,
    syntax errors, duplicate keys, NaN and infinities (written or by overflow), lone surrogates (written or escaped),
    integers of more than `MAX_INTEGER_DIGITS` digits, and nesting that is too deep.

    With `max_parts` there may be at most that many objects and arrays, and that many numbers. A text with more is given
    up early.
    """
    text = decode_utf8(data) if isinstance(data, bytes) else _checked_text(data)
    if _has_more_openers(text, max_depth):
        _check_depth(text, max_depth, max_parts)
    try:
        value: object = (_DECODER if max_parts is None else _counting_decoder(max_parts)).decode(text)
    except json.JSONDecodeError as error:
        if not text.strip(" \t\r\n"):
            raise InvalidJson("JSON is expected, but the input is empty") from None
        raise InvalidJson(f"invalid JSON at line {error.lineno} column {error.colno}: {error.msg}") from None
    if "\\" in text and _SURROGATE_ESCAPE.search(text):
        _check_escapes(text)
    return value


def decode_utf8(data: bytes) -> str:
    """The text of `data`; raises `InvalidJson` for invalid UTF-8 and for a byte order mark."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(f"invalid UTF-8 at byte {error.start} (0x{data[error.start]:02x})") from None
    return _without_mark(text)


def _checked_text(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise lone_surrogate(f"{ord(text[error.start]):04X}") from None
    return _without_mark(text)


def _without_mark(text: str) -> str:
    if text.startswith("\ufeff"):
        raise InvalidJson("the text starts with a byte order mark; send UTF-8 without one")
    return text


def _has_more_openers(text: str, limit: int) -> bool:
    """Whether `text` has more than `limit` of `[` and `{`: only then can it nest deeper. Each find is a memchr."""
    for opener in "[{":
        position = text.find(opener)
        while position >= 0:
            limit -= 1
            if limit < 0:
                return True
            position = text.find(opener, position + 1)
    return False


def _check_depth(text: str, max_depth: int, max_openers: int | None) -> None:
    """Measure the nesting before the parser recurses into it.

    Dropping escaped backslashes and then escaped quotes leaves only quotes that open or close a string, so that every
    second part between quotes is outside of strings. Up to the first syntax error, where the parser stops, this is
    exact.
    """
    depth = openers = 0
    for outside in text.replace("\\\\", "").replace('\\"', "").split('"')[::2]:
        for character in outside:
            if character in "[{":
                depth += 1
                openers += 1
                if max_openers is not None and openers > max_openers:
                    raise _too_many_parts(max_openers)
                if depth > max_depth:
                    raise InvalidJson(f"objects and arrays may be at most {max_depth} levels deep; this is deeper")
            elif character in "]}":
                depth -= 1


def _check_escapes(text: str) -> None:
    """Refuse valid JSON in which an escaped surrogate remains once escaped backslashes and whole pairs are gone."""
    remaining = _SURROGATE_ESCAPE.search(_SURROGATE_PAIR.sub("", text.replace("\\\\", " ")))
    if remaining:
        raise lone_surrogate(remaining.group(1).upper())


def lone_surrogate(code_point: str) -> InvalidJson:
    """The error for text with this code point (four hexadecimal digits)."""
    return InvalidJson(f"the lone surrogate U+{code_point} is not Unicode text")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidJson(f"duplicate key {json.dumps(name[:_SHOWN_CHARACTERS])}")
            seen.add(name)
    return result


def _integer(text: str) -> int:
    if len(text) > MAX_INTEGER_DIGITS:
        digits = len(text.lstrip("-"))
        if digits > MAX_INTEGER_DIGITS:
            raise InvalidJson(f"an integer may have at most {MAX_INTEGER_DIGITS} digits; this one has {digits}")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InvalidJson(f"the number {text[:_SHOWN_CHARACTERS]} is too large")
    return value


def _constant(text: str) -> object:
    raise InvalidJson(f"{text} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def _counting_decoder(limit: int) -> json.JSONDecoder:
    """A decoder that makes at most `limit` objects and numbers."""
    made = 0

    def count() -> None:
        nonlocal made
        made += 1
        if made > limit:
            raise _too_many_parts(limit)

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        count()
        return _unique(pairs)

    def integer(text: str) -> int:
        count()
        return _integer(text)

    def real(text: str) -> float:
        count()
        return _float(text)

    return json.JSONDecoder(object_pairs_hook=unique, parse_int=integer, parse_float=real, parse_constant=_constant)


def _too_many_parts(limit: int) -> InvalidJson:
    return InvalidJson(f"more than {limit} objects, arrays and numbers; nothing that could be meant has so many")
