"""From a request's message to a command, for every transport: expand, count, decode.

See Note [The order of admission] in `kvtwisted.sessions.session`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..commands.command import Command
from ..core.errors import DeadlineExceeded, TooLarge
from ..sessions.charged import Charged
from ..sessions.session import Session
from .errors import CallError, Code
from .messages import count_fields, decompress
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

    def read(self, charged: Charged, method: Method, message: bytes, call: Call, *, compressed: bool) -> Command:
        """The command of a message that was charged for. Any thread. Raises KvErrors and CallErrors."""
        if compressed:
            message = decompress(message, self.message_limit, charged.grow)
            charged.charge_anew(len(message))
        self.check_fields(method, message)
        return method.read(message, call)


def overdue(session: Session) -> DeadlineExceeded:
    """The error for a call whose time is up before it begins. It is counted."""
    session.admission.overdue.advance()
    return DeadlineExceeded("the call's time ran out before it was started")
