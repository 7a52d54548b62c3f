"""What connections need of the server that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ...sessions.gate import Visitor
from ..errors import CallError
from .streams import Settings
from .turns import Turns

if TYPE_CHECKING:
    from .connection import Connection


class Owner(Settings, Protocol):
    """What a connection needs of the server it belongs to."""

    #: Connections that were cut off, by reason (`lifetime.REASONS`).
    cut_off: dict[str, int]
    #: For work on header blocks.
    header_turns: Turns

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

    def touched(self, connection: Connection) -> None:
        """It has something to send, which `flush` sends."""

    def flush(self) -> None:
        """Send what has gathered on all connections."""
