"""The unary methods: decoded here and now if that is quick, else in a pool thread; then handed to the session.

Messages of one string, Set's and its like, are decoded on the reactor thread whatever their size. What has many fields
is only if it is small, after those were counted, and what is compressed never is.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Callable, Protocol

from google.protobuf.message import DecodeError
from twisted.python.failure import Failure

from ...commands.command import Command
from ...commands.delete import Delete
from ...commands.get import Get
from ...commands.set import Set
from ...core.errors import without_frames
from ...observability import incidents
from ...reactor.fair_pool import FairPool
from ...sessions.session import Session
from ..calls import Charged, Terms, overdue
from ..errors import IN_MESSAGE, CallError, call_error
from ..generated import keyvalue_pb2 as kv
from ..messages import parse
from ..methods import METHODS, SUCCESS, Call, Method, encoded_get_response
from .requests import Unary
from .responses import ConstantAnswer

#: Bytes of a message with many fields that is decoded on the reactor thread; larger ones take some milliseconds.
INLINE_MESSAGE = 65_536
#: Bytes that a Get may answer.
GET_ANSWER_BYTES = 1_048_576 + 64

_SET, _GET, _DELETE = METHODS["Set"], METHODS["Get"], METHODS["Delete"]
_SUCCESS = ConstantAnswer(SUCCESS)


class Caller(Protocol):
    """Where calls come from and their answers go: the `Streams` of a connection, or a pipeline. Reactor thread."""

    def promise(self, stream_id: int, /) -> None:
        """The call is answered later."""

    def awaited(self, stream_id: int, /) -> bool:
        """Whether somebody still waits for the answer that was promised. Any thread."""

    def expect(self, size: int) -> None:
        """An answer of up to `size` bytes is being made; `expect(-size)` before it is given."""

    def answer(self, stream_id: int, message: bytes, /) -> None:
        """End the call well."""

    def answer_constant(self, stream_id: int, answer: ConstantAnswer, /) -> None:
        """The same with a message that was made ready."""

    def fail(self, stream_id: int, error: CallError, /) -> None:
        """End the call with a status."""


class UnaryCalls:
    """Answers one session's unary calls of the key-value service. Reactor thread."""

    def __init__(self, pool: FairPool, session: Session, terms: Terms, flush: Callable[[], None]) -> None:
        """What takes long to decode is decoded in `pool`; `flush` is called when such a call was answered.

        Answers to commands that are done are flushed by whoever the door tells (`Door.on_settled`).
        """
        self._pool = pool
        self._session = session
        self._get_now = session.get_now
        self._submit = session.submit
        self._check_room = session.check_room
        self._admission = session.admission
        self._terms = terms
        self._request_timeout = terms.request_timeout
        self._flush = flush

    def methods(self) -> dict[str, tuple[Unary, Unary]]:
        """For each method what answers it, and what answers it when its message is compressed."""
        quick: dict[str, Unary] = {
            "Set": self._single(_SET, kv.SetRequest.FromString, self.set),
            "Get": self._single(_GET, kv.GetRequest.FromString, self.get),
            "Delete": self._single(_DELETE, kv.DeleteRequest.FromString, self.delete),
        }
        return {
            name: (quick.get(name) or self._plain(method), self._compressed(method)) for name, method in METHODS.items()
        }

    # What is about one key; for pipelines too.

    def set(self, streams: Caller, stream_id: int, request: kv.SetRequest, timeout: float | None) -> None:
        """Answer a Set."""
        try:
            deadline = self._deadline(timeout)
            self._write(
                _SET, streams, stream_id, Set(request.key.encode(), request.value.encode(), request.ttl, deadline)
            )
        except Exception as error:
            _fail(_SET, streams, stream_id, error)

    def delete(self, streams: Caller, stream_id: int, request: kv.DeleteRequest, timeout: float | None) -> None:
        """Answer a Delete."""
        try:
            self._write(_DELETE, streams, stream_id, Delete(request.key.encode(), self._deadline(timeout)))
        except Exception as error:
            _fail(_DELETE, streams, stream_id, error)

    def get(self, streams: Caller, stream_id: int, request: kv.GetRequest, timeout: float | None) -> None:
        """Answer a Get, now if memory can."""
        try:
            if timeout is not None and timeout <= 0:
                raise overdue(self._session)
            self._check_room()
            key = request.key.encode()
            known, found = self._get_now(key)
            if not known:
                command = Get(key, self._deadline(timeout), encoded_get_response)
                self._read(_GET, streams, stream_id, command, GET_ANSWER_BYTES)
                return
            answer = encoded_get_response(found)
        except Exception as error:
            _fail(_GET, streams, stream_id, error)
            return
        streams.answer(stream_id, answer)

    def _single(self, method: Method, decode: Callable[[bytes], Any], answer: Callable[..., None]) -> Unary:
        session, terms = self._session, self._terms

        def single(streams: Caller, stream_id: int, message: bytes, timeout: float | None) -> None:
            try:
                if len(message) > INLINE_MESSAGE:
                    # As with those that are decoded in the pool; nothing comes in between here.
                    session.before_reading(len(message))
                    terms.check_fields(method, message)
                    request = decode(message)
                    session.give_back(len(message))
                else:
                    request = decode(message)
            except DecodeError:
                _undecodable(session, method, streams, stream_id, message)
            except Exception as error:
                _fail(method, streams, stream_id, error)
            else:
                answer(streams, stream_id, request, timeout)

        return single

    # The others.

    def _plain(self, method: Method) -> Unary:
        session, terms = self._session, self._terms

        def plain(streams: Caller, stream_id: int, message: bytes, timeout: float | None) -> None:
            size = len(message)
            if size > INLINE_MESSAGE:
                self._decode_in_pool(method, False, streams, stream_id, message, timeout)
                return
            try:
                call = Call(self._deadline(timeout), terms.max_response_bytes())
                session.before_reading(size)
                terms.check_fields(method, message)
                command = method.command(parse(method.request, message), call)
                session.give_back(size)
                if method.good is None:
                    self._read(method, streams, stream_id, command, call.max_response_bytes)
                else:
                    self._write(method, streams, stream_id, command)
            except Exception as error:
                _fail(method, streams, stream_id, error)

        return plain

    def _compressed(self, method: Method) -> Unary:
        def compressed(streams: Caller, stream_id: int, message: bytes, timeout: float | None) -> None:
            self._decode_in_pool(method, True, streams, stream_id, message, timeout)

        return compressed

    # From a command to its answer.

    def _write(self, method: Method, streams: Caller, stream_id: int, command: Command) -> None:
        """What is answered with SUCCESS. Raises what refuses it."""

        def done(command: Command) -> None:
            if streams.awaited(stream_id):
                error = command.error
                if error is None:
                    streams.answer_constant(stream_id, _SUCCESS)
                else:
                    _fail(method, streams, stream_id, error)

        self._submit(command, done)
        streams.promise(stream_id)

    def _read(self, method: Method, streams: Caller, stream_id: int, command: Command, size: int) -> None:
        """What is answered with up to `size` bytes. Raises what refuses it."""
        command.awaited = lambda: streams.awaited(stream_id)
        self._submit(command, _Promise(method, streams, stream_id, size).done)
        streams.promise(stream_id)
        streams.expect(size)

    def _decode_in_pool(
        self, method: Method, compressed: bool, streams: Caller, stream_id: int, message: bytes, timeout: float | None
    ) -> None:
        try:
            call = Call(self._deadline(timeout), self._terms.max_response_bytes())
            charged = Charged(self._session, len(message))
        except Exception as error:
            _fail(method, streams, stream_id, error)
            return
        promise = _Promise(method, streams, stream_id, 0 if method.good is not None else call.max_response_bytes)
        streams.promise(stream_id)
        streams.expect(promise.size)

        def decode() -> Command | None:
            """In a pool thread."""
            if not streams.awaited(stream_id):
                return None
            return charged.read(self._terms, method, message, call, compressed=compressed)

        def decoded(command: Command | None) -> None:
            if command is None or not streams.awaited(stream_id):
                charged.forget()
                promise.end()
                return
            if method.good is None:
                command.awaited = lambda: streams.awaited(stream_id)
            try:
                charged.submit(command, promise.done)
            except Exception as error:
                promise.fail(error)
                self._flush()

        def refused(failure: Failure) -> None:
            charged.refuse()
            error = failure.value
            assert error is not None  # noqa: S101 - failures of the pool have one
            promise.fail(error)
            self._flush()

        deciding = self._pool.run(self._admission, decode)
        deciding.addCallbacks(decoded, refused).addErrback(incidents.report, "answering")

    def _deadline(self, timeout: float | None) -> float:
        """When the call is to end. Raises DeadlineExceeded."""
        limit = self._request_timeout()
        if timeout is None:
            return monotonic() + limit
        if timeout <= 0:
            raise overdue(self._session)
        return monotonic() + min(timeout, limit)


