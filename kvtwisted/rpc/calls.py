"""From a request's message to a command, for every transport: charge, expand, count, decode.

See Note [The order of admission] in `kvtwisted.sessions.session`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..commands.command import Command
from ..commands.get import Get
from ..core.errors import DeadlineExceeded, TooLarge
from ..sessions.door import Done
from ..sessions.session import Session
from .errors import CallError, Code
from .messages import count_fields, decompress, parse
from .methods import Call, Method

#: Fields that a request without a batch may have. None has more than four that this server knows.
MAX_FIELDS = 1000
#: Those that one with a batch may have beside the batch.
OTHER_FIELDS = 16


@dataclass
class Terms:
    """The limits of all calls. They follow the configuration from the next call on."""

    #: Bytes of one message at most, expanded.
    message_limit: int
    #: Bytes of one answer.
    max_response_bytes: int
    #: Seconds of a call that gives itself no fewer.
    request_timeout: float
    #: Keys of one request.
    max_batch_keys: int

    def become(self, other: Terms) -> None:
        """Take over the terms of another, except the size of messages, which stays as it was at the start."""
        self.max_response_bytes = other.max_response_bytes
        self.request_timeout = other.request_timeout
        self.max_batch_keys = other.max_batch_keys

    def check_fields(self, method: Method, message: bytes) -> None:
        """Raise TooLarge for a batch of too many keys, and CallError for fields without end in any other request."""
        limit = MAX_FIELDS if method.batch is None else self.max_batch_keys
        enough = limit + OTHER_FIELDS + 1
        if len(message) < 2 * enough or count_fields(message, enough) < enough:
            return
        if method.batch is None:
            raise CallError(Code.INVALID_ARGUMENT, f"the request has over {MAX_FIELDS} fields")
        raise TooLarge(f"{method.batch}: too many: over {limit} keys were sent, limits.max_batch_keys is {limit}")


class Charged:
    """A message that was charged for, and counted in, before it is read in a thread. It is used once.

    Then comes one of `submit`, `refuse` and `forget`. Any thread, but `submit`.
    """

    __slots__ = ("_charged", "_held", "_session")

    def __init__(self, session: Session, size: int) -> None:
        """It has `size` bytes as it came. Raises RateLimited, Overloaded, Unavailable."""
        self._session = session
        session.charge(size)
        try:
            session.admission.enter(size)
        except BaseException:
            session.give_back(size)
            raise
        self._charged = self._held = size

    def read(self, terms: Terms, method: Method, message: bytes, call: Call, *, compressed: bool) -> Command:
        """The command. Raises KvErrors and CallErrors."""
        if compressed:
            message = decompress(message, terms.message_limit, self._grow)
            self._session.give_back(self._charged)
            self._charged = 0
            self._session.charge(len(message))
            self._charged = len(message)
        terms.check_fields(method, message)
        return method.command(parse(method.request, message), call)

    def submit(self, command: Command, done: Done) -> None:
        """See `Session.submit`; a Get that memory can answer is done when this returns. Reactor thread."""
        self.forget()
        if isinstance(command, Get) and self._session.complete_now(command):
            done(command)
        else:
            self._session.submit(command, done)

    def refuse(self) -> None:
        """The message was bad: the charge is kept."""
        self._session.admission.leave(1, self._held)

    def forget(self) -> None:
        """Give the charge back: the command pays for itself, or nobody waits any more."""
        self._session.give_back(self._charged)
        self.refuse()

    def _grow(self, size: int) -> None:
        self._session.admission.grow(size)
        self._held += size


def overdue(session: Session) -> DeadlineExceeded:
    """The error for a call whose time is up before it begins. It is counted."""
    session.admission.overdue.advance()
    return DeadlineExceeded("the call's time ran out before it was started")
