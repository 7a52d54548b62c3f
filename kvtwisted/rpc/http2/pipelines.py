"""The Pipeline method: operations of one stream, answered by what answers calls of their methods.

Note [Order in a pipeline]: operations are begun as they come and answered as they are done. Only those on one key wait
for each other: an operation that is not answered at once makes the later ones on its key wait for it, and so a Get sees
the Sets before it, whether they went into a group of writes, into a file, or are still in the pool.

Note [When a pipeline is full]: a client that sends faster than it is served, or that does not read its answers, gets no
more window once MAX_UNANSWERED operations or REQUEST_BYTES of them are under way, or answers of so many bytes wait, its
own or those of its connection. What its window still held waits as it came, and is begun when there is room. So do
compressed messages when enough was expanded in a turn, see Note [Decompression in turns].
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Callable

from twisted.internet.interfaces import IReactorTime

from .. import pipeline
from ..errors import CallError, call_error, stopping
from ..messages import expanded
from ..methods import SERVICES
from ..pipeline import Operation
from ..stream_slots import Slots
from .expanding import Expander
from .inbound import Message
from .requests import Route
from .responses import ConstantAnswer
from .stream import Stream
from .unary import UnaryCalls

#: Operations of one pipeline that are under way, or wait for one on their key.
MAX_UNANSWERED = 256
#: Bytes of its answers that wait to be read, and of those that are being made in the pool, at most.
QUEUED_BYTES, EXPECTED_BYTES = 4 << 20, 16 << 20
#: Bytes of its operations that are under way or wait for one on their key, decompressed.
REQUEST_BYTES = 4 << 20


class PipelineService:
    """All open pipelines. Reactor thread."""

    def __init__(self, reactor: IReactorTime, slots: Slots, flush: Callable[[], None]) -> None:
        """`flush` is called when operations were answered outside of any connection's own doing."""
        self._slots = slots
        self._expander = Expander(reactor, flush)
        self._open: set[Pipeline] = set()
        self._stopping = False

    def routes(self, calls: UnaryCalls, owner: str | None) -> list[Route]:
        """The one method, under each name of the service; `calls` answers the operations.

        `owner` is whose slots they take (`slots.share_of`).
        """
        begin = partial(self._begin, calls, owner)
        return [Route(f"/{service}/{pipeline.NAME}", streaming=begin) for service in SERVICES]

    def stop(self) -> None:
        """Take no more operations; each pipeline ends when those that it has are answered."""
        self._stopping = True
        for open_pipeline in tuple(self._open):
            open_pipeline.cut(stopping())

    def _begin(self, calls: UnaryCalls, owner: str | None, stream: Stream) -> Pipeline:
        if self._stopping:
            raise stopping()
        self._slots.enter(owner)
        opened = Pipeline(stream, calls, self._expander, partial(self._ended, owner))
        self._open.add(opened)
        return opened

    def _ended(self, owner: str | None, ended: Pipeline) -> None:
        self._open.discard(ended)
        self._slots.leave(owner)


