"""Entries and headers for the tests of security."""

from __future__ import annotations

from kvtwisted.sessions import tokens
from kvtwisted.sessions.entries import OwnRate, TokenEntry
from kvtwisted.sessions.grants import OPERATIONS, Grant

#: The right to everything.
EVERYTHING = Grant(frozenset(OPERATIONS))
#: An address that nobody has.
PEER = "192.0.2.1"


def grant(operations: str, prefix: bytes = b"") -> Grant:
    """A grant of operations named as on the command line."""
    return Grant(frozenset(operations.split(",")), prefix)


def made(
    token_id: str, *grants: Grant, not_after: int | None = None, rate: OwnRate | None = None
) -> tuple[bytes, TokenEntry]:
    """A header with a new token, and the token's entry; without grants it may do everything."""
    token, digest = tokens.make(token_id)
    return f"Bearer {token}".encode(), TokenEntry(token_id, digest, grants or (EVERYTHING,), not_after, rate)


class ManualTime:
    """A time that stands still until a test moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time."""
        return self.now
