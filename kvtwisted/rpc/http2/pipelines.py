"""The Pipeline method: operations of one stream, each of which is what a call of its method would be.

Note [Order in a pipeline]: operations are begun as they come and answered as they are done. Only those on one key wait
for each other: an operation that is not answered at once makes the later ones on its key wait for it, and so a Get sees
the Sets before it, whether they went into a group of writes, into a file, or are still in the pool.

Note [When a pipeline is full]: a client that sends faster than it is served, or that does not read its answers, gets no
more window once MAX_UNANSWERED operations or REQUEST_BYTES of them are under way, or answers of so many bytes wait, its
own or those of its connection. What its window still held waits as it came, and is begun when there is room. So do
compressed messages when enough was expanded in a turn, see Note [Decompression in turns]. Operations that waited for
one on their key, many Gets of a large value for example, go on waiting when so many bytes of answers do.

Note [A chunk's operations]: where memory answers an operation, what is done around it would cost more than that. So all
that have come are taken in one loop, and their answers gather in one buffer, which is sent as a whole; so are the
answers of all writes that were settled together. Whether the pipeline is full is looked at before the first, once
operations under way may have filled it, and whenever 16 KiB of answers have gathered, or as much as there is room for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Callable

from twisted.internet.interfaces import IReactorTime

from ...commands.command import Command
from ...commands.deciding import Outcome
from ...commands.delete import Delete
from ...commands.get import Get
from ...commands.set import Set
from ...core.errors import without_frames
from ...sessions.door import Done
from ...sessions.session import Session
from ...sessions.slots import Slots
from .. import pipeline
from ..calls import Terms
from ..errors import IN_MESSAGE, CallError, call_error, stopping
from ..messages import expanded
from ..methods import SERVICES
from ..pipeline import METHODS_BY_KIND, command_of, encoded_outcome, method_of, size_of
from ..quick_operations import BY_CHANGE, BY_COMMAND, DELETE, GET, SET, TAG, Operation, read_operation
from .expanding import Expander
from .inbound import Message
from .requests import Route
from .stream import Stream

#: Operations of one pipeline that are under way, or wait for one on their key.
MAX_UNANSWERED = 256
#: Bytes of its answers that wait to be read, and of those that are being made in the pool, at most.
QUEUED_BYTES, EXPECTED_BYTES = 4 << 20, 16 << 20
#: Bytes of the keys and values of its operations that are under way or wait for one on their key.
REQUEST_BYTES = 4 << 20
#: Bytes of answers that gather before it is looked whether there are too many: see Note [A chunk's operations].
_PIECE = 16_384

_GET_ANSWER_BYTES = METHODS_BY_KIND[GET].answer_bytes or 0


class PipelineService:
    """All open pipelines. Reactor thread."""

    def __init__(self, reactor: IReactorTime, slots: Slots, terms: Terms, flush: Callable[[], None]) -> None:
        """`flush` is called when operations were answered outside of any connection's own doing."""
        self._slots = slots
        self._terms = terms
        self._expander = Expander(reactor, flush)
        self._open: set[Pipeline] = set()
        self._stopping = False
        #: Those that have answers which were not sent yet.
        self._answered: list[Pipeline] = []

    def routes(self, session: Session, owner: str | None) -> list[Route]:
        """The one method, under each name of the service; its operations are the session's.

        `owner` is whose slots they take (`slots.share_of`).
        """
        begin = partial(self._begin, session, owner)
        return [Route(f"/{service}/{pipeline.NAME}", streaming=begin) for service in SERVICES]

    def stop(self) -> None:
        """Take no more operations; each pipeline ends when those that it has are answered."""
        self._stopping = True
        for open_pipeline in tuple(self._open):
            open_pipeline.cut(stopping())

    def settled(self) -> None:
        """Commands were settled: send their answers, all of a pipeline at once."""
        answered, self._answered = self._answered, []
        for open_pipeline in answered:
            open_pipeline.go_on()

    def _begin(self, session: Session, owner: str | None, stream: Stream) -> Pipeline:
        if self._stopping:
            raise stopping()
        self._slots.enter(owner)
        opened = Pipeline(
            stream, session, self._terms, self._expander, self._answered_later, partial(self._ended, owner)
        )
        self._open.add(opened)
        return opened

    def _answered_later(self, one: Pipeline) -> None:
        self._answered.append(one)

    def _ended(self, owner: str | None, ended: Pipeline) -> None:
        self._open.discard(ended)
        self._slots.leave(owner)


