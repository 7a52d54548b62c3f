"""Header fields that are lists: one reader for all of them (RFC 9110, section 5.6.1).

A list may stand in one line or in several, its members may be empty, and a comma within quotes separates nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# What is between two separators. A string whose end is missing goes on to the end, so that nothing is looked at twice.
_BETWEEN = {
    separator: re.compile(rb'(?:[^"%b]|"(?:[^"\\]|\\.)*"?)+' % separator, re.DOTALL) for separator in (b",", b";")
}
_WEIGHT = re.compile(rb"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def members(lines: Iterable[bytes]) -> list[bytes]:
    """The members of the list that all `lines` of a field make, in lower case, without the empty ones."""
    return [member for line in lines for member in _split(line.lower(), b",")]


class Weighted(NamedTuple):
    """A member of Accept or one of its kin."""

    name: bytes
    #: In lower case, those that are quoted without their quotes.
    parameters: dict[bytes, bytes]
    #: 0 (not acceptable) to 1.
    weight: float


def weighted(lines: Iterable[bytes]) -> list[Weighted]:
    """The members with their parameters and weights (RFC 9110, section 12.4.2). A bad weight counts as 0."""
    result = []
    for member in members(lines):
        name, *rest = _split(member, b";") or [b""]
        parameters = {}
        for parameter in rest:
            key, _, value = parameter.partition(b"=")
            parameters[key.strip(b" \t")] = value.strip(b" \t").strip(b'"')
        weight = parameters.pop(b"q", b"1")
        result.append(Weighted(name, parameters, float(weight) if _WEIGHT.fullmatch(weight) else 0.0))
    return result


def keeps_connection(version: bytes, lines: Sequence[bytes]) -> bool:
    """Whether a request of HTTP/`version` with these lines of Connection lets its connection serve another one.

    RFC 9112, section 9.3: `close` always ends it; HTTP/1.1 goes on without being asked, HTTP/1.0 only when asked.
    """
    if not lines:
        return version == b"HTTP/1.1"
    options = members(lines)
    return b"close" not in options and (version == b"HTTP/1.1" or b"keep-alive" in options)


def _split(text: bytes, separator: bytes) -> list[bytes]:
    parts = (part.strip(b" \t") for part in _BETWEEN[separator].findall(text))
    return [part for part in parts if part]
