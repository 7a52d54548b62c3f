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

    Who submits it sets `part`, asks for `more`, and may `cancel`. The backend sets `flow` when it is given the command,
    adds what a part has to `entries` and `answered`, and tells it by `part`. `encode` makes of it what the client is
    sent, on the thread that made the part. It is settled without a result; an error may come after some parts. Reactor
    thread.
    """

    __slots__ = ("_asked", "_flow", "entries", "hold", "is_cancelled", "is_over", "part", "refusal")

    takes_room = False
    #: It is not waited for as requests are: the number of streams has limits of its own.
    is_limited = False
    #: It takes as long as who reads it.
    is_timed = False

    def __init__(self, size: int, encode: Callable[[Any], Any] | None) -> None:
        """`size` is in bytes of keys."""
        Command.__init__(self, size, math.inf)
        self.encode = encode
        #: Called with each part, encoded, on the reactor thread; must not raise. Set by who submits it.
        self.part: Callable[[Any], object]
        #: Keys, or events, of the parts that nobody has charged for; their bytes are `answered`.
        self.entries = 0
        #: Says whether it sees to it that `go_on` is called later, when there may be more: for rates.
        self.hold: Callable[[StreamCommand], bool] | None = None
        #: What it ends with in place of what else it may come to: set by `end_with`.
        self.refusal: BaseException | None = None
        self.is_cancelled = self.is_over = False
        self._flow: Flow | None = None
        self._asked = False

    # For who submits it.

    def more(self) -> None:
        """See `Flow.more`. It may be called as soon as the command was submitted."""
        if self.hold is None or not self.hold(self):
            self.go_on()

    def go_on(self) -> None:
        """`more`, now."""
        if self.is_cancelled or self.is_over:
            return
        if self._flow is None:
            self._asked = True
        else:
            self._flow.more()

    def cancel(self) -> None:
        """See `Flow.cancel`. It may be called at any time."""
        if not (self.is_cancelled or self.is_over):
            self.is_cancelled = True
            if self._flow is not None:
                self._flow.cancel()

    def end_with(self, refusal: BaseException) -> None:
        """Have it end soon, with this error."""
        if not self.is_cancelled:
            self.refusal = refusal
            self.cancel()

    # For the backend.

    @property
    def flow(self) -> Flow | None:
        """What its parts come from. What was asked of it before it was set is asked then."""
        return self._flow

    @flow.setter
    def flow(self, flow: Flow) -> None:
        self._flow = flow
        if self.is_cancelled:
            flow.cancel()
        elif self._asked:
            self._asked = False
            flow.more()
