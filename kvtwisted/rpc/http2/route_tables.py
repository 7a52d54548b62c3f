"""What each visitor finds: the same methods for all, carried out for their session.

Note [Authentication by the header block]: who calls stands in the headers, which repeat, and what a block meant is
remembered. So a principal is looked up once for each block and connection, not once for each call, and a call of a
known one costs nothing more. When sessions are withdrawn, all connections forget their blocks, before the next request
is read, and what those principals have begun and not finished ends: their requests that are not whole, and their
streams.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Callable

from ...core.errors import KvError
from ...sessions.gate import Gate, Visitor
from ...sessions.policy import NOBODY, PUBLIC
from ...sessions.session import Session
from .. import rights
from ..errors import CallError, Code, call_error
from ..methods import SERVICES
from ..stream_slots import share_of
from .answering import StreamedAnswers
from .pipelines import PipelineService
from .requests import Route, Routes
from .unary import UnaryCalls

_REVOKED = CallError(Code.UNAUTHENTICATED, "the token or certificate holds no longer")
#: Clients open their streams again on this one.
_REPLACED = CallError(Code.UNAVAILABLE, "what the token may do has changed: call again")


class RouteTables:
    """The routes of each session. Reactor thread."""

    def __init__(
        self,
        gate: Gate,
        make_calls: Callable[[Session], UnaryCalls],
        pipelines: PipelineService,
        answers: StreamedAnswers,
        others: Iterable[Route],
        revoke: Callable[[Mapping[int, CallError]], None],
    ) -> None:
        """`make_calls` makes what answers the key-value service, `others` are the same for everybody.

        `revoke` makes connections forget what header blocks meant, and end what has not begun of the routes with these
        ids (as `id` gives them: each session has routes of its own, which may be equal), with those errors.
        """
        self._gate = gate
        self._make_calls = make_calls
        self._pipelines = pipelines
        self._answers = answers
        self._others = list(others)
        self._revoke = revoke
        self._tables: dict[Session, Routes] = {}
        self._public = {
            route.path.encode(): route for route in self._others if rights.rpc_requirement(route.path) == PUBLIC
        }
        gate.on_withdrawal(self._withdrawn)

    def of(self, visitor: Visitor, path: bytes) -> Routes:
        """The routes of the visitor's session, who calls this path. Raises CallError."""
        if path in self._public:
            # What is public is answered whatever is shown.
            return self._public
        try:
            admitted = self._gate.admit(visitor)
            rights.check(admitted, path.decode("latin-1"), visitor.address)
        except KvError as error:
            raise call_error(error, "authentication") from None
        known = self._tables.get(admitted)
        if known is None:
            known = self._tables[admitted] = self._make(admitted)
        return known

    def _make(self, admitted: Session) -> Routes:
        calls = self._make_calls(admitted)
        methods = [Route(f"/{service}/{name}", *ways) for service in SERVICES for name, ways in calls.methods().items()]
        pipelines = self._pipelines.routes(admitted, share_of(admitted))
        routes = [*methods, *pipelines, *self._answers.routes(admitted), *[Route(*route) for route in self._others]]
        # Without those that the table of rights does not know.
        return {route.path.encode(): route for route in routes if rights.rpc_requirement(route.path) != NOBODY}

    def _withdrawn(self, sessions: frozenset[Session]) -> None:
        gone = [
            (self._tables.pop(withdrawn, {}), _REPLACED if withdrawn.is_replaced else _REVOKED)
            for withdrawn in sessions
        ]
        self._revoke({id(route): error for table, error in gone for route in table.values()})
