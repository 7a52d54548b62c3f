"""The unary methods: what cannot block is answered here and now, the rest by the pool, many calls to a job.

Note [Inline or pool]: a hop to a thread and back takes longer than twenty Gets from memory. So the reactor thread reads
what memory has, and begins writes, which go in together at the end of its turn (`threaded.group_commit`). Scans, large
messages, and Gets that need the disk go to the pool; small ones of the same turn share a job.
"""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import Any, Callable, NamedTuple, Protocol

from google.protobuf.message import DecodeError
from twisted.internet.interfaces import IReactorTime

from ...core.errors import DeadlineExceeded, KvError
from ...core.operations import Pending
from ...core.service import Service
from ...threaded import incidents
from ...threaded.work import Work
from ..calls import Calls
from ..errors import IN_MESSAGE, CallError, call_error
from ..generated import keyvalue_pb2 as kv
from ..messages import parse
from ..methods import METHODS, Method, encoded_get_response
from .requests import Unary
from .responses import ConstantAnswer

#: Bytes of a message that is decoded on the reactor thread; larger ones take some milliseconds.
INLINE_MESSAGE = 65_536
#: Gets that share a pool job, and bytes that one of them may answer.
GETS_IN_A_JOB, GET_ANSWER_BYTES = 16, 1_048_576 + 64

_GET = METHODS["Get"]


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


_SCANS = frozenset({"ScanKeys", "ScanKeyValues"})

#: A call for the pool: who made it, and what it asks for.
Job = tuple[Caller, int, Method, bytes, bool, float, int]


class Way(NamedTuple):
    """How a method that writes is answered: what checks its request and begins the write, and the good answer."""

    method: Method
    begin: Callable[[Any, float], Pending]
    good: ConstantAnswer


