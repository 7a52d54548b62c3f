"""The names of the server that the header Host may have.

Note [DNS rebinding]: a page in a browser may let its own name resolve to 127.0.0.1 and then talk to a server that
trusts everybody who reaches it. But Host still has the page's name. So a server without authentication answers only to
its own names.
"""

from __future__ import annotations

from collections.abc import Iterable

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Hosts:
    """The names that are allowed, beside those of loopback."""

    def __init__(self, names: Iterable[str]) -> None:
        """Names and addresses without a port, in any case; IPv6 addresses without brackets."""
        self._names = frozenset([*_LOOPBACK, *[name.lower() for name in names]])

    def allow(self, host: bytes) -> bool:
        """Whether the value of a Host header names one of them, on whatever port."""
        return host_name(host) in self._names


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
