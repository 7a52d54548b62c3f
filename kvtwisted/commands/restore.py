"""Restore: store values with the deadlines that they had elsewhere."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from ..core.limits import Limits, check_pairs
from .command import Change, WriteCommand


class Restore(WriteCommand):
    """Store all values, or none of them: each until it expires, in ms since 1970 (0: never)."""

    __slots__ = ("entries",)

    name = "import"
    right = metric = "set"

    def __init__(self, entries: Mapping[bytes, tuple[bytes, int]], deadline: float = math.inf) -> None:
        """Value and deadline by key, which is UTF-8."""
        size = sum(map(len, entries)) + sum([len(value) for value, _ in entries.values()])
        WriteCommand.__init__(self, size, deadline)
        self.entries = entries
        self.ttl = 0

    @property
    def count(self) -> int:
        """Keys."""
        return len(self.entries)

    @property
    def keys(self) -> Collection[bytes]:
        """All of them."""
        return self.entries.keys()

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        check_pairs({key: value for key, (value, _) in self.entries.items()}, limits)

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return all(key.startswith(prefixes) for key in self.entries)

    @property
    def is_plain(self) -> bool:
        """See `WriteCommand.is_plain`."""
        return not any(expires_at_ms for _, expires_at_ms in self.entries.values())

    def changes(self, expires_at_ms: int) -> list[Change]:
        """See `WriteCommand.changes`."""
        return [(key, value, ends) for key, (value, ends) in self.entries.items()]
