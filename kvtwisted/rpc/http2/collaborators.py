"""What connections and their streams need of the server that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Protocol

from ...sessions.gate import Visitor
from ..calls import Terms
from ..errors import CallError
from .inbound import Budget
from .outbound import Backlog
from .requests import Routes
from .turns import Turns

if TYPE_CHECKING:
    from .connection import Connection


class StreamServer(Protocol):
    """What streams need of it."""

    budget: Budget
    backlog: Backlog
    terms: Terms
    seconds: Callable[[], float]

    def enter(self, visitor: Visitor, path: bytes) -> Routes:
        """What the visitor finds who asks for this path. Raises CallError."""


class ConnectionServer(StreamServer, Protocol):
    """What a connection needs of it."""

    #: Connections that were cut off, by reason (`lifetime.REASONS`).
    cut_off: dict[str, int]
    #: For work on header blocks.
    header_turns: Turns
    #: Connections that have something to send, which `flush` sends.
    dirty: list[Connection]

    def knows(self, visitor: Visitor) -> bool:
        """Whether it is somebody known."""

    def administers(self, visitor: Visitor) -> bool:
        """Whether it is somebody known who administers the server."""

    def passed_trial(self, connection: Connection) -> None:
        """One that is on trial is an administrator's."""

    def refused_on_trial(self) -> CallError:
        """One that is on trial is no administrator's; what to answer."""

    def opened(self, connection: Connection) -> None:
        """It is there."""

    def closed(self, connection: Connection) -> None:
        """It is gone."""

    def flush(self) -> None:
        """Send what has gathered on all connections."""
