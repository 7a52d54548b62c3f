"""One call of the key-value service, from the request's bytes to the answer's: the same for every transport.

Note [What is known first]: a request is refused by what costs nothing to know. In this order: may who asks ever do this
(`rights`, before there is a message)? Is there anything left of their rate? Is there room for the bytes, those of a
compressed message once it is expanded? Are there more keys than there may be? Only then is it decoded and run. A
request is charged one operation and its bytes; one that comes as far as the operations gets that back, since they take
what it really costs, and one that is refused before does not.
"""

from __future__ import annotations

import time
from typing import Callable

from ..core.errors import DeadlineExceeded, TooLarge
from ..security.passes import Pass
from .errors import IN_MESSAGE, CallError, Code, call_error
from .messages import count_fields, decompress, parse
from .methods import Call, Method

#: Fields that a request without a batch may have. None has more than four that this server knows.
MAX_FIELDS = 1000
#: Those that one with a batch may have beside the batch.
OTHER_FIELDS = 16


class Calls:
    """Runs one principal's calls. Blocks; safe from any thread.

    `max_response_bytes`, `request_timeout` (seconds) and `max_batch_keys` are asked anew for each call, so that they
    may change.
    """

    def __init__(
        self,
        admitted: Pass,
        *,
        message_limit: int,
        max_response_bytes: Callable[[], int],
        request_timeout: Callable[[], float],
        max_batch_keys: Callable[[], int],
    ) -> None:
        """A message has at most `message_limit` bytes, expanded."""
        self.admitted = admitted
        self._message_limit = message_limit
        self._max_response_bytes = max_response_bytes
        self.request_timeout = request_timeout
        self._max_batch_keys = max_batch_keys

    def answer(
        self, method: Method, message: bytes, *, arrived: float, time_left: float, compressed: bool = False
    ) -> bytes:
        """The encoded answer to `message`, which began to arrive at `arrived` (`time.monotonic`).

        `time_left` is what the client's own deadline still allows, in seconds. Raises CallError, and nothing else.
        """
        try:
            now = time.monotonic()
            deadline = min(now + time_left, arrived + self.request_timeout())
            if deadline <= now:
                self.admitted.admission.overdue.advance()
                raise DeadlineExceeded("the call's time ran out before it was started")
            self.enter(len(message))
            return self.run(method, message, compressed, deadline)
        except Exception as error:
            failed = call_error(error, method.name)
        # Not within the handler: that would make what was caught its context. Nor may this frame keep it, which it has.
        try:
            raise failed
        finally:
            del failed

    def enter(self, size: int) -> None:
        """Charge for a message of `size` bytes, and count it in. Raises RateLimited, Overloaded, Unavailable."""
        self.admitted.charge(size)
        try:
            self.admitted.admission.enter(size)
        except Exception:
            self.admitted.give_back(size)
            raise

    def run(self, method: Method, message: bytes, compressed: bool, deadline: float) -> bytes:
        """The encoded answer to a message that has entered; it leaves. Raises KvErrors, CallErrors and defects."""
        admitted = self.admitted
        charged = held = len(message)
        try:
            if compressed:

                def grown(size: int) -> None:
                    nonlocal held
                    admitted.admission.grow(size)
                    held += size

                message = decompress(message, self._message_limit, grown)
                admitted.give_back(charged)
                charged = len(message)
                admitted.charge(charged)
            try:
                self.check_fields(method, message)
                request = parse(method.request, message)
                del message
                admitted.give_back(charged)
                response = method.run(admitted.operations, request, Call(deadline, self._max_response_bytes()))
            except IN_MESSAGE as error:
                response = method.response(error=str(error))
            return response.SerializeToString()
        finally:
            admitted.admission.leave(1, held)

    def check_fields(self, method: Method, message: bytes) -> None:
        """Raise TooLarge for a batch of too many keys, and CallError for fields without end in any other request."""
        limit = MAX_FIELDS if method.batch is None else self._max_batch_keys()
        enough = limit + OTHER_FIELDS + 1
        if len(message) < 2 * enough or count_fields(message, enough) < enough:
            return
        if method.batch is None:
            raise CallError(Code.INVALID_ARGUMENT, f"the request has over {MAX_FIELDS} fields")
        raise TooLarge(f"{method.batch}: too many: over {limit} keys were sent, limits.max_batch_keys is {limit}")
