"""Header fields: those that are lists have one reader (RFC 9110, section 5.6.1); and the names that Host may have.

A list may stand in one line or in several, its members may be empty, and a comma within quotes separates nothing.

Note [DNS rebinding]: a page in a browser may let its own name resolve to 127.0.0.1 and then talk to a server that
trusts everybody who reaches it. But Host still has the page's name. So a server without authentication answers only to
its own names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Callable, NamedTuple

# What is between two separators. A string whose end is missing goes on to the end, so that nothing is looked at twice.
_BETWEEN = {
    separator: re.compile(rb'(?:[^"%b]|"(?:[^"\\]|\\.)*"?)+' % separator, re.DOTALL) for separator in (b",", b";")
}
_WEIGHT = re.compile(rb"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")

#: Values of Host that are remembered; one has 16 KiB at most.
_REMEMBERED_HOSTS = 64
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


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


def _split(text: bytes, separator: bytes) -> list[bytes]:
    parts = (part.strip(b" \t") for part in _BETWEEN[separator].findall(text))
    return [part for part in parts if part]


class Hosts:
    """The names that are allowed, beside those of loopback."""

    def __init__(self, names: Iterable[str]) -> None:
        """Names and addresses without a port, in any case; IPv6 addresses without brackets."""
        allowed = frozenset([*_LOOPBACK, *[name.lower() for name in names]])

        #: Whether the value of a Host header names one of them, on whatever port. Clients send few.
        self.allow: Callable[[bytes], bool] = lru_cache(_REMEMBERED_HOSTS)(lambda host: host_name(host) in allowed)


def host_name(host: bytes) -> str:
    """The name in the value of a Host header (RFC 9110, section 7.2), lower-case, without port, brackets and last dot.

    Never fails: what is no host is no name that could be allowed either.
    """
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def words(text: str) -> list[str]:
    """The names in a text with commas between them."""
    return [word for word in map(str.strip, text.split(",")) if word]
