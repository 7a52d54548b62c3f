"""Streams that are open: Watches and ScanStreams, of all transports. Reactor thread.

They are no requests that are waited for: they have limits of their own, pay for each part, and end when their session
is withdrawn or the server stops.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from ..commands.scan_stream import ScanStream
from ..commands.streams import StreamCommand
from ..commands.watch import Watch
from ..core.errors import Unavailable
from .admission import Admission
from .slots import Slots

#: How many there may be unless somebody says so.
_DEFAULT = 1000


class StreamLimits(NamedTuple):
    """How many may be open, of each kind; of one principal three quarters."""

    max_watchers: int = _DEFAULT
    max_scan_streams: int = _DEFAULT


class OpenStreams:
    """All that are open."""

    def __init__(self, limits: StreamLimits | None = None) -> None:
        """None yet."""
        limits = limits or StreamLimits()
        #: Those of each kind, by its capability.
        self.slots = {
            Watch.capability: Slots("watchers", "limits.max_watchers", limits.max_watchers, "principal"),
            ScanStream.capability: Slots(
                "streamed scans", "limits.max_scan_streams", limits.max_scan_streams, "principal"
            ),
        }
        #: By their sessions.
        self._open: dict[object, set[StreamCommand]] = {}
        self._stopping = False

    def places(self, command: StreamCommand, owner: str | None) -> Admission:
        """What such commands of this owner enter; without one (None) they have no share."""
        return _Places(self.slots[command.capability], owner)

    def opened(self, command: StreamCommand, session: object) -> None:
        """One more, of this session. Raises Unavailable."""
        if self._stopping:
            raise Unavailable("the server is stopping")
        self._open.setdefault(session, set()).add(command)

    def closed(self, command: StreamCommand, session: object) -> None:
        """It is over, or has not begun."""
        of_session = self._open.get(session, set())
        of_session.discard(command)
        if not of_session:
            self._open.pop(session, None)

    def withdraw(self, session: object, refusal: BaseException) -> None:
        """End those of a session with this error."""
        for command in tuple(self._open.get(session, ())):
            command.end_with(refusal)

    def stop(self) -> None:
        """The server stops: end all, and let no more in."""
        self._stopping = True
        for session in tuple(self._open):
            self.withdraw(session, Unavailable("the server is stopping"))


class _Places(Admission):
    """What one principal's streams of a kind are counted into; in the backend it is whose turn it is."""

    def __init__(self, slots: Slots, owner: str | None) -> None:
        super().__init__(sys.maxsize)
        self._slots = slots
        self._owner = owner

    def enter(self, size: int = 0) -> None:
        """See `Slots.enter`."""
        self._slots.enter(self._owner)

    def leave(self, requests: int = 1, size: int = 0) -> None:
        """See `Slots.leave`."""
        for _ in range(requests):
            self._slots.leave(self._owner)
