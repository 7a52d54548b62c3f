"""Get: read one value. What memory can answer is asked for without this object: see `Door.get_now`."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Callable, NamedTuple

from ..core.limits import Limits, check_key
from .command import Command


class Found(NamedTuple):
    """What Get found: the value, and the seconds it has left, rounded up (0: it never expires)."""

    value: bytes
    ttl: int


class Get(Command):
    """The value at `key`: a `Found`, or None when there is none or it has expired."""

    __slots__ = ("digests", "key")

    name = right = metric = "get"
    # A key is small, and reads must go on when writes have taken all the room.
    takes_room = False

    def __init__(
        self,
        key: bytes,
        deadline: float = math.inf,
        encode: Callable[[Any], Any] | None = None,
        *,
        digests: bool = False,
    ) -> None:
        """UTF-8. `encode` may take long for a large value if it `digests` it."""
        Command.__init__(self, len(key), deadline)
        self.key = key
        self.encode = encode
        self.digests = digests

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

    def weigh(self, result: Any) -> int:
        """See `Command.weigh`."""
        return 0 if result is None else len(result.value)
