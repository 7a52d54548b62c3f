"""MDelete: remove many keys atomically."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..core.limits import Limits, check_keys
from .command import Change, WriteCommand


class MDelete(WriteCommand):
    """Remove all keys, or none of them; missing keys are fine."""

    __slots__ = ("_keys",)

    name = "mdelete"
    right = metric = "delete"
    ttl = 0

    def __init__(self, keys: Sequence[bytes], deadline: float = math.inf) -> None:
        """UTF-8."""
        WriteCommand.__init__(self, sum(map(len, keys)), deadline)
        self._keys = keys

    @property
    def count(self) -> int:
        """As many as were sent."""
        return len(self._keys)

    @property
    def keys(self) -> Sequence[bytes]:
        """As they were sent."""
        return self._keys

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        check_keys(self._keys, limits)

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return all(key.startswith(prefixes) for key in self._keys)

    def changes(self, expires_at_ms: int) -> list[Change]:
        """See `WriteCommand.changes`."""
        return [(key, None, 0) for key in self._keys]
