"""From a request to its answer: makes the command, submits it and waits for it. Both lanes use it.

For the order see Note [The order of admission] in `sessions.session`.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any, Callable, Protocol

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..commands.command import Command
from ..commands.get import Found, Get
from ..commands.streams import StreamCommand
from ..core.errors import InvalidRequest
from ..reactor.fair_pool import FairPool
from ..sessions.charged import Charged
from ..sessions.grants import ADMIN
from ..sessions.session import Session
from ..sessions.threads import LAST_RESORT, overdue
from . import bodies, errors
from .answers import Answer
from .preconditions import UNCONDITIONAL
from .routes import Bounds, Handle, Read, Received, Route, Services
from .streaming import StreamingAnswer

#: Called with the answer. Must not raise.
Done = Callable[[Answer], object]


class Running(Protocol):
    """A request that somebody waits for."""

    def cancel(self) -> None:
        """Stop waiting. A write is carried out all the same."""


class _Request:
    """A request in progress, and the function to call with its answer."""

    __slots__ = ("_requests", "_route", "_tell")

    def __init__(self, requests: LastResort, route: Route, tell: Done) -> None:
        self._requests = requests
        self._route = route
        self._tell = tell

    def is_awaited(self) -> bool:
        """Whether somebody still waits. Any thread."""
        return self in self._requests.until

    def cancel(self) -> None:
        """See `Running`."""
        self._requests.forget(self)

    def settled(self, command: Command) -> None:
        """The command was carried out, or failed."""
        # It may have been given up.
        if self._requests.until.pop(self, None) is None:
            return
        error = command.error
        if error is not None:
            self._tell(errors.answer(Failure(error), self._route.name))
        else:
            answer: Any = command.result or self._route.done
            self._tell(answer)

    def fail(self, failure: Failure) -> None:
        """The request failed before there was a command, or was given up."""
        if self._requests.until.pop(self, None) is not None:
            self._tell(errors.answer(failure, self._route.name))


class LastResort:
    """Answers requests that are stuck: one timer for all requests in progress. See `threads.LAST_RESORT`."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        #: Those that are waited for, and until when (the clock's time).
        self.until: dict[_Request, float] = {}
        self._call: Any = None
        #: When it looks next (the clock's time); inf: it does not.
        self.at = math.inf

    def forget(self, request: _Request) -> None:
        """Stop waiting for it."""
        self.until.pop(request, None)
        self.rest()

    def rest(self) -> None:
        """Stop the timer, if no request is in progress. Not called for each request: that would take a timer for
        each."""
        if not self.until and self._call is not None:
            self._call.cancel()
            self._call, self.at = None, math.inf

    def look_at(self, at: float) -> None:
        """Look then, which is before `self.at`: the time that requests get can be changed while the server runs."""
        if self._call is not None:
            self._call.cancel()
        self._call = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._give_up)
        self.at = at

    def _give_up(self) -> None:
        self._call, self.at = None, math.inf
        now = self._clock.seconds()
        for request, until in list(self.until.items()):
            if until <= now:
                request.fail(Failure(overdue()))
        # inf is for those that are waited for without end.
        at = min(self.until.values(), default=math.inf)
        if at < self.at:
            self.look_at(at)