class _Promise:
    """An answer that comes later, for which room is kept."""

    __slots__ = ("_method", "_stream_id", "_streams", "size")

    def __init__(self, method: Method, streams: Caller, stream_id: int, size: int) -> None:
        self._method = method
        self._streams = streams
        self._stream_id = stream_id
        self.size = size

    def end(self) -> None:
        """The room is free again."""
        self._streams.expect(-self.size)

    def done(self, command: Command) -> None:
        """The command is done."""
        if command.error is not None:
            self.fail(command.error)
            return
        self.end()
        if self._streams.awaited(self._stream_id):
            self._streams.answer(self._stream_id, self._method.answer(command.result))

    def fail(self, error: BaseException) -> None:
        """It has failed."""
        self.end()
        if self._streams.awaited(self._stream_id):
            _fail(self._method, self._streams, self._stream_id, error)


def _fail(method: Method, streams: Caller, stream_id: int, error: BaseException) -> None:
    if isinstance(error, IN_MESSAGE):
        streams.answer(stream_id, method.refused(without_frames(error)))
    else:
        streams.fail(stream_id, call_error(error, method.name))


def _undecodable(session: Session, method: Method, streams: Caller, stream_id: int, message: bytes) -> None:
    try:
        if len(message) <= INLINE_MESSAGE:
            session.before_reading(len(message))
        parse(method.request, message)
    except Exception as error:
        _fail(method, streams, stream_id, error)
