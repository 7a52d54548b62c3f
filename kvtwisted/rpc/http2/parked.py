"""Calls that have come whole and not begun, because too many bytes of answers wait: see `Responder.backlogged`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import CallError
from .inbound import Budget, Message, Share
from .requests import Route


@dataclass(frozen=True)
class ParkedCall:
    """One of them, and when it must have begun (the server's seconds)."""

    route: Route
    message: Message
    deadline: float


class ParkedCalls:
    """Those of one connection, as they came. Their messages count like unfinished requests. Reactor thread."""

    __slots__ = ("_budget", "_share", "by_id")

    def __init__(self, budget: Budget, share: Share) -> None:
        self._budget = budget
        self._share = share
        #: By the numbers of their streams; changed here alone.
        self.by_id: dict[int, ParkedCall] = {}

    def add(self, stream_id: int, call: ParkedCall) -> None:
        """Let it wait. Raises CallError where there is no room for its message."""
        self._budget.hold(self._share, len(call.message[0]))
        self.by_id[stream_id] = call

    def take(self, stream_id: int) -> ParkedCall:
        """It waits no longer."""
        call = self.by_id.pop(stream_id)
        self._budget.free(self._share, len(call.message[0]))
        return call

    def take_next(self) -> tuple[int, ParkedCall]:
        """The one that came first."""
        stream_id = next(iter(self.by_id))
        return stream_id, self.take(stream_id)

    def take_late(self, now: float) -> list[int]:
        """Those whose time is up: their streams."""
        late = [stream_id for stream_id, call in self.by_id.items() if call.deadline <= now]
        for stream_id in late:
            self.take(stream_id)
        return late

    def take_revoked(self, routes: Mapping[int, CallError]) -> list[tuple[int, CallError]]:
        """Those of the routes with these ids: their streams, and the errors of their routes."""
        revoked = [(stream_id, id(call.route)) for stream_id, call in self.by_id.items() if id(call.route) in routes]
        for stream_id, _ in revoked:
            self.take(stream_id)
        return [(stream_id, routes[route]) for stream_id, route in revoked]

    def clear(self) -> None:
        """Forget all of them."""
        for stream_id in list(self.by_id):
            self.take(stream_id)
