"""Answering plain requests: the handlers' work for Get, Set and Delete without Deferreds, the handlers for the rest.

What it does is what `handlers` does, in the same order: the same checks, decoders, operations, error table. Only the
way there is shorter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Callable, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..core.operations import Pending
from ..threaded.direct import Direct
from . import bodies, errors, fast_bodies, urls
from .answers import KEY_DELETED, KEY_SET, Answer
from .fast_answers import Encoder
from .fast_requests import DELETE, GET, Request
from .handlers import LAST_RESORT, Handler, Handlers, Received, overdue, respond

#: Bytes of a body that is waited for here; a longer one is read by twisted.web from its first byte on.
MAX_BODY = 65_536


class Waiter(Protocol):
    """A connection that has asked for something."""

    def promise(self) -> int:
        """The answer comes later; returns what `answered` must be told with it. One at a time."""

    def answered(self, promise: int, answer: bytes) -> None:
        """The promised answer; dropped when it is not waited for any more."""

    #: What a promised answer waits for, if that can be cancelled.
    running: Deferred[Any] | None


class FastLane:
    """Answers the plain requests of one principal, on all connections of a site. Reactor thread."""

    def __init__(
        self,
        direct: Direct,
        handlers: Handlers,
        clock: IReactorTime,
        request_timeout: Callable[[], float],
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Every answer has `headers`."""
        self._get_now = direct.get_now
        self._direct = direct
        self._handlers = handlers
        self._clock = clock
        self._request_timeout = request_timeout
        self._encoder = Encoder(headers)
        # Connections whose writes are under way, the oldest first: the promise, and when it is the last resort's turn.
        self._writing: dict[Waiter, tuple[int, str, float]] = {}
        self._last_resort: Any = None
        self._last_resort_at = 0.0

    def answer(self, waiter: Waiter, request: Request, body: bytes) -> bytes | None:
        """The answer to a request, or None when it has been promised."""
        kind, target, content_type, _, _, _ = request
        if kind == GET:
            return self._get(waiter, target)
        if kind == DELETE:
            return self._delete(waiter, target)
        if target == b"set":
            return self._set(waiter, content_type, body)
        handler = self._handlers.mset if target == b"mset" else self._handlers.mget
        self._handle(waiter, target.decode(), handler, Received(b"", b"", content_type, body))
        return None

    def failed(self, name: str, error: BaseException | None = None) -> bytes:
        """The answer to what failed with `error`, or with what is being handled, while doing `name`."""
        return self._encoder.encode(errors.answer(Failure(error), name))

    def forget(self, waiter: Waiter) -> None:
        """The connection is gone."""
        self._writing.pop(waiter, None)
        if not self._writing and self._last_resort is not None:
            self._last_resort.cancel()
            self._last_resort = None

    def _get(self, waiter: Waiter, target: bytes) -> bytes | None:
        try:
            key = urls.path_key(target, b"").encode() if b"%" in target else target
            known, result = self._get_now(key)
            if known:
                return self._encoder.found(result, target)
        except Exception:
            return self.failed("get")
        self._handle(waiter, "get", self._handlers.get, Received(target))
        return None

    def _set(self, waiter: Waiter, content_type: str | None, body: bytes) -> bytes | None:
        try:
            bodies.check_content_type(content_type)
            key, value, ttl = fast_bodies.set_arguments(body) or self._handlers.read("set", body, bodies.set_arguments)
        except Exception:
            return self.failed("set")
        return self._write(waiter, "set", KEY_SET, len(value), self._direct.begin_set, key, value, ttl)

    def _delete(self, waiter: Waiter, target: bytes) -> bytes | None:
        try:
            key = urls.path_key(target, b"").encode()
        except Exception:
            return self.failed("delete")
        return self._write(waiter, "delete", KEY_DELETED, len(key), self._direct.begin_delete, key)

    def _write(
        self, waiter: Waiter, name: str, good: Answer, size: int, begin: Callable[..., Pending], *args: Any
    ) -> bytes | None:
        promise = waiter.promise()
        timeout = self._request_timeout()
        try:
            self._direct.write(
                size,
                partial(begin, *args, deadline=time.monotonic() + timeout),
                partial(self._written, waiter, promise, name, good),
            )
        except Exception:
            return self.failed(name)
        until = self._clock.seconds() + timeout + LAST_RESORT
        self._writing[waiter] = promise, name, until
        # The time that requests get can be changed while the server runs.
        if self._last_resort is None or until < self._last_resort_at:
            self._await_last_resort(until)
        return None

    def _written(self, waiter: Waiter, promise: int, name: str, good: Answer, error: BaseException | None) -> None:
        writing = self._writing.get(waiter)
        if writing is not None and writing[0] == promise:
            del self._writing[waiter]
        answer = self._encoder.constant(good) if error is None else self.failed(name, error)
        waiter.answered(promise, answer)

    def _give_up(self) -> None:
        """Answer in place of threads that are stuck. See `handlers.LAST_RESORT`."""
        self._last_resort = None
        now = self._clock.seconds()
        for waiter, (promise, name, until) in list(self._writing.items()):
            if until <= now:
                del self._writing[waiter]
                waiter.answered(promise, self.failed(name, overdue()))
        if self._writing:
            self._await_last_resort(min([until for _, _, until in self._writing.values()]))

    def _await_last_resort(self, at: float) -> None:
        # There is one already when a client that was given up has gone on with another write.
        if self._last_resort is not None:
            self._last_resort.cancel()
        self._last_resort = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._give_up)
        self._last_resort_at = at

    def _handle(self, waiter: Waiter, name: str, handler: Handler, received: Received) -> None:
        promise = waiter.promise()
        running = respond(name, handler, received)
        waiter.running = running
        running.addCallbacks(lambda answer: waiter.answered(promise, self._encoder.encode(answer)), _cancelled)
        # Whatever happens, a connection is not left waiting.
        running.addErrback(lambda failure: waiter.answered(promise, self.failed(name, failure.value)))


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)
