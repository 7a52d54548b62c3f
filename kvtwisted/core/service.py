"""What the transports ask of the operations, whether these stand alone or behind access control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from .operations import Pending
from .pages import Page
from .records import Found


class Service(Protocol):
    """`Operations`, as far as requests reach it; see there for each method.

    Not the second step of writes (`settle` and its like): that is done for many requests at once, when each has been
    let in already.
    """

    def set(self, key: bytes, value: bytes, ttl: int = 0, *, deadline: float = ...) -> None:
        """Store one value."""

    def get(self, key: bytes, *, deadline: float = ...) -> Found | None:
        """Read one value."""

    def get_now(self, key: bytes) -> tuple[bool, Found | None]:
        """Read one value if memory has it."""

    def delete(self, key: bytes, *, deadline: float = ...) -> None:
        """Remove one key."""

    def scan(
        self,
        prefix: bytes,
        *,
        cursor: bytes = b"",
        limit: int = 0,
        keys_only: bool = False,
        budget: int,
        deadline: float = ...,
    ) -> Page:
        """Read one page of keys or pairs."""

    def mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = ...) -> None:
        """Store many values atomically."""

    def mget(self, keys: Sequence[bytes], *, budget: int, deadline: float = ...) -> dict[bytes, bytes]:
        """Read many values from one view."""

    def mdelete(self, keys: Sequence[bytes], *, deadline: float = ...) -> None:
        """Remove many keys atomically."""

    def get_config(self) -> str:
        """The configuration as JSON text."""

    def update_config(self, document: Mapping[str, object]) -> list[str]:
        """Change the configuration."""

    def update_config_text(self, text: str) -> list[str]:
        """Change the configuration by JSON text."""

    def begin_set(self, key: bytes, value: bytes, ttl: int = 0, *, deadline: float = ...) -> Pending:
        """Check a `set`."""

    def begin_delete(self, key: bytes, *, deadline: float = ...) -> Pending:
        """Check a `delete`."""

    def begin_mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = ...) -> Pending:
        """Check an `mset`."""

    def begin_mdelete(self, keys: Sequence[bytes], *, deadline: float = ...) -> Pending:
        """Check an `mdelete`."""
