"""Which visitor may use which route: the session of each visitor, and the fast lane for its plain requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from twisted.python.failure import Failure

from ..core.errors import KvError
from ..sessions.gate import Gate, Visitor, Withdrawn
from ..sessions.policy import AUTHENTICATED, PUBLIC
from ..sessions.session import Session
from . import errors
from .answers import Answer
from .routes import Route

if TYPE_CHECKING:
    from .fast_lane import FastLane


class Authorization:
    """Finds sessions of visitors. Reactor thread."""

    def __init__(self, gate: Gate, make_lane: Callable[[Session], FastLane]) -> None:
        self._gate = gate
        self._make_lane = make_lane
        self._lanes: dict[Session, FastLane] = {}
        gate.on_withdrawal(self._withdrawn)

    def on_withdrawal(self, listener: Withdrawn) -> None:
        """See `Gate.on_withdrawal`."""
        self._gate.on_withdrawal(listener)

    def session(self, route: Route, visitor: Visitor) -> Session:
        """The session of a visitor who may use that route. Raises Unauthenticated and PermissionDenied."""
        if route.requirement == PUBLIC:
            # What is public is answered whatever is shown.
            return self._gate.admit(Visitor(visitor.address))
        session = self._gate.admit(visitor)
        session.require(route.requirement, visitor.address)
        return session

    def lane(self, visitor: Visitor) -> FastLane | None:
        """The fast lane for the plain requests of a known visitor; None for others, to whom `session` gives the
        reason."""
        session = self._gate.find(visitor)
        if session is None:
            return None
        lane = self._lanes.get(session)
        if lane is None:
            lane = self._lanes[session] = self._make_lane(session)
        return lane

    def refusal(self, visitor: Visitor) -> Answer | None:
        """The answer to an unknown visitor who announces a large body; None if the visitor is known."""
        if self.knows(visitor):
            return None
        try:
            self._gate.admit(visitor).require(AUTHENTICATED, visitor.address)
        except KvError as error:
            return errors.answer(Failure(error), "authentication")
        return None

    def refusal_of_known(self, route: Route, visitor: Visitor) -> Answer | None:
        """The answer to a known visitor who announces a large body for that route; None if they may use the route and
        their rate has something left.
        """
        session = self._gate.find(visitor)
        if session is None:
            return None
        try:
            session.require(route.requirement, visitor.address)
            session.check_rate()
        except KvError as error:
            return errors.answer(Failure(error), route.name)
        return None

    def knows(self, visitor: Visitor) -> bool:
        """Whether the visitor is known. It does not count as an attempt to log in."""
        return self._gate.find(visitor) is not None

    def administers(self, visitor: Visitor) -> bool:
        """Whether the visitor is a known administrator. It does not count as an attempt to log in."""
        session = self._gate.find(visitor)
        return session is not None and session.administers

    def _withdrawn(self, sessions: frozenset[Session]) -> None:
        for withdrawn in sessions:
            self._lanes.pop(withdrawn, None)
