"""Answers plain requests: hot Gets at once, all others as Klein's are, by a shorter way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from twisted.python.failure import Failure

from ..commands.set import Set
from ..core.errors import InvalidRequest
from ..sessions.session import Session
from . import errors, fast_bodies, routes, urls
from .answers import JSON, Answer
from .dispatch import Dispatch, Running
from .fast_answers import Encoder
from .fast_requests import DELETE, GET, POSTED, Request
from .received import Received
from .routes import Route

#: Bytes of a body that is waited for here; a longer one is read by twisted.web from its first byte on.
MAX_BODY = 65_536


class Waiter(Protocol):
    """A connection that has asked for something."""

    def promise(self) -> int:
        """The answer comes later; returns what `answered` must be told with it. One at a time."""

    def answered(self, promise: int, answer: bytes) -> None:
        """The promised answer; dropped when it is not waited for any more."""

    #: What a promised answer waits for; to be cancelled when nobody waits for that.
    running: Running | None


class FastLane:
    """Answers the plain requests of one session, on all connections of a site. Reactor thread."""

    def __init__(self, session: Session, dispatch: Dispatch, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Every answer has `headers`."""
        self._session = session
        self._get_now = session.get_now
        self._check_room = session.check_room
        self._dispatch = dispatch
        self._encoder = Encoder(headers)

    def answer(self, waiter: Waiter, request: Request, body: bytes) -> bytes | None:
        """The answer to a request, or None when it has been promised."""
        kind, target, content_type = request.kind, request.target, request.content_type
        if kind == GET:
            return self._get(waiter, target)
        if kind == DELETE:
            self._answer(waiter, routes.DELETE, Received(target))
            return None
        route = POSTED[target]
        if route is routes.SET and content_type == JSON:
            plain = fast_bodies.set_arguments(body)
            if plain is not None:
                promise = waiter.promise()
                done = partial(self._done, waiter, promise, route)
                waiter.running = self._dispatch.submit(self._session, route, Set(*plain), done)
                return None
        self._answer(waiter, route, Received(b"", b"", content_type, body))
        return None

    def failed(self, name: str, error: BaseException | None = None) -> bytes:
        """The answer to what failed with `error`, or with what is being handled, while doing `name`."""
        return self._encoder.encode(errors.answer(Failure(error), name))

    def _get(self, waiter: Waiter, target: bytes) -> bytes | None:
        try:
            key = self._decoded(target) if b"%" in target else target
            # Such a Get ends before anything else can begin, so that it need not be counted.
            self._check_room()
            known, found = self._get_now(key)
            if known:
                return self._encoder.found(found, target)
            command = routes.read_get(Received(target), self._dispatch.bounds)
        except Exception:
            return self.failed("get")
        done = partial(self._done, waiter, waiter.promise(), routes.GET)
        waiter.running = self._dispatch.submit(self._session, routes.GET, command, done)
        return None

    def _decoded(self, target: bytes) -> bytes:
        try:
            return urls.path_key(target, b"").encode()
        except InvalidRequest:
            self._session.require(routes.GET.requirement, "")
            self._session.before_reading(0)
            raise

    def _answer(self, waiter: Waiter, route: Route, received: Received) -> None:
        done = partial(self._done, waiter, waiter.promise(), route)
        waiter.running = self._dispatch.answer(self._session, route, received, done)

    def _done(self, waiter: Waiter, promise: int, route: Route, answer: Answer) -> None:
        try:
            encoded = self._encoder.encode(answer)
        except Exception:
            # Whatever happens, a connection is not left waiting.
            encoded = self.failed(route.name)
        waiter.answered(promise, encoded)