class Pipeline:
    """One open pipeline: to `UnaryCalls` what a `Responder` is for calls. Its calls are numbered as they begin."""

    def __init__(
        self, stream: Stream, calls: UnaryCalls, expander: Expander, closed: Callable[[Pipeline], None]
    ) -> None:
        self._stream = stream
        self._expander = expander
        self._calls = calls
        self._closed = closed
        self._number = 0
        #: The operation that is being begun, and those that were and are not answered, by number.
        self._beginning: Operation | None = None
        self._begun: dict[int, Operation] = {}
        #: For each key that an operation is under way on, those that wait for it.
        self._busy: dict[str, deque[Operation]] = {}
        #: Those that wait because the pipeline is full, or because enough was expanded in this turn.
        self._waiting: deque[Message] = deque()
        self._unanswered = self._bytes = 0
        self._paused = False
        self._expected = 0
        #: Why no more operations are taken, if that is so: None is the client's own end.
        self._ended = False
        self._error: CallError | None = None

    # For the stream.

    def received(self, message: Message) -> None:
        """Begin one operation, or let it wait."""
        if self._ended:
            return
        if self._waiting or self._full or self._too_early(message):
            # As it came: decompressed it may have a thousand times the bytes.
            self._waiting.append(message)
            self._paused = True
            self._stream.pause()
        else:
            self._take(message)

    def _too_early(self, message: Message) -> bool:
        """Whether the message must wait for a later turn of the reactor; that turn is seen to."""
        if not message[1] or self._expander.left > 0:
            return False
        self._expander.wait(self)
        return True

    def _take(self, message: Message) -> None:
        data, compressed = message
        operation = pipeline.read(
            self._expander.expand(data) if compressed else expanded(data, False, pipeline.MESSAGE_BYTES)
        )
        if isinstance(operation, bytes):
            self._stream.send_message(operation)
            return
        self._unanswered += 1
        self._bytes += operation.size
        if self._busy:
            others = self._busy.get(operation.request.key)
            if others is not None:
                others.append(operation)
                return
        self._begin(operation)

    def half_closed(self) -> None:
        """The client has no more operations."""
        self._ended = True
        self.go_on()

    def drained(self) -> None:
        """The client has taken all answers."""
        self.go_on()

    def gone(self) -> None:
        """What is under way goes on, and is answered to nobody."""
        self._ended = True
        self.expect(-self._expected)
        self._begun.clear()
        self._busy.clear()
        self._waiting.clear()
        self._expander.forget(self)
        self._closed(self)

    def cut(self, error: CallError) -> None:
        """Take no more operations, and end with this error when those that have come are answered."""
        if not self._ended:
            self._ended, self._error = True, error
            self.go_on()

    # One operation after the other.

    @property
    def _full(self) -> bool:
        return (
            self._unanswered >= MAX_UNANSWERED
            or self._bytes >= REQUEST_BYTES
            or self._stream.queued >= QUEUED_BYTES
            or self._expected >= EXPECTED_BYTES
            # Only while it has answers of its own on the way: their going out is what makes it go on.
            or ((self._stream.queued or self._expected) > 0 and self._stream.responder.backlogged)
        )

    def _begin(self, operation: Operation) -> None:
        self._number += 1
        self._beginning = operation
        self._calls.begin(operation.method, self, self._number, operation.request, None)
        self._beginning = None

    def _end(self, number: int, answer: bytes, error: CallError | None) -> None:
        """An operation ends with its answer, or with an error. Nothing happens if nobody waits for it."""
        later = number in self._begun
        operation = self._begun.pop(number, None) or self._beginning
        if operation is None:
            return
        self._unanswered -= 1
        self._bytes -= operation.size
        if error is None:
            self._stream.responder.served += 1
            self._stream.send_message(pipeline.answered(operation, answer))
        else:
            self._stream.send_message(pipeline.failed(operation.id, error))
        if later:
            self._release(operation.request.key)

    def _release(self, key: str) -> None:
        """An operation on this key that others may wait for has been answered."""
        others = self._busy.pop(key, None)
        while others and key not in self._busy:
            self._begin(others.popleft())
        if others:
            self._busy[key] = others
        if self._paused or self._ended:
            self.go_on()

    def go_on(self) -> None:
        """Begin what waits, as far as there is room, and end when there is nothing left."""
        try:
            while self._waiting and not self._full and not self._too_early(self._waiting[0]):
                self._take(self._waiting.popleft())
        except Exception as error:
            self._waiting.clear()
            self._stream.finish(call_error(error, pipeline.NAME))
            return
        if self._paused and not self._waiting:
            self._paused = False
            self._stream.go_on()
        if self._ended and not self._unanswered and not self._waiting:
            self._stream.finish(self._error)

    # For UnaryCalls.

    def promise(self, number: int) -> None:
        """The operation is answered later: others on its key have to wait."""
        operation = self._beginning
        if operation is not None:
            self._begun[number] = operation
            self._busy[operation.request.key] = deque()

    def awaited(self, number: int) -> bool:
        """Whether somebody waits for the answer. Any thread."""
        return number in self._begun

    def expect(self, size: int) -> None:
        """An answer of up to `size` bytes is being made, or no longer."""
        # When the pipeline is gone all has been told already.
        if size > 0 or self._expected:
            self._expected += size
            self._stream.responder.expect(size)

    def answer(self, number: int, message: bytes) -> None:
        """The operation's answer."""
        self._end(number, message, None)

    def answer_constant(self, number: int, answer: ConstantAnswer) -> None:
        """The same with an answer that was made ready for calls."""
        self._end(number, answer.message, None)

    def fail(self, number: int, error: CallError) -> None:
        """The operation ends with a status; the pipeline goes on."""
        self._end(number, b"", error)
