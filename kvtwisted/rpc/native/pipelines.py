"""The Pipeline method: operations of one stream, answered by what answers calls of their methods.

Note [Order in a pipeline]: operations are begun as they come and answered as they are done. Only those on one key wait
for each other: an operation that is not answered at once makes the later ones on its key wait for it, and so a Get sees
the Sets before it, whether they went into a group of writes, into a file, or are still in the pool.

Note [When a pipeline is full]: a client that sends faster than it is served, or that does not read its answers, gets no
more window once MAX_UNANSWERED operations wait, or answers of so many bytes. What its window still held waits, encoded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Callable

from google.protobuf.message import DecodeError

from .. import pipeline
from ..errors import CallError, Code
from ..messages import decompress
from ..methods import SERVICES
from ..pipeline import Operation
from .answering import Stream
from .receiving import Message
from .requests import Route, Unary
from .responses import ConstantAnswer

#: Operations of one pipeline that have come and are not answered.
MAX_UNANSWERED = 1000
#: Bytes of its answers that wait to be read, and of those that are being made in the pool, at most.
QUEUED_BYTES, EXPECTED_BYTES = 4 << 20, 16 << 20


class PipelineService:
    """All open pipelines. Reactor thread."""

    def __init__(self, methods: Mapping[str, tuple[Unary, Unary]]) -> None:
        """`methods` are what answers unary calls, by the method's name."""
        self._methods = {name: unary for name, (unary, _) in methods.items()}
        self._open: set[_Pipeline] = set()
        self._stopping = False

    def routes(self) -> list[Route]:
        """The one method, under each name of the service."""
        return [Route(f"/{service}/{pipeline.NAME}", streaming=self._begin) for service in SERVICES]

    def stop(self) -> None:
        """Take no more operations; each pipeline ends when those that it has are answered."""
        self._stopping = True
        for open_pipeline in tuple(self._open):
            open_pipeline.stop()

    def _begin(self, stream: Stream) -> _Pipeline:
        if self._stopping:
            raise _stopping()
        if len(self._open) >= pipeline.MAX_STREAMS:
            raise CallError(Code.RESOURCE_EXHAUSTED, f"too many pipelines: {pipeline.MAX_STREAMS} are open already")
        opened = _Pipeline(stream, self._methods, self._open.discard)
        self._open.add(opened)
        return opened


def _stopping() -> CallError:
    return CallError(Code.UNAVAILABLE, "the server is stopping")


class _Pipeline:
    """One open pipeline. To `UnaryCalls` it is what `Streams` is for calls; its calls are numbered as they begin."""

    def __init__(self, stream: Stream, methods: Mapping[str, Unary], closed: Callable[[_Pipeline], None]) -> None:
        self._stream = stream
        self._methods = methods
        self._closed = closed
        self._number = 0
        #: The operation that is being begun, and those that were and are not answered, by number.
        self._beginning: Operation | None = None
        self._begun: dict[int, tuple[Operation, str]] = {}
        #: For each key that an operation is under way on, those that wait for it.
        self._busy: dict[str, deque[Operation]] = {}
        #: Those that wait because the pipeline is full.
        self._waiting: deque[Operation] = deque()
        self._unanswered = 0
        self._expected = 0
        #: Why no more operations are taken, if that is so: None is the client's own end.
        self._ended = False
        self._error: CallError | None = None

    # For the stream.

    def received(self, message: Message) -> None:
        """Begin one operation, or let it wait."""
        if self._ended:
            return
        data, compressed = message
        if compressed:
            data = decompress(data, pipeline.MESSAGE_BYTES)
        elif len(data) > pipeline.MESSAGE_BYTES:
            raise CallError(Code.RESOURCE_EXHAUSTED, f"the message is over {pipeline.MESSAGE_BYTES} bytes")
        operation = pipeline.read(data)
        if isinstance(operation, bytes):
            self._stream.send_message(operation)
            return
        self._unanswered += 1
        if self._waiting or self._full:
            self._waiting.append(operation)
        else:
            self._take(operation)
        if self._unanswered >= MAX_UNANSWERED or self._full:
            self._stream.pause()

    def half_closed(self) -> None:
        """The client has no more operations."""
        self._ended = True
        self._finish_if_done()

    def drained(self) -> None:
        """The client has taken all answers."""
        self._go_on()

    def gone(self) -> None:
        """What is under way goes on, and is answered to nobody."""
        self._ended = True
        self.expect(-self._expected)
        self._begun.clear()
        self._busy.clear()
        self._waiting.clear()
        self._closed(self)

    def stop(self) -> None:
        """Take no more operations."""
        if not self._ended:
            self._ended, self._error = True, _stopping()
            self._finish_if_done()

    # One operation after the other.

    @property
    def _full(self) -> bool:
        return self._stream.queued >= QUEUED_BYTES or self._expected >= EXPECTED_BYTES

    def _take(self, operation: Operation) -> None:
        if self._busy:
            others = self._busy.get(_key(operation))
            if others is not None:
                others.append(operation)
                return
        self._begin(operation)

    def _begin(self, operation: Operation) -> None:
        self._number += 1
        self._beginning = operation
        self._methods[operation.method.name](self, self._number, operation.message, None)
        self._beginning = None

    def _end(self, number: int, answer: Callable[[Operation], bytes]) -> None:
        """An operation has its answer."""
        operation, key = self._begun.pop(number, (self._beginning, None))
        if operation is None:
            return
        self._unanswered -= 1
        self._stream.send_message(answer(operation))
        if key is not None:
            others = self._busy.pop(key)
            while others and key not in self._busy:
                self._begin(others.popleft())
            if others:
                self._busy[key] = others
            self._go_on()
            self._finish_if_done()

    def _go_on(self) -> None:
        while self._waiting and not self._full:
            self._take(self._waiting.popleft())
        if not self._waiting and self._unanswered <= MAX_UNANSWERED // 2:
            self._stream.go_on()

    def _finish_if_done(self) -> None:
        if self._ended and not self._unanswered:
            self._stream.finish(self._error)

    # For UnaryCalls.

    def promise(self, number: int) -> None:
        """The operation is answered later: others on its key have to wait."""
        operation = self._beginning
        if operation is not None:
            key = _key(operation)
            self._begun[number] = operation, key
            self._busy[key] = deque()

    def awaited(self, number: int) -> bool:
        """Whether somebody waits for the answer."""
        return number in self._begun

    def expect(self, size: int) -> None:
        """An answer of up to `size` bytes is being made, or no longer."""
        # When the pipeline is gone all has been told already.
        if size > 0 or self._expected:
            self._expected += size
            self._stream.expect(size)

    def answer(self, number: int, message: bytes) -> None:
        """The operation's answer."""
        self._end(number, lambda operation: pipeline.answered(operation, message))

    def answer_constant(self, number: int, answer: ConstantAnswer) -> None:
        """The same with an answer that was made ready for calls."""
        self.answer(number, answer.message)

    def fail(self, number: int, error: CallError) -> None:
        """The operation ends with a status; the pipeline goes on."""
        self._end(number, lambda operation: pipeline.failed(operation.id, error))


def _key(operation: Operation) -> str:
    try:
        return operation.key
    except DecodeError:
        return ""  # it will be refused
