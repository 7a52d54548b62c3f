"""The methods whose calls may become a `MutateKey` that can go together with others: see `commands.decisions`."""

from __future__ import annotations

from typing import Callable, NamedTuple

from ..commands.conditional import ConditionalSet, Increment, MutateKey, Touch
from ..commands.deciding import Outcome
from .answers import encoded_increment, encoded_touch, encoded_write
from .methods import METHODS, Method
from .quick_changes import Change, read_increment, read_set_if, read_touch


class Deciding(NamedTuple):
    """One of them: how its messages are read, what they become, and how the answer is made of what came of it."""

    method: Method
    #: From a message, and where the request begins in it, to what it asks for; or None, as in `quick_changes`.
    read: Callable[[bytes, int], Change | None]
    command: type[MutateKey]
    encode: Callable[[Outcome], bytes]

    def single(self, change: Change, deadline: float) -> MutateKey:
        """A command of its own."""
        return self.command(*change, deadline, self.encode)


SET_IF = Deciding(METHODS["Set"], read_set_if, ConditionalSet, encoded_write)
INCREMENT = Deciding(METHODS["Increment"], read_increment, Increment, encoded_increment)
TOUCH = Deciding(METHODS["Touch"], read_touch, Touch, encoded_touch)
