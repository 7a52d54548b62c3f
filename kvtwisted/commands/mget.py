"""MGet: read many values from one view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Callable

from ..core.errors import ResponseTooLarge
from ..core.limits import Limits, check_keys
from .command import Command


class MGet(Command):
    """The values of those keys that exist, by key, in the order asked, from one consistent view.

    Fails with ResponseTooLarge when they exceed `budget` bytes, ENTRY_OVERHEAD for each counted.
    """

    __slots__ = ("_keys", "budget")

    name = "mget"
    right = metric = "get"

    def __init__(
        self,
        keys: Sequence[bytes],
        *,
        budget: int,
        deadline: float = math.inf,
        encode: Callable[[Any], Any] | None = None,
    ) -> None:
        """UTF-8."""
        Command.__init__(self, sum(map(len, keys)), deadline)
        self._keys = keys
        self.budget = budget
        self.encode = encode

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

    def weigh(self, result: Any) -> int:
        """See `Command.weigh`."""
        return sum(map(len, result.values()))


def too_large(budget: int) -> ResponseTooLarge:
    """What an answer over `budget` bytes is refused with."""
    return ResponseTooLarge(f"keys: the values exceed {budget} bytes, the limit of one answer; ask for fewer")
