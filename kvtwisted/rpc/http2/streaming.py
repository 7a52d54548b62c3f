"""The streaming methods that every gRPC server has: health and reflection, and Check beside them.

A Watch stream costs an entry in a set; its status is sent when the health changes, by the reactor thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Callable

from grpc_health.v1.health_pb2 import HealthCheckRequest

from ...core.health import Health
from ...observability.health_checks import HEALTH_TIMEOUT, HealthChecks
from ...sessions.buckets import network_of
from ...sessions.slots import Slots
from .. import health, reflection
from ..errors import CallError, Code, call_error, stopping
from ..health import KNOWN, NOT_SERVING, SERVICE_UNKNOWN, SERVING, encoded
from ..messages import expanded, parse
from ..reflection import Reflection
from .inbound import Message
from .requests import Route
from .responder import Responder
from .stream import Stream

#: Bytes of a request to these services, once decompressed.
MESSAGE_BYTES = 65_536
#: Bytes that a Check takes while it waits for its answer; counted like answers that are being made.
_WAITING_BYTES = 512


class HealthService:
    """grpc.health.v1.Health: Check asks the storage, Watch follows what is known. Reactor thread unless said."""

    def __init__(
        self,
        reactor: Any,
        checks: HealthChecks,
        known: Health,
        flush: Callable[[], None],
        slots: Slots,
    ) -> None:
        self._reactor = reactor
        self._slots = slots
        self._checks = checks
        self._flush = flush
        self._health = known
        self._status: int = NOT_SERVING
        self._watches: set[_Watch] = set()
        self._stopping = False
        checks.on_told(flush)

    def start(self) -> None:
        """Begin to follow the health."""
        self._health.on_change(self._follow)

    def stop(self) -> None:
        """Tell all watchers NOT_SERVING, and end their streams."""
        self._stopping = True
        self._status = NOT_SERVING
        for watch in tuple(self._watches):
            watch.tell(NOT_SERVING)
            watch.stream.finish(stopping())
        self._flush()

    def routes(self) -> list[Route]:
        """Check and Watch."""
        path = f"/{health.SERVICE}"
        return [
            Route(f"{path}/Check", partial(self._check, False), partial(self._check, True)),
            Route(f"{path}/Watch", streaming=partial(_Watch, self)),
        ]

    def _check(
        self, compressed: bool, responder: Responder, stream_id: int, message: bytes, timeout: float | None
    ) -> None:
        try:
            health.check_service(expanded(message, compressed, MESSAGE_BYTES, "request"))
        except Exception as error:
            responder.fail(stream_id, call_error(error, "health check"))
            return
        responder.promise(stream_id)
        responder.expect(_WAITING_BYTES)
        # Not the admission's to refuse, nor for the pool of requests: a server that is busy is not ill.
        self._checks.ask(partial(_answer, responder, stream_id), HEALTH_TIMEOUT if timeout is None else timeout)

    def _follow(self, reason: str | None) -> None:
        # On whatever thread changed it, and under its lock.
        self._reactor.callFromThread(self._change, SERVING if reason is None else NOT_SERVING)

    def _change(self, status: int) -> None:
        if self._stopping:
            return
        self._status = status
        for watch in tuple(self._watches):
            watch.tell(status)
        self._flush()

    # For watches.

    def add(self, watch: _Watch) -> None:
        """Serve one more. Raises CallError."""
        if self._stopping:
            raise stopping()
        self._slots.enter(watch.network)
        self._watches.add(watch)
        watch.tell(self._status)

    def discard(self, watch: _Watch) -> None:
        """It has ended, perhaps before it was served."""
        if watch in self._watches:
            self._watches.discard(watch)
            self._slots.leave(watch.network)


def _answer(responder: Responder, stream_id: int, reason: str | None) -> None:
    responder.expect(-_WAITING_BYTES)
    if not responder.awaited(stream_id):
        return
    try:
        responder.answer(stream_id, health.checked(reason))
    except CallError as error:
        responder.fail(stream_id, error)


class _Watch:
    """One open Watch stream."""

    def __init__(self, service: HealthService, stream: Stream) -> None:
        self._service = service
        self.stream = stream
        #: Who it is one of.
        self.network = network_of(stream.responder.address)
        self._known: bool | None = None
        self._told: int | None = None
        # What is to be told once the client has taken what is under way.
        self._next: int | None = None

    def received(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if self._known is not None:
                raise CallError(Code.INVALID_ARGUMENT, "the call has more than one request message")
            self._known = parse(HealthCheckRequest, expanded(*message, MESSAGE_BYTES, "request")).service in KNOWN
            self._service.add(self)

    def tell(self, status: int) -> None:
        """Send the status, unless the client knows it. A client that does not read gets the last one alone."""
        status = status if self._known else SERVICE_UNKNOWN
        if self.stream.queued:
            self._next = status
        else:
            self._send(status)

    def _send(self, status: int) -> None:
        if status != self._told:
            self._told = status
            self.stream.send_message(encoded(status))

    def half_closed(self) -> None:
        if self._known is None:
            self.stream.finish(CallError(Code.INVALID_ARGUMENT, "the call ended without a request message"))

    def cut(self, error: CallError) -> None:
        self.stream.finish(error)

    def drained(self) -> None:
        status, self._next = self._next, None
        if status is not None:
            self._send(status)

    def gone(self) -> None:
        self._service.discard(self)


class ReflectionService:
    """Both versions of the reflection protocol. Reactor thread."""

    def __init__(self, seconds: Callable[[], float], slots: Slots) -> None:
        self._slots = slots
        self._seconds = seconds
        self._reflection = Reflection()
        self._open: set[_ReflectionStream] = set()

    def routes(self) -> list[Route]:
        """The one method, under each name of the service."""
        return [Route(f"/{name}/ServerReflectionInfo", streaming=self._begin) for name in reflection.NAMES]

    def stop(self) -> None:
        """End the open streams."""
        for stream in tuple(self._open):
            stream.stream.finish(stopping())

    def _begin(self, stream: Stream) -> _ReflectionStream:
        self._slots.enter()
        stream.deadline = min(stream.deadline, self._seconds() + reflection.STREAM_SECONDS)
        handler = _ReflectionStream(stream, self._reflection, self._ended)
        self._open.add(handler)
        return handler

    def _ended(self, handler: _ReflectionStream) -> None:
        self._open.discard(handler)
        self._slots.leave()


class _ReflectionStream:
    """One open reflection stream."""

    def __init__(self, stream: Stream, answers: Reflection, ended: Callable[[_ReflectionStream], None]) -> None:
        self.stream = stream
        self._answers = answers
        self._ended = ended

    def received(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if self.stream.queued > MESSAGE_BYTES:
                self.stream.pause()
            self.stream.send_message(self._answers.answer(expanded(*message, MESSAGE_BYTES, "request")))

    def half_closed(self) -> None:
        self.stream.finish()

    def cut(self, error: CallError) -> None:
        self.stream.finish(error)

    def drained(self) -> None:
        self.stream.go_on()

    def gone(self) -> None:
        self._ended(self)