class Pipeline:
    """One open pipeline. Reactor thread."""

    __slots__ = (
        "_answered", "_answers", "_busy", "_bytes", "_closed", "_ended", "_error", "_expander", "_expected", "_good",
        "_held", "_later", "_paused", "_session", "_stalled", "_stream", "_terms", "_waiting",
    )  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        session: Session,
        terms: Terms,
        expander: Expander,
        answered: Callable[[Pipeline], None],
        closed: Callable[[Pipeline], None],
    ) -> None:
        """`answered` is called when it has answers that are to be sent by `go_on`, and `closed` at its end."""
        self._stream = stream
        self._session = session
        self._terms = terms
        self._expander = expander
        self._answered = answered
        self._closed = closed
        #: What is under way, by its key.
        self._busy: dict[bytes, Operation] = {}
        #: Those that wait for the one on their key, and how many they are.
        self._later: dict[bytes, deque[Operation]] = {}
        self._held = 0
        #: Keys of those that nothing is under way on: they wait until answers have gone out.
        self._stalled: list[bytes] = []
        #: Bytes of keys and values of those under way and those that wait for their key.
        self._bytes = 0
        #: Those that wait because the pipeline is full, or because enough was expanded in this turn: as they came,
        #: since decompressed they may have a thousand times the bytes.
        self._waiting: deque[Message] = deque()
        #: Answers that were not sent yet, and how many of them are good.
        self._answers = bytearray()
        self._good = 0
        self._paused = False
        self._expected = 0
        #: Why no more operations are taken, if that is so: None is the client's own end.
        self._ended = False
        self._error: CallError | None = None

    # For the stream.

    def received(self, messages: Iterable[Message]) -> None:
        """Begin operations, as far as there is room."""
        if self._ended:
            return
        waited = bool(self._waiting)
        self._waiting.extend(messages)
        if not waited:
            self.go_on()

    def half_closed(self) -> None:
        """The client has no more operations."""
        self._ended = True
        self.go_on()

    def drained(self) -> None:
        """The client has taken all answers."""
        self.go_on()

    def gone(self) -> None:
        """What is under way goes on, and is answered to nobody."""
        # Also when it is still among those that are to go on.
        self._ended, self._paused = True, False
        self._expect(-self._expected)
        self._busy.clear()
        self._later.clear()
        self._stalled.clear()
        self._held = 0
        self._waiting.clear()
        self._answers.clear()
        self._expander.forget(self)
        self._closed(self)

    def cut(self, error: CallError) -> None:
        """Take no more operations, and end with this error when those that have come are answered."""
        if not self._ended:
            self._ended, self._error = True, error
            self.go_on()

    # From messages to operations.

    def go_on(self) -> None:
        """Begin what waits, as far as there is room; send what was answered; and end when there is nothing left."""
        try:
            self._take_waiting()
        except Exception as error:
            self._waiting.clear()
            self._send()
            self._stream.finish(call_error(error, pipeline.NAME))
            return
        self._send()
        if self._waiting:
            self._paused = True
            self._stream.pause()
        elif self._paused:
            self._paused = False
            self._stream.go_on()
        if self._ended and not (self._busy or self._stalled or self._waiting):
            self._stream.finish(self._error)

    def _take_waiting(self) -> None:
        """Begin what waits, until that is nothing or the pipeline is full. See Note [A chunk's operations]."""
        while self._stalled and not self._unread:
            self._release(self._stalled.pop())
        if self._stalled:
            return
        waiting, answers, busy, get_now = self._waiting, self._answers, self._busy, self._session.get_now
        room, has_looked = 0, False
        now, done = monotonic(), self._done
        while waiting:
            if len(answers) >= room:
                self._send()
                if self._full:
                    return
                room = min(_PIECE, QUEUED_BYTES - self._stream.queued)
            message, compressed = waiting[0]
            if compressed:
                if self._expander.left <= 0:
                    self._expander.wait(self)  # for a later turn of the reactor
                    return
                message = self._expander.expand(message)
            elif len(message) > pipeline.MESSAGE_BYTES:
                expanded(message, False, pipeline.MESSAGE_BYTES)  # says that it is too large
            waiting.popleft()
            operation = read_operation(message)
            if operation is None:
                read = pipeline.read(message)
                if isinstance(read, bytes):
                    pipeline.append(answers, read)
                    continue
                operation = read
            id_field, kind, key, value, _ = operation
            if kind == GET and key not in busy:
                # As `_answered_now`, but one look at the room is enough for Gets that come in a row.
                try:
                    if not has_looked:
                        self._session.check_room()
                        has_looked = True
                    known, found = get_now(key)
                    if known:
                        pipeline.append_found(answers, id_field, found)
                        self._good += 1
                        continue
                except Exception as error:
                    self._fail(id_field, GET, error)
                    continue
            has_looked = False
            self._bytes += len(key) + len(value) if kind < BY_COMMAND else size_of(operation)
            if key in busy:
                self._later.setdefault(key, deque()).append(operation)
                self._held += 1
            else:
                self._begin(operation, now, done)
            if len(busy) + self._held >= MAX_UNANSWERED or self._bytes >= REQUEST_BYTES or self._expected:
                room = 0

    @property
    def _full(self) -> bool:
        return len(self._busy) + self._held >= MAX_UNANSWERED or self._bytes >= REQUEST_BYTES or self._unread

    @property
    def _unread(self) -> bool:
        """Whether answers enough wait to be read, or are being made."""
        return (
            self._stream.queued >= QUEUED_BYTES
            or self._expected >= EXPECTED_BYTES
            # Only while it has answers of its own on the way: their going out is what makes it go on.
            or ((self._stream.queued or self._expected) > 0 and self._stream.responder.backlogged)
        )

    # From operations to answers.

    def _answered_now(self, id_field: bytes, key: bytes) -> bool:
        """Answer a Get on a key that nothing is under way on, if memory can; whether it was answered."""
        try:
            self._session.check_room()
            known, found = self._session.get_now(key)
            if known:
                pipeline.append_found(self._answers, id_field, found)
                self._good += 1
        except Exception as error:
            self._fail(id_field, GET, error)
            return True
        return known

    def _begin(self, operation: Operation, now: float, done: Done) -> None:
        """Begin an operation that is counted; nothing else is under way on its key. It may be refused at once."""
        id_field, kind, key, value, more = operation
        self._busy[key] = operation
        session, seconds = self._session, self._terms.request_timeout
        if kind == SET and not more and session.gathers:
            # See Note [Sets go together].
            sets = session.gathering
            if sets is None or sets.waiter is not self:
                sets = session.gather(self, seconds, Pipeline._sets_done)
            sets.keys.append(key)
            sets.values.append(value)
            sets.tokens.append(key)
            return
        if kind & BY_CHANGE and session.gathers:
            deciding = session.deciding
            if deciding is None or deciding.waiter is not self:
                deciding = session.gather_decisions(self, seconds, Pipeline._decided)
            if deciding is not None:
                mutation, condition = more
                deciding.mutations.append(mutation)
                deciding.conditions.append(condition)
                deciding.tokens.append(key)
                return
        try:
            if kind == SET:
                session.submit(Set(key, value, more, now + seconds), done)
            elif kind == DELETE:
                session.submit(Delete(key, now + seconds), done)
            else:
                self._submit(command_of(operation, now + seconds), operation, done)
        except Exception as error:
            del self._busy[key]
            self._bytes -= size_of(operation)
            self._fail(id_field, kind, error)

    def _submit(self, command: Command, operation: Operation, done: Done) -> None:
        """Begin what is not begun more quickly. Raises what refuses it."""
        id_field, kind, key = operation[:3]
        if isinstance(command, Get):
            if kind != GET and self._session.complete_now(command):
                # Of others it is known that memory cannot tell.
                del self._busy[key]
                self._bytes -= command.size
                self._good += 1
                pipeline.append(self._answers, pipeline.answered(id_field, kind, command.result))
                return
            command.awaited = partial(self._busy.__contains__, key)
        self._session.submit(command, done)
        if isinstance(command, Get):
            self._expect(_GET_ANSWER_BYTES)

    def _done(self, command: Command) -> None:
        """An operation is done. Nothing happens if nobody waits for it."""
        key: bytes = command.key  # type: ignore[attr-defined]  # all operations have one
        operation = self._busy.pop(key, None)
        if operation is None:
            return
        answers = self._answers
        if not answers:
            self._answered(self)
        self._bytes -= command.size
        id_field, kind = operation[0], operation[1]
        if type(command) is Get:
            self._expect(-_GET_ANSWER_BYTES)
        if command.error is not None:
            self._fail(id_field, kind, command.error)
        else:
            self._good += 1
            if command.result is not None:
                pipeline.append(answers, pipeline.answered(id_field, kind, command.result))
            else:
                pipeline.append_done(answers, id_field, kind & TAG)
        if len(answers) >= _PIECE:
            self._send()
        if self._held and key in self._later:
            self._release(key)

    def _sets_done(self, keys: Sequence[bytes], error: BaseException | None) -> None:
        """`_done` for Sets that went together."""
        busy, answers = self._busy, self._answers
        if not answers:
            self._answered(self)
        for key in keys:
            operation = busy.pop(key, None)
            if operation is None:
                continue
            id_field, kind, _, value, _ = operation
            self._bytes -= len(key) + len(value)
            if error is not None:
                self._fail(id_field, kind, error)
            else:
                self._good += 1
                pipeline.append_done(answers, id_field, kind)
            if self._held and key in self._later:
                self._release(key)

    def _decided(self, keys: Sequence[bytes], results: Sequence[Any]) -> None:
        """`_done` for commands that decided together."""
        busy, answers = self._busy, self._answers
        if not answers:
            self._answered(self)
        for key, result in zip(keys, results):
            operation = busy.pop(key, None)
            if operation is None:
                continue
            id_field, kind = operation[0], operation[1]
            self._bytes -= size_of(operation)
            if type(result) is Outcome:
                self._good += 1
                pipeline.append(answers, pipeline.answered(id_field, kind, encoded_outcome(kind, result)))
            else:
                self._fail(id_field, kind, result)
            if self._held and key in self._later:
                self._release(key)

    def _release(self, key: bytes) -> None:
        """Nothing is under way on this key any longer: begin what waited for that."""
        later, now = self._later.pop(key), monotonic()
        while later and key not in self._busy:
            if len(self._answers) >= _PIECE:
                self._send()
            if self._unread:
                self._stalled.append(key)
                break
            operation = later.popleft()
            self._held -= 1
            if operation[1] == GET and self._answered_now(operation[0], key):
                self._bytes -= len(key)
            else:
                self._begin(operation, now, self._done)
        if later:
            self._later[key] = later

    def _fail(self, id_field: bytes, kind: int, error: BaseException) -> None:
        """An operation ends with an error; the pipeline goes on."""
        method = method_of(kind)
        if isinstance(error, IN_MESSAGE):
            answer = pipeline.answered(id_field, kind, method.refused(without_frames(error)))
            self._good += 1
        else:
            answer = pipeline.failed(id_field, call_error(error, method.name))
        pipeline.append(self._answers, answer)

    def _expect(self, size: int) -> None:
        """An answer of up to `size` bytes is being made, or no longer."""
        self._expected += size
        self._stream.responder.expect(size)

    def _send(self) -> None:
        """Send the answers that have gathered."""
        answers = self._answers
        if answers:
            self._stream.responder.served += self._good
            self._good = 0
            self._stream.send(bytes(answers))
            answers.clear()
