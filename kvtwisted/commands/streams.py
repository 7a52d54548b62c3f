"""Commands whose result comes in parts: ScanStream and Watch."""

from __future__ import annotations

import math
from typing import Any, Callable, Protocol

from .command import Command


class Flow(Protocol):
    """The parts of one stream, one for each time that they are asked for. Reactor thread."""

    def more(self) -> None:
        """One more part may come: `StreamCommand.part` is called with it, once there is one, or else the command is
        settled. It may be called from within `part`. Not to be called again before that."""

    def cancel(self) -> None:
        """Nobody waits any more: the command is settled soon, without an error, and no part comes before that."""


class StreamCommand(Command):
    """A command whose result comes in parts, under backpressure; it is settled, as any other, when the last has come.

    The backend sets `flow` when it is given the command. `encode` makes of a part what the client is sent, on the
    thread that made the part. An error may come after some parts.
    """

    __slots__ = ("flow", "part")

    takes_room = False
    #: It is not waited for as requests are: the number of streams has limits of its own.
    is_limited = False

    flow: Flow

    def __init__(self, size: int, encode: Callable[[Any], Any] | None) -> None:
        """`size` is in bytes of keys."""
        Command.__init__(self, size, math.inf)
        self.encode = encode
        #: Called with each part, encoded, on the reactor thread; must not raise. Set by who submits it.
        self.part: Callable[[Any], object]
