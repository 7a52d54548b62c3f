"""The services as grpcio calls them: which function answers which path, on which threads.

Note [Slow peers and threads]: grpcio's server gives a call one of its threads before the call's message has come in,
and until the call ends. A peer that never sends its message, or that keeps a stream open, would hold a thread for ever.
So a message must come within the request's time, or the watchdog cancels the call. Health and reflection have a few
threads of their own, so that the calls cannot starve them, nor they the calls. Watch streams hold no thread while they
are idle (see `health`), and reflection streams are bounded in number and in time.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, NoReturn

import grpc

if TYPE_CHECKING:
    from typing_extensions import TypeAlias

from ...core.errors import KvError
from ...observability.health_checks import HealthChecks
from ...sessions.policy import NOBODY
from .. import health, pipeline, reflection
from ..calls import Terms
from ..errors import CallError, Code, call_error
from ..health import Watches
from ..messages import decompress, is_compressed
from ..methods import METHODS, SERVICES, Method
from ..reflection import Reflection
from ..rights import rpc_requirement
from ..stream_slots import Slots, StreamSlots, share_of
from ..watchdog import Watchdog
from .access import Access, address_of
from .calls import ThreadedCalls

#: Threads for health and reflection: its streams, and as many for what comes and goes.
SIDE_THREADS = 8

#: Seconds for a health request's message to come in.
SIDE_SECONDS = 5.0

_PIPELINE = f"/{SERVICES[0]}/{pipeline.NAME}"

_STATUS = {code: grpc.StatusCode[code.name] for code in Code}

#: Request messages of one call as grpcio gives them: encoded, and compressed if the client did so.
Messages = Iterator[bytes]
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # a generic class in the type stubs only


class Handlers(grpc.GenericRpcHandler):
    """Finds the handler of a call by its path. `service` is called on grpcio's own thread, when the headers arrive."""

    def __init__(
        self,
        access: Access,
        terms: Terms,
        checks: HealthChecks,
        watches: Watches,
        watchdog: Watchdog,
        side_threads: ThreadPoolExecutor,
        slots: StreamSlots,
    ) -> None:
        self._access = access
        self._terms = terms
        self._checks = checks
        self._watches = watches
        self._watchdog = watchdog
        self._side_threads = side_threads
        self._slots = slots
        self._reflection = Reflection()
        self._streams_lock = threading.Lock()
        self._streams: set[grpc.ServicerContext] = set()
        self._handlers: dict[str, Callable[[float], RpcHandler]] = {
            f"/{service}/{method.name}": partial(self._unary, method)
            for service in SERVICES
            for method in METHODS.values()
        }
        self._handlers[f"/{health.SERVICE}/Check"] = self._health_check
        self._handlers[f"/{health.SERVICE}/Watch"] = self._health_watch
        for service in SERVICES:
            self._handlers[f"/{service}/{pipeline.NAME}"] = self._pipeline
        for name in reflection.NAMES:
            self._handlers[f"/{name}/ServerReflectionInfo"] = self._reflection_stream
        # What the table of rights does not know is served to nobody.
        for path in [path for path in self._handlers if rpc_requirement(path) == NOBODY]:
            del self._handlers[path]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> RpcHandler | None:
        """The handler of one call, which knows when the call arrived; None makes grpcio answer UNIMPLEMENTED."""
        handler = self._handlers.get(handler_call_details.method)
        return handler and handler(time.monotonic())

    def end_streams(self) -> None:
        """Cancel the reflection streams and pipelines, which a stopping server must not wait for."""
        with self._streams_lock:
            streams = tuple(self._streams)
        for stream in streams:
            stream.cancel()

    # Every handler takes a stream of requests, also where there is to be one: only so is it called before the message
    # is there, and can limit the time that the message takes. Nothing of this shows on the wire.

    def _unary(self, method: Method, arrived: float) -> RpcHandler:
        return grpc.stream_unary_rpc_method_handler(partial(self._answer, method, arrived))

    def _pipeline(self, arrived: float) -> RpcHandler:
        return grpc.stream_stream_rpc_method_handler(self._answer_pipeline)

    def _health_check(self, arrived: float) -> RpcHandler:
        return grpc.stream_unary_rpc_method_handler(self._aside(partial(self._answer_check, arrived)))

    def _health_watch(self, arrived: float) -> RpcHandler:
        watch = self._aside(partial(self._answer_watch, arrived), returns_at_once=True)
        return grpc.stream_stream_rpc_method_handler(watch)

    def _reflection_stream(self, arrived: float) -> RpcHandler:
        return grpc.stream_stream_rpc_method_handler(self._aside(partial(self._answer_reflection, arrived)))

    def _aside(self, behavior: Callable[..., Any], *, returns_at_once: bool = False) -> Any:
        """Mark a behavior for the side threads; `returns_at_once` gives it a function to send its responses with.

        These are the names that grpcio looks for (as its own health servicer uses them).
        """
        marked: Any = partial(behavior)
        marked.experimental_thread_pool = self._side_threads
        marked.experimental_non_blocking = returns_at_once
        return marked

    def _answer(self, method: Method, arrived: float, messages: Messages, context: grpc.ServicerContext) -> bytes:
        path = f"/{SERVICES[0]}/{method.name}"
        self._check_rate(self._admit(context, path), context)
        message = self._receive(arrived + self._terms.request_timeout, messages, context)
        # The message may have taken its time.
        calls = self._admit(context, path)
        compressed, left = is_compressed(message), _time_left(context)
        try:
            return calls.answer(method, message, arrived=arrived, time_left=left, compressed=compressed)
        except CallError as error:
            _abort(context, error)

    def _answer_check(self, arrived: float, messages: Messages, context: grpc.ServicerContext) -> bytes:
        message = self._receive(arrived + SIDE_SECONDS, messages, context)
        try:
            return health.check(self._checks, self._expand(message), _time_left(context))
        except Exception as error:
            _abort(context, call_error(error, "health check"))

    def _answer_watch(
        self,
        arrived: float,
        messages: Messages,
        context: grpc.ServicerContext,
        send: Callable[[bytes | None], None],
    ) -> None:
        message = self._receive(arrived + SIDE_SECONDS, messages, context)
        try:
            self._watches.add(self._expand(message), address_of(context.peer()), context, send)
        except Exception as error:
            _abort(context, call_error(error, "health watch"))

    def _answer_reflection(self, arrived: float, messages: Messages, context: grpc.ServicerContext) -> Iterator[bytes]:
        path = f"/{reflection.NAMES[0]}/ServerReflectionInfo"
        self._admit(context, path)
        with (
            self._slot(self._slots.reflection, None, context),
            self._watchdog.limit(arrived + reflection.STREAM_SECONDS, context.cancel),
        ):
            for message in messages:
                self._admit(context, path)
                yield self._reflect(message, context)

    def _answer_pipeline(self, messages: Messages, context: grpc.ServicerContext) -> Iterator[bytes]:
        """One operation after the other, since a stream has one thread here."""
        try:
            owner = share_of(self._access.admit(context, _PIPELINE))
        except CallError as error:
            _abort(context, error)
        with self._slot(self._slots.pipeline, owner, context):
            for message in messages:
                yield self._run_operation(message, context)

    @contextmanager
    def _slot(self, slots: Slots, owner: str | None, context: grpc.ServicerContext) -> Iterator[None]:
        """Count a stream while it is open, so that `end_streams` finds it."""
        try:
            slots.enter(owner)
        except CallError as error:
            _abort(context, error)
        with self._streams_lock:
            self._streams.add(context)
        try:
            yield
        finally:
            with self._streams_lock:
                self._streams.discard(context)
            slots.leave(owner)

    def _run_operation(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            operation = pipeline.read(self._operation(message))
        except CallError as error:
            _abort(context, error)
        if isinstance(operation, bytes):
            return operation
        calls = self._admit(context, _PIPELINE)
        encoded = operation.request.SerializeToString()
        try:
            now, left = time.monotonic(), _time_left(context)
            answer = calls.answer(operation.method, encoded, arrived=now, time_left=left)
        except CallError as error:
            return pipeline.failed(operation.id, error)
        return pipeline.answered(operation, answer)

    def _reflect(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return self._reflection.answer(self._expand(message))
        except Exception as error:
            _abort(context, call_error(error, "reflection"))

    def _admit(self, context: grpc.ServicerContext, path: str) -> ThreadedCalls:
        try:
            return self._access.calls(context, path)
        except CallError as error:
            _abort(context, error)

    def _check_rate(self, calls: ThreadedCalls, context: grpc.ServicerContext) -> None:
        try:
            calls.session.check_rate()
        except KvError as error:
            _abort(context, call_error(error, "rates"))

    def _receive(self, give_up_at: float, messages: Messages, context: grpc.ServicerContext) -> bytes:
        """The call's one message. When the client cancels, grpcio raises an RpcError of its own, to be left alone."""
        with self._watchdog.limit(give_up_at, context.cancel):
            message = next(messages, None)
        if message is None:
            _abort(context, CallError(Code.INVALID_ARGUMENT, "the call ended without a request message"))
        return message

    def _expand(self, message: bytes) -> bytes:
        return decompress(message, self._terms.message_limit) if is_compressed(message) else message

    def _operation(self, message: bytes) -> bytes:
        """That of a pipeline, whose largest is far smaller than the largest message."""
        if is_compressed(message):
            return decompress(message, pipeline.MESSAGE_BYTES)
        if len(message) > pipeline.MESSAGE_BYTES:
            raise CallError(Code.RESOURCE_EXHAUSTED, f"the message is over {pipeline.MESSAGE_BYTES} bytes")
        return message


def _time_left(context: grpc.ServicerContext) -> float:
    """Seconds that the client's deadline still allows.

    grpcio tells that by the wall clock: when it is set forward, calls under way seem late. Those that are have been
    cancelled, for which it has a timer of its own that is not led astray.
    """
    left = context.time_remaining()
    return left if left > 0 or not context.is_active() else math.inf


def _abort(context: grpc.ServicerContext, error: CallError) -> NoReturn:
    context.abort(_STATUS[error.code], str(error))
