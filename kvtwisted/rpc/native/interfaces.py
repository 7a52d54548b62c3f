"""What each visitor finds: the same methods for all, over the operations that are granted to them.

Note [Authentication by the header block]: who calls stands in the headers, which repeat, and what a block meant is
remembered. So a principal is looked up once for each block and connection, not once for each call, and a call of a
known one costs nothing more. When passes are withdrawn, all connections forget their blocks, before the next request is
read, and pipelines of those principals end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable

from ...core.errors import KvError
from ...core.service import Service
from ...security.gate import Gate, Pass, Visitor
from ...security.policy import NO_TOKEN, NOBODY, PUBLIC, rpc_requirement
from ..errors import CallError, Code, call_error
from ..methods import SERVICES
from .pipelines import PipelineService
from .requests import Entry, Route
from .unary import UnaryCalls


class Interfaces:
    """The interface of each pass. Reactor thread."""

    def __init__(
        self,
        gate: Gate,
        make_calls: Callable[[Service], UnaryCalls],
        pipelines: PipelineService,
        others: Iterable[Route],
        forget: Callable[[], None],
    ) -> None:
        """`make_calls` makes what answers the key-value service, `others` are the same for everybody.

        `forget` makes connections forget what header blocks meant.
        """
        self._gate = gate
        self._make_calls = make_calls
        self._pipelines = pipelines
        self._others = list(others)
        self._forget = forget
        self._entries: dict[Pass, tuple[Entry, UnaryCalls]] = {}
        public = [route for route in self._others if rpc_requirement(route.path) == PUBLIC]
        self._nobody = Entry(_by_path(public), CallError(Code.UNAUTHENTICATED, NO_TOKEN))
        gate.watch(self._withdrawn)

    def of(self, visitor: Visitor) -> Entry:
        """What the visitor finds. Raises CallError."""
        try:
            admitted = self._gate.admit(visitor)
        except KvError as error:
            raise call_error(error, "authentication") from None
        if not admitted.is_known:
            return self._nobody
        known = self._entries.get(admitted)
        if known is None:
            known = self._entries[admitted] = self._make(admitted)
        return known[0]

    def _make(self, admitted: Pass) -> tuple[Entry, UnaryCalls]:
        calls = self._make_calls(admitted.operations)
        methods = [Route(f"/{service}/{name}", *ways) for service in SERVICES for name, ways in calls.methods().items()]
        return Entry(_by_path([*methods, *self._pipelines.routes(calls), *self._others])), calls

    def _withdrawn(self, passes: frozenset[Pass]) -> None:
        self._forget()
        for withdrawn in passes:
            gone = self._entries.pop(withdrawn, None)
            if gone is not None:
                self._pipelines.revoke(gone[1])


def _by_path(routes: Iterable[Route]) -> dict[bytes, Route]:
    """Without those that the table of rights does not know."""
    return {route.path.encode(): route for route in routes if rpc_requirement(route.path) != NOBODY}
