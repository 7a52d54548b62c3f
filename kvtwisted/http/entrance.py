"""What each visitor finds: the same routes for all, over the operations that are granted to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Callable, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..core.errors import KvError
from ..security.gate import Gate, Visitor, Watcher
from ..security.policy import AUTHENTICATED, PUBLIC, route_requirement
from ..sessions.session import Session
from . import errors
from .answers import Answer
from .handlers import Handler, Received

if TYPE_CHECKING:
    from .fast_lane import FastLane


class Interface(NamedTuple):
    """What answers the routes by their names, and the plain requests among them."""

    handlers: Mapping[str, Handler]
    lane: FastLane


class Entrance:
    """Looks at who comes, and lets them to an interface of their own. Reactor thread."""

    def __init__(self, gate: Gate, make: Callable[[Session], Interface]) -> None:
        self._gate = gate
        self._make = make
        self._made: dict[Session, Interface] = {}
        gate.watch(self._withdrawn)

    def watch(self, watcher: Watcher) -> None:
        """See `Gate.watch`."""
        self._gate.watch(watcher)

    def handle(self, name: str, visitor: Visitor, received: Received) -> Deferred[Answer]:
        """What the route called `name` answers.

        Fails, at once or by its Deferred, with Unauthenticated or PermissionDenied, or with what the handler fails.
        """
        requirement = route_requirement(name)
        if requirement == PUBLIC:
            # What is public is answered whatever is shown.
            admitted = self._gate.admit(Visitor(visitor.address))
        else:
            admitted = self._gate.admit(visitor)
            admitted.require(requirement, visitor.address)
        return self._interface(admitted).handlers[name](received)

    def lane(self, visitor: Visitor) -> FastLane | None:
        """What answers the plain requests of somebody known; None for anybody else, whom `handle` tells more."""
        admitted = self._gate.find(visitor)
        return None if admitted is None else self._interface(admitted).lane

    def refusal(self, visitor: Visitor) -> Answer | None:
        """What to answer at once to a visitor who is not known and announces much; None if they are known."""
        if self.knows(visitor):
            return None
        try:
            self._gate.admit(visitor).require(AUTHENTICATED, visitor.address)
        except KvError as error:
            return errors.answer(Failure(error), "authentication")
        return None

    def refusal_of_known(self, name: str, visitor: Visitor) -> Answer | None:
        """What to answer at once to a visitor who is known and announces much for the route called `name`.

        None if they may do that, and there is something left of their rate.
        """
        admitted = self._gate.find(visitor)
        if admitted is None:
            return None
        try:
            admitted.require(route_requirement(name), visitor.address)
            admitted.check_rate()
        except KvError as error:
            return errors.answer(Failure(error), name)
        return None

    def knows(self, visitor: Visitor) -> bool:
        """Whether it is somebody known. It is no attempt to log in."""
        return self._gate.find(visitor) is not None

    def administers(self, visitor: Visitor) -> bool:
        """Whether it is somebody known who administers the server. It is no attempt to log in."""
        admitted = self._gate.find(visitor)
        return admitted is not None and admitted.administers

    def _interface(self, admitted: Session) -> Interface:
        made = self._made.get(admitted)
        if made is None:
            made = self._made[admitted] = self._make(admitted)
        return made

    def _withdrawn(self, sessions: frozenset[Session]) -> None:
        for withdrawn in sessions:
            self._made.pop(withdrawn, None)
