"""What was asked for and can be no command: refused like the commands that it might have been."""

from __future__ import annotations

import math

from ..core.errors import InvalidRequest
from ..core.limits import Limits
from .command import Command


class Invalid(Command):
    """A request that a codec could read, and that contradicts itself, for example.

    `check` raises what is wrong with it. So the door refuses it when it would have refused the command itself: after
    rights, rate and room, and it is counted.
    """

    __slots__ = ("_reason", "metric", "right")

    name = "invalid request"

    def __init__(self, right: str, size: int, reason: InvalidRequest, deadline: float = math.inf) -> None:
        """It would have needed `right`, which is what it would have been counted as. `size` is in bytes."""
        Command.__init__(self, size, deadline)
        self.right = self.metric = right  # type: ignore[misc]
        self._reason = reason

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        raise self._reason

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`: it touches nothing."""
        return bool(prefixes)