class Dispatch:
    """Answers the requests of a site. Reactor thread.

    Each gets exactly one answer, now or later, whatever happens; none if it was cancelled before.
    """

    def __init__(self, reactor: Any, pool: FairPool, services: Services, bounds: Bounds) -> None:
        """Large bodies are read in `pool`."""
        self._reactor = reactor
        self._pool = pool
        self._services = services
        self.bounds = bounds
        self._requests = LastResort(reactor)

    def rest(self) -> None:
        """The last connection is gone: stop the timer."""
        self._requests.rest()

    def answer(self, session: Session, route: Route, received: Received, done: Done) -> Running | None:
        """Answer a request for a route that `session` may use."""
        try:
            if route.handle is not None:
                return self._handle(route, route.handle, received, done)
            assert route.read is not None  # noqa: S101 - it has one of both
            if route.has_body:
                size = len(received.body)
                session.require(route.requirement, "")
                # Receiving it was work, whatever it is.
                if size > route.large and route.may_be_large:
                    return self._read_in_pool(session, route, route.read, received, done)
                if route.requirement == ADMIN:
                    session.charge(size)  # there is always room for the operator's tasks
                else:
                    session.before_reading(size)
                _check_form(route, received)
                command = route.read(received, self.bounds)
                session.give_back(size)
            else:
                try:
                    command = route.read(received, self.bounds)
                except InvalidRequest:
                    session.require(route.requirement, "")
                    session.before_reading(0)
                    raise
            if isinstance(command, Get):
                session.check_room()
                known, found = session.get_now(command.key)
                if known and found is not None and len(found.value) > bodies.LARGE:
                    return self._encode_in_pool(session, route, command, found, done)
                if known:
                    command.complete(found)
                    done(command.result)
                    return None
        except Exception:
            done(errors.answer(Failure(), route.name))
            return None
        return self.submit(session, route, command, done)

    def submit(
        self, session: Session, route: Route, command: Command, done: Done, request: _Request | None = None
    ) -> Running | None:
        """Submit a command of the route. `request` is given if it was made already."""
        if request is None:
            request = _Request(self._requests, route, done)
        timeout = self.bounds.request_timeout if command.is_limited else math.inf
        command.deadline = time.monotonic() + timeout
        if route.encode is not None:
            command.encode = route.encode
        command.awaited = request.is_awaited
        until = self._requests.until[request] = self._reactor.seconds() + timeout + LAST_RESORT
        try:
            session.submit(command, request.settled)
            if until < self._requests.at:
                self._requests.look_at(until)
        except Exception:
            request.fail(Failure())
            return None
        return request

    def _encode_in_pool(self, session: Session, route: Route, command: Get, found: Found, done: Done) -> Running:
        """Answer with a large value that memory has: to digest it, or to make JSON of it, takes milliseconds."""
        request = self._begin(route, done)
        made: Deferred[None] = self._pool.run(session.admission, partial(command.complete, found))
        made.addCallbacks(lambda _: request.settled(command), request.fail)
        return request

    def _begin(self, route: Route, done: Done) -> _Request:
        """A request that has not been submitted yet."""
        request = _Request(self._requests, route, done)
        until = self._requests.until[request] = self._reactor.seconds() + self.bounds.request_timeout + LAST_RESORT
        if until < self._requests.at:
            self._requests.look_at(until)
        return request

    def stream(self, session: Session, route: Route, received: Received, answer: StreamingAnswer) -> None:
        """Have `answer` given, in parts, to a request for a route that `session` may use."""
        assert route.read is not None  # noqa: S101 - its answers are a command's
        try:
            try:
                command = route.read(received, self.bounds)
            except InvalidRequest:
                session.require(route.requirement, "")
                session.before_reading(0)
                raise
            assert isinstance(command, StreamCommand)  # noqa: S101 - as all of such a route
            command.part = answer.part
            session.submit(command, answer.settled)
        except Exception:
            answer.refused(errors.answer(Failure(), route.name))
            return
        answer.submitted(command)

    def _read_in_pool(
        self, session: Session, route: Route, read: Read, received: Received, done: Done
    ) -> Running | None:
        charged = Charged(session, len(received.body))
        try:
            _check_form(route, received)
        except InvalidRequest:
            charged.refuse()
            raise
        request = self._begin(route, done)
        reading: Deferred[Command] = self._pool.run(session.admission, partial(read, received, self.bounds))

        def submit(command: Command) -> None:
            charged.forget()
            if request.is_awaited():
                self.submit(session, route, command, done, request)

        def failed(failure: Failure) -> None:
            if failure.check(InvalidRequest):
                charged.refuse()
            else:
                charged.forget()
            request.fail(failure)

        reading.addCallbacks(submit, failed)
        return request

    def _handle(self, route: Route, handle: Handle, received: Received, done: Done) -> Running:
        def failed(failure: Failure) -> None:
            # One that was cancelled nobody waits for.
            if not failure.check(CancelledError):
                done(errors.answer(failure, route.name))

        running: Deferred[Answer] = maybeDeferred(handle, self._services, received)
        running.addCallbacks(done, failed)
        return running


def _check_form(route: Route, received: Received) -> None:
    """Raise InvalidRequest unless the body says that it is JSON, as it is, or may be anything."""
    if not route.is_value:
        bodies.check_content_type(received.content_type)
    if received.preconditions != UNCONDITIONAL and not route.is_conditional:
        raise InvalidRequest(
            "If-Match and If-None-Match: are taken by /api/v1/raw/{key}; here a condition is in the body"
        )
    bodies.check_codings(received.codings)
