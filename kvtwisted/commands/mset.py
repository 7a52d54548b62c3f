"""MSet: store many values atomically."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from ..core.limits import Limits, check_pairs, check_ttl
from .command import NEVER_TEXT, Change, WriteCommand


class MSet(WriteCommand):
    """Store all pairs, each for `ttl` seconds (0: for ever), or none of them."""

    __slots__ = ("is_text", "pairs")

    name = "mset"
    right = metric = "set"

    def __init__(
        self, pairs: Mapping[bytes, bytes], ttl: int = 0, deadline: float = math.inf, *, is_text: bool = False
    ) -> None:
        """UTF-8 for keys, any bytes for values; `is_text` says that these are known to be UTF-8 too."""
        WriteCommand.__init__(self, sum(map(len, pairs)) + sum(map(len, pairs.values())), deadline)
        self.pairs = pairs
        self.ttl = ttl
        self.is_text = is_text

    @property
    def count(self) -> int:
        """Pairs."""
        return len(self.pairs)

    @property
    def keys(self) -> Collection[bytes]:
        """Those of the pairs."""
        return self.pairs.keys()

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        check_pairs(self.pairs, limits)
        check_ttl(self.ttl)

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return all(key.startswith(prefixes) for key in self.pairs)

    @property
    def is_plain(self) -> bool:
        """See `WriteCommand.is_plain`."""
        if self.ttl or not self.pairs:
            return False
        # If any value begins with the highest byte, the highest value does.
        return self.is_text or max(self.pairs.values())[:1] != NEVER_TEXT

    def changes(self, expires_at_ms: int) -> list[Change]:
        """See `WriteCommand.changes`."""
        return [(key, value, expires_at_ms) for key, value in self.pairs.items()]
