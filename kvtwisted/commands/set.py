"""Set: store one value."""

from __future__ import annotations

import math
from collections.abc import Collection

from ..core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES, Limits, check_key, check_ttl, check_value
from .command import NEVER_TEXT, Change, WriteCommand


class Set(WriteCommand):
    """Store `value` at `key` for `ttl` seconds (0: for ever), whatever was there before."""

    __slots__ = ("key", "value")

    name = right = metric = "set"

    def __init__(self, key: bytes, value: bytes, ttl: int = 0, deadline: float = math.inf) -> None:
        """UTF-8 for the key, any bytes for the value."""
        self.key = key
        self.value = value
        self.ttl = ttl
        # What `Command.__init__` does, without the call: no command is made more often.
        self.size = len(key) + len(value)
        self.deadline = deadline
        self.error = self.result = self.encode = self.awaited = None
        self.answered = 0

    @property
    def keys(self) -> Collection[bytes]:
        """The one."""
        return (self.key,)

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        if not 0 < len(self.key) <= MAX_KEY_BYTES:
            check_key(self.key)
        if len(self.value) > MAX_VALUE_BYTES:
            check_value(self.value)
        if self.ttl:
            check_ttl(self.ttl)

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return self.key.startswith(prefixes)

    @property
    def is_plain(self) -> bool:
        """See `WriteCommand.is_plain`."""
        return not self.ttl and self.value[:1] != NEVER_TEXT

    def changes(self, expires_at_ms: int) -> list[Change]:
        """See `WriteCommand.changes`."""
        return [(self.key, self.value, expires_at_ms)]