class UnaryCalls:
    """Answers unary calls of the key-value service. Reactor thread."""

    def __init__(
        self,
        reactor: IReactorTime,
        work: Work,
        calls: Calls,
        *,
        max_response_bytes: Callable[[], int],
        flush: Callable[[], None],
    ) -> None:
        """`flush` is called when calls were answered outside of any connection's own doing."""
        self._reactor = reactor
        self._operations: Service = calls.admitted.operations
        self._get_now = self._operations.get_now
        self._work = work
        self._admission = calls.admitted.admission
        self._calls = calls
        self._max_response_bytes = max_response_bytes
        self._flush = flush
        #: What answers the methods that write.
        self.writes = {
            name: Way(METHODS[name], begin, ConstantAnswer(METHODS[name].response(success=True).SerializeToString()))
            for name, begin in (
                ("Set", self._begin_set),
                ("Delete", self._begin_delete),
                ("MSet", self._begin_mset),
                ("MDelete", self._begin_mdelete),
            )
        }
        self._gets: list[Job] = []
        work.on_settled(flush)

    def methods(self) -> dict[str, tuple[Unary, Unary]]:
        """For each method what answers it, and what answers it when its message is compressed."""
        short: dict[str, Unary] = {name: partial(self._write, way) for name, way in self.writes.items()}
        short["Get"] = self._get
        return {
            name: (short.get(name, partial(self.pooled, method, False)), partial(self.pooled, method, True))
            for name, method in METHODS.items()
        }

    # Here and now.

    def _get(self, streams: Caller, stream_id: int, message: bytes, timeout: float | None) -> None:
        if len(message) > INLINE_MESSAGE:
            self.pooled(_GET, False, streams, stream_id, message, timeout)
            return
        try:
            request = kv.GetRequest.FromString(message)
        except DecodeError:
            self._undecodable(_GET, streams, stream_id, message)
        else:
            self.get(streams, stream_id, request, timeout)

    def get(self, streams: Caller, stream_id: int, request: kv.GetRequest, timeout: float | None) -> None:
        """Answer a Get, now if memory can."""
        try:
            self._admission.check()
            if timeout is not None:
                self._deadline(timeout)
            known, found = self._get_now(request.key.encode())
            if not known:
                self._share(_GET, streams, stream_id, request.SerializeToString(), timeout)
                return
            answer = encoded_get_response(found)
        except Exception as error:
            self._failed(_GET, streams, stream_id, error)
            return
        streams.answer(stream_id, answer)

    def _write(self, way: Way, streams: Caller, stream_id: int, message: bytes, timeout: float | None) -> None:
        if len(message) > INLINE_MESSAGE:
            self.pooled(way.method, False, streams, stream_id, message, timeout)
            return
        try:
            if way.method.batch is not None:
                self._calls.admitted.check_rate()
                self._calls.check_fields(way.method, message)
            request = way.method.request.FromString(message)
        except DecodeError:
            self._undecodable(way.method, streams, stream_id, message)
        except KvError as error:
            self._failed(way.method, streams, stream_id, error)
        else:
            self.write(way, streams, stream_id, request, len(message), timeout)

    def write(self, way: Way, streams: Caller, stream_id: int, request: Any, size: int, timeout: float | None) -> None:
        """Answer a write, whose message has `size` bytes, once it has gone in with those of its turn."""
        try:
            # Before it is begun: what is refused here has taken nothing from a rate, and is not audited as a write.
            self._admission.check(size)
            pending = way.begin(request, self._deadline(timeout))
            self._admission.enter(pending.size)
        except Exception as error:
            self._failed(way.method, streams, stream_id, error)
            return
        streams.promise(stream_id)
        self._work.submit(pending, partial(self._written, way, streams, stream_id), self._admission)

    def _begin_set(self, request: kv.SetRequest, deadline: float) -> Pending:
        return self._operations.begin_set(request.key.encode(), request.value.encode(), request.ttl, deadline=deadline)

    def _begin_delete(self, request: kv.DeleteRequest, deadline: float) -> Pending:
        return self._operations.begin_delete(request.key.encode(), deadline=deadline)

    def _begin_mset(self, request: kv.MSetRequest, deadline: float) -> Pending:
        pairs = {key.encode(): value.encode() for key, value in request.key_values.items()}
        return self._operations.begin_mset(pairs, request.ttl, deadline=deadline)

    def _begin_mdelete(self, request: kv.MDeleteRequest, deadline: float) -> Pending:
        return self._operations.begin_mdelete([key.encode() for key in request.keys], deadline=deadline)

    def _written(self, way: Way, streams: Caller, stream_id: int, error: BaseException | None) -> None:
        if not streams.awaited(stream_id):
            return
        if error is None:
            streams.answer_constant(stream_id, way.good)
        else:
            self._failed(way.method, streams, stream_id, error)

    def _failed(self, method: Method, streams: Caller, stream_id: int, error: BaseException) -> None:
        if isinstance(error, IN_MESSAGE):
            streams.answer(stream_id, method.response(error=str(error)).SerializeToString())
        else:
            streams.fail(stream_id, call_error(error, method.name))

    def _undecodable(self, method: Method, streams: Caller, stream_id: int, message: bytes) -> None:
        try:
            parse(method.request, message)
        except CallError as error:
            streams.fail(stream_id, error)

    def _deadline(self, timeout: float | None) -> float:
        """When the call is to end. Raises DeadlineExceeded."""
        if timeout is not None and timeout <= 0:
            self._admission.overdue.advance()
            raise DeadlineExceeded("the call's time ran out before it was started")
        limit = self._calls.request_timeout()
        return monotonic() + (limit if timeout is None else min(timeout, limit))

    # By the pool.

    def pooled(
        self, method: Method, compressed: bool, streams: Caller, stream_id: int, message: bytes, timeout: float | None
    ) -> None:
        """Answer any call by the pool."""
        job = self._job(method, streams, stream_id, message, compressed, timeout, self._max_response_bytes())
        if job is not None:
            self._start([job])

    def _share(self, method: Method, streams: Caller, stream_id: int, message: bytes, timeout: float | None) -> None:
        """Answer a Get with those of the same turn."""
        job = self._job(method, streams, stream_id, message, False, timeout, GET_ANSWER_BYTES)
        if job is not None:
            self._gets.append(job)
            if len(self._gets) == 1:
                self._reactor.callLater(0, self._start_gets)

    def _start_gets(self) -> None:
        gets, self._gets = self._gets, []
        for first in range(0, len(gets), GETS_IN_A_JOB):
            self._start(gets[first : first + GETS_IN_A_JOB])

    def _job(
        self,
        method: Method,
        streams: Caller,
        stream_id: int,
        message: bytes,
        compressed: bool,
        timeout: float | None,
        answer_bytes: int,
    ) -> Job | None:
        try:
            deadline = self._deadline(timeout)
            self._calls.enter(len(message))
        except Exception as error:
            self._failed(method, streams, stream_id, error)
            return None
        streams.promise(stream_id)
        streams.expect(answer_bytes)
        return streams, stream_id, method, message, compressed, deadline, answer_bytes

    def _start(self, jobs: list[Job]) -> None:
        work = partial(self._run, jobs)
        is_scan = jobs[0][2].name in _SCANS
        done = self._work.scan(work, self._admission) if is_scan else self._work.run(work)
        done.addCallbacks(partial(self._ran, jobs), partial(self._broke, jobs))
        done.addErrback(incidents.report, "answering")

    def _run(self, jobs: list[Job]) -> list[bytes | CallError]:
        """In a pool thread."""
        answers: list[bytes | CallError] = []
        try:
            for job in jobs:
                answers.append(self._run_one(*job))
            return answers
        finally:
            # After a defect that is no Exception, a panic of the binding, those behind it were not run.
            for _, _, _, message, *_ in jobs[len(answers) + 1 :]:
                self._let_go(len(message))

    def _run_one(
        self,
        streams: Caller,
        stream_id: int,
        method: Method,
        message: bytes,
        compressed: bool,
        deadline: float,
        _: int,
    ) -> bytes | CallError:
        if not streams.awaited(stream_id):
            self._let_go(len(message))
            return b""  # the client has gone
        try:
            return self._calls.run(method, message, compressed, deadline)
        except Exception as error:
            return call_error(error, method.name)

    def _let_go(self, size: int) -> None:
        """A message of that size is not looked at."""
        self._admission.leave(1, size)
        self._calls.admitted.give_back(size)

    def _ran(self, jobs: list[Job], answers: list[bytes | CallError]) -> None:
        for (streams, stream_id, _, _, _, _, answer_bytes), answer in zip(jobs, answers):
            streams.expect(-answer_bytes)
            if not streams.awaited(stream_id):
                continue
            if isinstance(answer, bytes):
                streams.answer(stream_id, answer)
            else:
                streams.fail(stream_id, answer)
        self._flush()

    def _broke(self, jobs: list[Job], failure: Any) -> None:
        """The job itself broke: nothing was answered."""
        error = call_error(failure.value, "pool")
        self._ran(jobs, [error] * len(jobs))
