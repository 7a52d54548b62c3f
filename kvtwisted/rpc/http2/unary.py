"""The unary methods: a message is decoded here and now if that is quick, else in a pool thread; then it is submitted.

Messages of one string, Set's and its like, are decoded on the reactor thread whatever their size. What has many fields
is only if it is small, after those were counted, and what is compressed never is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Callable

from google.protobuf.message import DecodeError
from twisted.python.failure import Failure

from ...commands.command import Command
from ...commands.conditions import Condition
from ...commands.deciding import Outcome
from ...commands.get import Get
from ...commands.mutations import SetValue
from ...commands.set import Set
from ...core.errors import without_frames
from ...observability import incidents
from ...reactor.fair_pool import FairPool
from ...sessions.charged import Charged
from ...sessions.session import Session
from ..answers import GET_ANSWERS, SUCCESS, encoded_get_response
from ..calls import Terms, overdue
from ..deciding import INCREMENT, SET_IF, TOUCH, Deciding
from ..errors import IN_MESSAGE, call_error
from ..messages import parse
from ..methods import METHODS, Call, Method
from ..quick_changes import Change, read_set_if
from ..quick_messages import read_get, read_get_as, read_set
from .requests import Unary
from .responses import ConstantAnswer

if TYPE_CHECKING:
    from typing_extensions import TypeAlias

    from .responder import Responder

#: Where calls come from and their answers go.
Caller: TypeAlias = "Responder"

#: Bytes of a message with many fields that is decoded on the reactor thread; larger ones take some milliseconds.
INLINE_MESSAGE = 65_536

_SET, _GET, _DELETE = METHODS["Set"], METHODS["Get"], METHODS["Delete"]
_SUCCESS = ConstantAnswer(SUCCESS)
#: Makes a tuple in half the time that its class takes.
_make = tuple.__new__


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
        self._gathers = session.gathers
        self._check_room = session.check_room
        self._admission = session.admission
        self._terms = terms
        self._flush = flush

    def methods(self) -> dict[str, tuple[Unary, Unary]]:
        """For each method what answers it, and what answers it when its message is compressed."""
        quick: dict[Method, Unary] = {
            _SET: self._set,
            _GET: self._get,
            _DELETE: partial(self._call_on_one_key, _DELETE),
            **{kind.method: partial(self._decide, kind) for kind in (INCREMENT, TOUCH)},
        }
        return {
            name: (
                quick.get(method) or partial(self._call, method),
                partial(self._decode_in_pool, method, True),
            )
            for name, method in METHODS.items()
        }

    # The two that come most often: see Note [Plain messages].

    def _get(self, caller: Caller, number: int, message: bytes, timeout: float | None) -> None:
        key = read_get(message)
        if key is None:
            self._get_as(caller, number, message, timeout)
            return
        try:
            if timeout is not None and timeout <= 0:
                raise overdue(self._session)
            self._check_room()
            known, found = self._get_now(key)
            if not known:
                call = self._started(timeout)
                self._run(_GET, caller, number, Get(key, call.deadline, encoded_get_response), call)
                return
            answer = encoded_get_response(found)
        except Exception as error:
            _fail(_GET, caller, number, error)
        else:
            caller.answer(number, answer)

    def _get_as(self, caller: Caller, number: int, message: bytes, timeout: float | None) -> None:
        """A Get that may ask for data, or the etag."""
        asked = read_get_as(message)
        if asked is None:
            self._call_on_one_key(_GET, caller, number, message, timeout)
            return
        key, how = asked
        self._begin(_GET, caller, number, partial(_get_command, key, how), timeout)

    def _set(self, caller: Caller, number: int, message: bytes, timeout: float | None) -> None:
        asked = read_set(message)
        if asked is None:
            change = read_set_if(message)
            if change is None:
                self._call_on_one_key(_SET, caller, number, message, timeout)
            else:
                self._change(SET_IF, change, caller, number, timeout)
            return
        key, value, ttl = asked
        if self._gathers and timeout is None and not ttl:
            # See Note [Sets go together].
            session = self._session
            sets = session.gathering
            if sets is None or sets.waiter is not caller:
                sets = session.gather(caller, self._terms.request_timeout, _sets_done)
            sets.keys.append(key)
            sets.values.append(value)
            sets.tokens.append(number)
            caller.promise(number)
            return
        if isinstance(ttl, Condition):
            self._change(SET_IF, (_make(SetValue, (key, value, 0)), ttl), caller, number, timeout)
            return
        try:
            call = self._started(timeout)
            self._run(_SET, caller, number, Set(key, value, ttl, call.deadline), call)
        except Exception as error:
            _fail(_SET, caller, number, error)

    def _decide(self, kind: Deciding, caller: Caller, number: int, message: bytes, timeout: float | None) -> None:
        change = kind.read(message, 0)
        if change is None:
            self._call_on_one_key(kind.method, caller, number, message, timeout)
        else:
            self._change(kind, change, caller, number, timeout)

    def _change(self, kind: Deciding, change: Change, caller: Caller, number: int, timeout: float | None) -> None:
        if self._gathers and timeout is None:
            # As Sets do.
            session = self._session
            deciding = session.deciding
            if deciding is None or deciding.waiter is not caller:
                deciding = session.gather_decisions(caller, self._terms.request_timeout, _decided)
            if deciding is not None:
                mutation, condition = change
                deciding.mutations.append(mutation)
                deciding.conditions.append(condition)
                deciding.tokens.append((number, kind))
                caller.promise(number)
                return
        try:
            call = self._started(timeout)
            self._run(kind.method, caller, number, kind.single(change, call.deadline), call)
        except Exception as error:
            _fail(kind.method, caller, number, error)

    # From a message to a request.

    def _call_on_one_key(
        self, method: Method, caller: Caller, number: int, message: bytes, timeout: float | None
    ) -> None:
        try:
            size = len(message)
            if size > INLINE_MESSAGE:
                # As with those that are decoded in the pool; nothing comes in between here.
                self._session.before_reading(size)
                self._terms.check_fields(method, message)
                request = method.request.FromString(message)
                self._session.give_back(size)
            else:
                request = method.request.FromString(message)
        except DecodeError:
            _undecodable(self._session, method, caller, number, message)
        except Exception as error:
            _fail(method, caller, number, error)
        else:
            self.begin(method, caller, number, request, timeout)

    def _call(self, method: Method, caller: Caller, number: int, message: bytes, timeout: float | None) -> None:
        size = len(message)
        if size > INLINE_MESSAGE:
            self._decode_in_pool(method, False, caller, number, message, timeout)
            return
        try:
            call = self._started(timeout)
            self._session.before_reading(size)
            self._terms.check_fields(method, message)
            command = method.read(message, call)
            self._session.give_back(size)
            self._run(method, caller, number, command, call)
        except Exception as error:
            _fail(method, caller, number, error)

    def _decode_in_pool(
        self, method: Method, compressed: bool, caller: Caller, number: int, message: bytes, timeout: float | None
    ) -> None:
        try:
            call = self._started(timeout)
            charged = Charged(self._session, len(message))
        except Exception as error:
            _fail(method, caller, number, error)
            return
        size = call.max_response_bytes if method.answer_bytes is None else method.answer_bytes
        caller.promise(number)
        caller.expect(size)

        def decode() -> Command | None:
            """In a pool thread."""
            if not caller.awaited(number):
                return None
            return self._terms.read(charged, method, message, call, compressed=compressed)

        def decoded(command: Command | None) -> None:
            if command is None or not caller.awaited(number):
                charged.forget()
                caller.expect(-size)
                return
            if not command.writes:
                command.awaited = partial(caller.awaited, number)
            try:
                charged.submit(command, partial(_done, method, caller, number, size))
            except Exception as error:
                failed(error)
            else:
                self._flush()

        def failed(error: BaseException) -> None:
            caller.expect(-size)
            if caller.awaited(number):
                _fail(method, caller, number, error)
            self._flush()

        def refused(failure: Failure) -> None:
            charged.refuse()
            assert failure.value is not None  # noqa: S101 - failures of the pool have one
            failed(failure.value)

        deciding = self._pool.run(self._admission, decode)
        deciding.addCallbacks(decoded, refused).addErrback(incidents.report, "decoding")

    # From a request to its answer.

    def begin(self, method: Method, caller: Caller, number: int, request: Any, timeout: float | None) -> None:
        """Answer a request for one key, now if memory can."""
        self._begin(method, caller, number, partial(method.make, request), timeout)

    def _begin(
        self, method: Method, caller: Caller, number: int, make: Callable[[Call], Command], timeout: float | None
    ) -> None:
        answer = None
        try:
            call = self._started(timeout)
            command = make(call)
            if isinstance(command, Get) and self._session.complete_now(command):
                answer = command.result
            else:
                self._run(method, caller, number, command, call)
        except Exception as error:
            _fail(method, caller, number, error)
        else:
            if answer is not None:
                caller.answer(number, answer)

    def _run(self, method: Method, caller: Caller, number: int, command: Command, call: Call) -> None:
        """Submit a command. Raises what refuses it."""
        size = call.max_response_bytes if method.answer_bytes is None else method.answer_bytes
        if not command.writes:
            command.awaited = partial(caller.awaited, number)
        self._submit(command, partial(_done, method, caller, number, size))
        caller.promise(number)
        if size:
            caller.expect(size)

    def _started(self, timeout: float | None) -> Call:
        """What a call goes by that has so many seconds. Raises DeadlineExceeded."""
        terms = self._terms
        if timeout is None or timeout > terms.request_timeout:
            timeout = terms.request_timeout
        elif timeout <= 0:
            raise overdue(self._session)
        return _make(Call, (monotonic() + timeout, terms.max_response_bytes))


def _get_command(key: bytes, how: tuple[bool, bool], call: Call) -> Get:
    return Get(key, call.deadline, GET_ANSWERS[how], digests=how[1])


def _done(method: Method, caller: Caller, number: int, size: int, command: Command) -> None:
    """A command is done, for which `size` bytes of answer were expected."""
    if size:
        caller.expect(-size)
    if not caller.awaited(number):
        return
    if command.error is not None:
        _fail(method, caller, number, command.error)
    elif command.result is not None:
        caller.answer(number, command.result)
    else:
        caller.answer_constant((number,), _SUCCESS)


def _sets_done(caller: Caller, numbers: Sequence[int], error: BaseException | None) -> None:
    """`_done` for Sets that went together."""
    if error is None:
        caller.answer_constant(numbers, _SUCCESS)
        return
    for number in numbers:
        _fail_awaited(_SET, caller, number, error)


def _decided(caller: Caller, tokens: Sequence[tuple[int, Deciding]], results: Sequence[Any]) -> None:
    """`_done` for commands that decided together."""
    answers = []
    for (number, kind), result in zip(tokens, results):
        if type(result) is Outcome:
            answers.append((number, kind.encode(result)))
        else:
            _fail_awaited(kind.method, caller, number, result)
    caller.answer_each(answers)


def _fail_awaited(method: Method, caller: Caller, number: int, error: BaseException) -> None:
    if caller.awaited(number):
        _fail(method, caller, number, error)


def _fail(method: Method, caller: Caller, number: int, error: BaseException) -> None:
    if isinstance(error, IN_MESSAGE):
        caller.answer(number, method.refused(without_frames(error)))
    else:
        caller.fail(number, call_error(error, method.name))


def _undecodable(session: Session, method: Method, caller: Caller, number: int, message: bytes) -> None:
    try:
        if len(message) <= INLINE_MESSAGE:
            session.before_reading(len(message))
        parse(method.request, message)
    except Exception as error:
        _fail(method, caller, number, error)
