"""Delete: remove one key."""

from __future__ import annotations

import math
from collections.abc import Collection

from ..core.limits import Limits, check_key
from .command import Change, WriteCommand


class Delete(WriteCommand):
    """Remove `key`; a missing key is fine."""

    __slots__ = ("key",)

    name = right = metric = "delete"
    ttl = 0

    def __init__(self, key: bytes, deadline: float = math.inf) -> None:
        """UTF-8."""
        WriteCommand.__init__(self, len(key), deadline)
        self.key = key

    @property
    def keys(self) -> Collection[bytes]:
        """The one."""
        return (self.key,)

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        check_key(self.key)

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return self.key.startswith(prefixes)

    def changes(self, expires_at_ms: int) -> list[Change]:
        """See `WriteCommand.changes`."""
        return [(self.key, None, 0)]
