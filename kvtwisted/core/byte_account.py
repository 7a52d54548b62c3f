"""Who makes the server hold how many bytes, and how many all may hold together.

Unfinished requests and unsent answers of both transports are accounted for here. What happens when there are too many
is the transports' own affair: HTTP refuses bodies, gRPC lets calls wait, both cut off clients that do not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

_Holder = TypeVar("_Holder")


class ByteAccount:
    """Bytes held for many, under a limit that may change at any time. Not thread-safe."""

    __slots__ = ("bytes", "limit")

    def __init__(self, limit: int) -> None:
        """`limit` bytes may be held in all. Nothing here enforces it: some must be held whatever there is."""
        self.limit = limit
        #: Bytes held now, by all together.
        self.bytes = 0

    @property
    def room(self) -> int:
        """Bytes that may still be held."""
        return max(0, self.limit - self.bytes)

    def victims(self, candidates: Iterable[tuple[_Holder, Holding]], down_to: int) -> Iterator[_Holder]:
        """Those of the candidates, in their order, that must give up all they hold to leave `down_to` bytes or fewer.

        They may do so at once or later.
        """
        excess = self.bytes - down_to
        for holder, holding in candidates:
            if excess <= 0:
                return
            if holding.bytes:
                excess -= holding.bytes
                yield holder


class Holding:
    """One holder's part of an account."""

    __slots__ = ("account", "bytes", "since")

    def __init__(self, account: ByteAccount, since: float = 0.0) -> None:
        """`since` is when it began, in seconds of the holder's clock, where the pace matters."""
        self.account = account
        self.since = since
        #: Bytes held now.
        self.bytes = 0

    def fits(self, size: int) -> bool:
        """Whether with `size` bytes more it would hold no more than is left for all others now."""
        return self.bytes + size <= self.account.room

    def add(self, size: int) -> None:
        """So many bytes more are held; fewer, if negative."""
        self.bytes += size
        self.account.bytes += size

    def become(self, size: int) -> None:
        """So many bytes are held now."""
        self.account.bytes += size - self.bytes
        self.bytes = size

    def free(self) -> None:
        """Nothing is held any more."""
        self.become(0)
