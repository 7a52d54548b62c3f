"""The routes' work, free of any HTTP implementation: decode, call, encode.

A `Received` goes in and an `Answer` comes out, whoever reads the one from the wire and writes the other to it.
"""

from __future__ import annotations

import time
from typing import Any, Callable, NamedTuple, NoReturn, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..core.errors import DeadlineExceeded
from ..threaded.facade import AsyncOperations
from ..threaded.health_checks import HealthChecks
from . import answers, bodies, errors, urls
from .answers import Answer

T = TypeVar("T")

#: Seconds past a request's own deadline after which its answer is no longer waited for. Until then the thread that does
#: the work gives up by itself, and says more exactly why; this is for a thread that is stuck.
LAST_RESORT = 1.0


class Received(NamedTuple):
    """What a handler may need of a request."""

    #: The path behind the route, as it was sent (percent-encoded).
    tail: bytes = b""
    #: What follows the first `?`, as it was sent.
    query: bytes = b""
    content_type: str | None = None
    body: bytes = b""


Handler = Callable[[Received], "Deferred[Answer]"]


class Handlers:
    """One method for each operation of the contract. Reactor thread.

    Each fails, at once or by its Deferred, with what `errors.answer` can answer; `respond` puts the two together.
    """

    def __init__(
        self,
        operations: AsyncOperations,
        checks: HealthChecks,
        clock: IReactorTime,
        max_response_bytes: Callable[[], int],
        request_timeout: Callable[[], float],
    ) -> None:
        """`max_response_bytes` bounds keys and values of one answer, `request_timeout` (seconds) one request."""
        self._operations = operations
        self._checks = checks
        self._clock = clock
        self._max_response_bytes = max_response_bytes
        self._request_timeout = request_timeout

    def set(self, received: Received) -> Deferred[Answer]:
        """POST /api/v1/set."""
        bodies.check_content_type(received.content_type)
        key, value, ttl = bodies.set_arguments(received.body)
        return self._call(self._operations.set, key, value, ttl).addCallback(_always, answers.KEY_SET)

    def get(self, received: Received) -> Deferred[Answer]:
        """GET /api/v1/get/{key}."""
        key = urls.path_key(received.tail, received.query)
        return self._call(self._operations.get, key.encode()).addCallback(answers.found, key)

    def delete(self, received: Received) -> Deferred[Answer]:
        """DELETE /api/v1/delete/{key}."""
        key = urls.path_key(received.tail, received.query)
        return self._call(self._operations.delete, key.encode()).addCallback(_always, answers.KEY_DELETED)

    def scan(self, received: Received) -> Deferred[Answer]:
        """GET /api/v1/scan."""
        prefix, limit, cursor, keys_only = urls.scan_arguments(received.query)
        return self._call(
            self._operations.scan,
            prefix.encode(),
            cursor=cursor.encode(),
            limit=limit,
            keys_only=keys_only,
            budget=self._max_response_bytes(),
        ).addCallback(answers.page, prefix, limit, keys_only)

    def mset(self, received: Received) -> Deferred[Answer]:
        """POST /api/v1/mset."""
        bodies.check_content_type(received.content_type)
        pairs, ttl = bodies.mset_arguments(received.body)
        return self._call(self._operations.mset, pairs, ttl).addCallback(_always, answers.KEYS_SET)

    def mget(self, received: Received) -> Deferred[Answer]:
        """POST /api/v1/mget."""
        bodies.check_content_type(received.content_type)
        keys = bodies.keys_argument(received.body, "mget")
        budget = self._max_response_bytes()
        return self._call(self._operations.mget, keys, budget=budget).addCallback(answers.values)

    def mdelete(self, received: Received) -> Deferred[Answer]:
        """POST /api/v1/mdelete."""
        bodies.check_content_type(received.content_type)
        keys = bodies.keys_argument(received.body, "mdelete")
        return self._call(self._operations.mdelete, keys).addCallback(_always, answers.KEYS_DELETED)

    def get_config(self, received: Received) -> Deferred[Answer]:
        """GET /api/v1/config."""
        return self._bounded(self._operations.get_config()).addCallback(answers.configuration)

    def update_config(self, received: Received) -> Deferred[Answer]:
        """POST /api/v1/config."""
        bodies.check_content_type(received.content_type)
        document = bodies.config_argument(received.body)
        return self._bounded(self._operations.update_config(document)).addCallback(answers.config_updated)

    def health(self, received: Received) -> Deferred[Answer]:
        """GET the health path. What keeps the check from an answer is the reason for being unavailable."""
        return self._checks.result().addCallback(lambda reason: answers.health(reason, self._checks.warnings()))

    def _call(self, operation: Callable[..., Deferred[T]], *args: Any, **kwargs: Any) -> Deferred[T]:
        deadline = time.monotonic() + self._request_timeout()
        return self._bounded(operation(*args, deadline=deadline, **kwargs))

    def _bounded(self, running: Deferred[T]) -> Deferred[T]:
        return running.addTimeout(self._request_timeout() + LAST_RESORT, self._clock, _given_up)


def respond(name: str, handler: Handler, received: Received) -> Deferred[Answer]:
    """The answer of the handler called `name`, whatever happens; fails only when cancelled."""
    return maybeDeferred(handler, received).addErrback(_failed, name)


def _failed(failure: Failure, name: str) -> Answer:
    if isinstance(failure.value, CancelledError):
        failure.raiseException()  # the client has gone: nobody waits for an answer
    return errors.answer(failure, name)


def _always(_: object, done: Answer) -> Answer:
    return done


def overdue() -> DeadlineExceeded:
    """What is answered when the last resort is reached."""
    return DeadlineExceeded("the storage did not answer in the request's time; a write may still be applied")


def _given_up(_: object, seconds: float) -> NoReturn:
    raise overdue()
