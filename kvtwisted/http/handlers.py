"""The routes' work, free of any HTTP implementation: decode, call, encode.

A `Received` goes in and an `Answer` comes out, whoever reads the one from the wire and writes the other to it.

Note [What is known first]: reading a body is work that must be allowed and paid for like any other. So before anything
is made of it comes what is known without it: may this principal ever do this, is there something left of its rate, and
is there room. The rate is charged with one operation and the body's bytes. A body that is no good leaves it at that;
for a good one that is given back, and the operations beneath take what keys and values cost.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Callable, NamedTuple, NoReturn, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..core.errors import DeadlineExceeded, InvalidRequest
from ..security.passes import Pass
from ..security.policy import route_requirement
from ..threaded.facade import AsyncOperations
from ..threaded.health_checks import HealthChecks
from . import answers, bodies, errors, large_bodies, urls
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
    #: The content codings of the body, and the lines of Accept.
    codings: tuple[bytes, ...] = ()
    accept: tuple[bytes, ...] = ()


Handler = Callable[[Received], "Deferred[Answer]"]


class Handlers:
    """One method for each operation of the contract. Reactor thread.

    Each fails, at once or by its Deferred, with what `errors.answer` can answer; `respond` puts the two together.
    """

    def __init__(
        self,
        admitted: Pass,
        operations: AsyncOperations,
        checks: HealthChecks,
        clock: IReactorTime,
        max_response_bytes: Callable[[], int],
        request_timeout: Callable[[], float],
        max_batch_keys: Callable[[], int],
    ) -> None:
        """`operations` are those of `admitted`. `max_response_bytes` bounds keys and values of one answer,
        `request_timeout` (seconds) one request, and `max_batch_keys` the keys of one.
        """
        self._admitted = admitted
        self._max_batch_keys = max_batch_keys
        self._operations = operations
        self._checks = checks
        self._clock = clock
        self._max_response_bytes = max_response_bytes
        self._request_timeout = request_timeout

    def set(self, received: Received) -> Deferred[Answer]:
        """POST /api/v1/set."""
        return self._with("set", received, bodies.set_arguments, large_bodies.set_arguments, self._set)

    def _set(self, arguments: tuple[bytes, bytes, int]) -> Deferred[Answer]:
        return self._call(self._operations.set, *arguments).addCallback(_always, answers.KEY_SET)

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
        small, large = bodies.mset_arguments, large_bodies.mset_arguments
        limit = self._max_batch_keys()
        return self._with("mset", received, partial(small, max_keys=limit), partial(large, max_keys=limit), self._mset)

    def _mset(self, arguments: tuple[dict[bytes, bytes], int]) -> Deferred[Answer]:
        return self._call(self._operations.mset, *arguments).addCallback(_always, answers.KEYS_SET)

    def mget(self, received: Received) -> Deferred[Answer]:
        """POST /api/v1/mget."""
        return self._with_keys("mget", received, self._mget)

    def _mget(self, keys: list[bytes]) -> Deferred[Answer]:
        budget = self._max_response_bytes()
        return self._call(self._operations.mget, keys, budget=budget).addCallback(answers.values)

    def mdelete(self, received: Received) -> Deferred[Answer]:
        """POST /api/v1/mdelete."""
        return self._with_keys("mdelete", received, self._mdelete)

    def _mdelete(self, keys: list[bytes]) -> Deferred[Answer]:
        return self._call(self._operations.mdelete, keys).addCallback(_always, answers.KEYS_DELETED)

    def get_config(self, received: Received) -> Deferred[Answer]:
        """GET /api/v1/config."""
        return self._bounded(self._operations.get_config()).addCallback(answers.configuration)

    def update_config(self, received: Received) -> Deferred[Answer]:
        """POST /api/v1/config."""
        return self._with(
            "update_config", received, bodies.config_argument, bodies.config_argument, self._update_config
        )

    def _update_config(self, document: dict[str, object]) -> Deferred[Answer]:
        return self._bounded(self._operations.update_config(document)).addCallback(answers.config_updated)

    def health(self, received: Received) -> Deferred[Answer]:
        """GET the health path. What keeps the check from an answer is the reason for being unavailable."""
        return self._checks.result().addCallback(lambda reason: answers.health(reason, self._checks.warnings()))

    def read(self, name: str, body: bytes, read: Callable[[bytes], T]) -> T:
        """What `read` makes of a body of at most `bodies.LARGE` bytes. See Note [What is known first]."""
        self._admitted.require(route_requirement(name), "")
        self._admitted.charge(len(body))
        arguments = read(body)
        self._admitted.give_back(len(body))
        return arguments

    def _with_keys(
        self, name: str, received: Received, then: Callable[[list[bytes]], Deferred[Answer]]
    ) -> Deferred[Answer]:
        limit = self._max_batch_keys()
        small = partial(bodies.keys_argument, route=name, max_keys=limit)
        return self._with(name, received, small, partial(large_bodies.keys_argument, route=name, max_keys=limit), then)

    def _with(
        self,
        name: str,
        received: Received,
        small: Callable[[bytes], T],
        large: Callable[[bytes], T],
        then: Callable[[T], Deferred[Answer]],
    ) -> Deferred[Answer]:
        """What `then` does with what `small` or `large` makes of the body."""
        body, size = received.body, len(received.body)
        if size > bodies.LARGE:
            # Receiving so much was work, whatever it is.
            self._admitted.require(route_requirement(name), "")
            self._admitted.charge(size)
        bodies.check_content_type(received.content_type)
        bodies.check_codings(received.codings)
        if size <= bodies.LARGE:
            return then(self.read(name, body, small))
        reading = self._bounded(self._operations.reckon(partial(large, body), size))
        return reading.addCallbacks(self._paid, self._not_read, (size,), errbackArgs=(size,)).addCallback(then)

    def _paid(self, arguments: T, size: int) -> T:
        self._admitted.give_back(size)
        return arguments

    def _not_read(self, failure: Failure, size: int) -> Failure:
        if not failure.check(InvalidRequest):
            # Nothing was read for want of room, or of time.
            self._admitted.give_back(size)
        return failure

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
