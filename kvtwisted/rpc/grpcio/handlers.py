"""The services as grpcio calls them: which function answers which path, on which threads.

Note [Slow peers and threads]: grpcio's server gives a call one of its threads before the call's message has come in,
and until the call ends. A peer that never sends its message, or that keeps a stream open, would hold a thread for ever.
So a message must come within the request's time, or the watchdog cancels the call. Health and reflection have a few
threads of their own, so that the calls cannot starve them, nor they the calls. Watch streams of the health service
hold no thread while they are idle (see `health`), and reflection streams are bounded in number and in time. Streaming
answers have threads too: Note [Threads of streams].
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

import grpc

if TYPE_CHECKING:
    from typing_extensions import TypeAlias

from ...observability.health_checks import HealthChecks
from ...sessions.gate import Gate
from ...sessions.policy import NOBODY
from ...sessions.slots import Slots
from .. import health, pipeline, reflection
from ..errors import CallError, Code, call_error
from ..health import Watches
from ..messages import expanded, is_compressed
from ..methods import METHODS, SERVICES, Method
from ..reflection import Reflection
from ..rights import rpc_requirement
from ..stream_slots import StreamSlots, share_of
from ..streams import STREAM_METHODS, StreamMethod
from ..watchdog import Watchdog
from .access import address_of, admit
from .calls import ThreadedCalls
from .streams import ThreadedStreams

#: Threads for health and reflection: its streams, and as many for what comes and goes.
SIDE_THREADS = 8

#: Seconds for a health request's message to come in.
SIDE_SECONDS = 5.0

_PIPELINE = f"/{SERVICES[0]}/{pipeline.NAME}"

_STATUS = {code: grpc.StatusCode[code.name] for code in Code}

#: Request messages of one call as grpcio gives them: encoded, and compressed if the client did so.
Messages = Iterator[bytes]
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # a generic class in the type stubs only


class _Handler(NamedTuple):
    """How calls of one path are answered; `marks` are attributes for the behavior of each."""

    make: Callable[..., RpcHandler]
    behavior: Callable[..., Any]
    marks: Mapping[str, object] = {}


class Handlers(grpc.GenericRpcHandler):
    """Finds the handler of a call by its path. `service` is called on grpcio's own thread, when the headers arrive."""

    def __init__(
        self,
        gate: Gate,
        calls: ThreadedCalls,
        checks: HealthChecks,
        watches: Watches,
        watchdog: Watchdog,
        side_threads: ThreadPoolExecutor,
        slots: StreamSlots,
        streams: ThreadedStreams,
    ) -> None:
        self._gate = gate
        self._calls = calls
        self._terms = calls.terms
        self._checks = checks
        self._watches = watches
        self._watchdog = watchdog
        self._slots = slots
        self._answers = streams
        self._reflection = Reflection()
        self._streams_lock = threading.Lock()
        self._streams: set[grpc.ServicerContext] = set()
        # Every handler takes a stream of requests, also where there is to be one: only so is it called before the
        # message is there, and can limit the time that the message takes. Nothing of this shows on the wire.
        unary, stream = grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        # The names that grpcio looks for, as its own health servicer uses them: a behavior that returns at once gets a
        # function to send its responses with.
        aside = {"experimental_thread_pool": side_threads}
        at_once = {**aside, "experimental_non_blocking": True}
        handlers: dict[str, _Handler] = {
            f"/{health.SERVICE}/Check": _Handler(unary, self._answer_check, aside),
            f"/{health.SERVICE}/Watch": _Handler(stream, self._answer_watch, at_once),
        }
        for service in SERVICES:
            handlers[f"/{service}/{pipeline.NAME}"] = _Handler(stream, self._answer_pipeline)
            for method in METHODS.values():
                handlers[f"/{service}/{method.name}"] = _Handler(unary, partial(self._answer, method))
            for streamed in STREAM_METHODS.values():
                behavior = partial(self._answer_with_stream, streamed)
                handlers[f"/{service}/{streamed.name}"] = _Handler(
                    stream, behavior, {"experimental_thread_pool": streams.threads}
                )
        for name in reflection.NAMES:
            handlers[f"/{name}/ServerReflectionInfo"] = _Handler(stream, self._answer_reflection, aside)
        # What the table of rights does not know is served to nobody.
        self._handlers = {path: handler for path, handler in handlers.items() if rpc_requirement(path) != NOBODY}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> RpcHandler | None:
        """The handler of one call, which knows when the call arrived; None makes grpcio answer UNIMPLEMENTED."""
        handler = self._handlers.get(handler_call_details.method)
        if handler is None:
            return None
        behavior = partial(handler.behavior, time.monotonic())
        vars(behavior).update(handler.marks)
        return handler.make(behavior)

    def end_streams(self) -> None:
        """Cancel the reflection streams and pipelines, which a stopping server must not wait for."""
        with self._streams_lock:
            streams = tuple(self._streams)
        for stream in streams:
            stream.cancel()

    def _answer(self, method: Method, arrived: float, messages: Messages, context: grpc.ServicerContext) -> bytes:
        path = f"/{SERVICES[0]}/{method.name}"
        with _ending(context, method.name):
            admit(self._gate, context, path).check_rate()
            message = self._receive(arrived + self._terms.request_timeout, messages, context)
            # The message may have taken its time.
            session = admit(self._gate, context, path)
            compressed, left = is_compressed(message), _time_left(context)
            return self._calls.answer(session, method, message, arrived=arrived, time_left=left, compressed=compressed)

    def _answer_check(self, arrived: float, messages: Messages, context: grpc.ServicerContext) -> bytes:
        with _ending(context, "health check"):
            message = self._receive(arrived + SIDE_SECONDS, messages, context)
            health.check_service(self._expand(message))
            return health.checked(self._checks.wait(_time_left(context)))

    def _answer_watch(
        self,
        arrived: float,
        messages: Messages,
        context: grpc.ServicerContext,
        send: Callable[[bytes | None], None],
    ) -> None:
        with _ending(context, "health watch"):
            message = self._receive(arrived + SIDE_SECONDS, messages, context)
            self._watches.add(self._expand(message), address_of(context.peer()), context, send)

    def _answer_reflection(self, arrived: float, messages: Messages, context: grpc.ServicerContext) -> Iterator[bytes]:
        path = f"/{reflection.NAMES[0]}/ServerReflectionInfo"
        with _ending(context, "reflection"):
            admit(self._gate, context, path)
            with (
                self._slot(self._slots.reflection, None, context),
                self._watchdog.limit(arrived + reflection.STREAM_SECONDS, context.cancel),
            ):
                for message in messages:
                    admit(self._gate, context, path)
                    yield self._reflection.answer(self._expand(message))

    def _answer_pipeline(self, arrived: float, messages: Messages, context: grpc.ServicerContext) -> Iterator[bytes]:
        """One operation after the other, since a stream has one thread here."""
        with _ending(context, pipeline.NAME):
            owner = share_of(admit(self._gate, context, _PIPELINE))
            with self._slot(self._slots.pipeline, owner, context):
                for message in messages:
                    yield self._run_operation(message, context)

    def _answer_with_stream(
        self, method: StreamMethod, arrived: float, messages: Messages, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        path = f"/{SERVICES[0]}/{method.name}"
        with _ending(context, method.name):
            admit(self._gate, context, path).check_rate()
            message = self._receive(arrived + self._terms.request_timeout, messages, context)
            session = admit(self._gate, context, path)
            yield from self._answers.answer(session, method, message, context.add_callback)

    @contextmanager
    def _slot(self, slots: Slots, owner: str | None, context: grpc.ServicerContext) -> Iterator[None]:
        """Count a stream while it is open, so that `end_streams` finds it."""
        slots.enter(owner)
        with self._streams_lock:
            self._streams.add(context)
        try:
            yield
        finally:
            with self._streams_lock:
                self._streams.discard(context)
            slots.leave(owner)

    def _run_operation(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        operation = pipeline.read(expanded(message, is_compressed(message), pipeline.MESSAGE_BYTES))
        if isinstance(operation, bytes):
            return operation
        session = admit(self._gate, context, _PIPELINE)
        id_field, kind = operation[:2]
        method = pipeline.method_of(kind)
        try:
            deadline = self._calls.deadline(session, time.monotonic(), _time_left(context))
            answer = self._calls.carry_out(session, method, pipeline.command_of(operation, deadline))
            return pipeline.answered(id_field, kind, answer)
        except Exception as error:
            return pipeline.failed(id_field, call_error(error, method.name))

    def _receive(self, give_up_at: float, messages: Messages, context: grpc.ServicerContext) -> bytes:
        """The call's one message. When the client cancels, grpcio raises an RpcError of its own."""
        with self._watchdog.limit(give_up_at, context.cancel):
            message = next(messages, None)
        if message is None:
            raise CallError(Code.INVALID_ARGUMENT, "the call ended without a request message")
        return message

    def _expand(self, message: bytes) -> bytes:
        return expanded(message, is_compressed(message), self._terms.message_limit)


def _time_left(context: grpc.ServicerContext) -> float:
    """Seconds that the client's deadline still allows.

    grpcio tells that by the wall clock: when it is set forward, calls under way seem late. Those that are have been
    cancelled, for which it has a timer of its own that is not led astray.
    """
    left = context.time_remaining()
    return left if left > 0 or not context.is_active() else math.inf


@contextmanager
def _ending(context: grpc.ServicerContext, doing: str) -> Iterator[None]:
    """End the call with the status of what is raised within, while `doing` (a method's name)."""
    try:
        yield
    except grpc.RpcError:
        raise  # grpcio's own, to be left alone: the client has cancelled
    except Exception as error:
        failed = call_error(error, doing)
        context.abort(_STATUS[failed.code], str(failed))
