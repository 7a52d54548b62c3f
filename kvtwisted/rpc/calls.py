"""One call of the key-value service, from the request's bytes to the answer's: the same for every transport."""

from __future__ import annotations

import time
from typing import Callable

from ..core.admission import Admission
from ..core.errors import DeadlineExceeded
from ..core.service import Service
from .errors import IN_MESSAGE, call_error
from .messages import parse
from .methods import Call, Method


class Calls:
    """Runs calls. Blocks; safe from any thread.

    `max_response_bytes` and `request_timeout` (seconds) are asked anew for each call, so that they may change.
    """

    def __init__(
        self,
        operations: Service,
        admission: Admission,
        *,
        max_response_bytes: Callable[[], int],
        request_timeout: Callable[[], float],
    ) -> None:
        self._operations = operations
        self._admission = admission
        self._max_response_bytes = max_response_bytes
        self.request_timeout = request_timeout

    def answer(self, method: Method, message: bytes, *, arrived: float, time_left: float) -> bytes:
        """The encoded answer to `message`, which began to arrive at `arrived` (`time.monotonic`).

        `time_left` is what the client's own deadline still allows, in seconds. Raises CallError, and nothing else.
        """
        try:
            now = time.monotonic()
            deadline = min(now + time_left, arrived + self.request_timeout())
            if deadline <= now:
                self._admission.overdue.advance()
                raise DeadlineExceeded("the call's time ran out before it was started")
            self._admission.enter(len(message))
        except Exception as error:
            raise call_error(error, method.name) from None
        try:
            return self.run(method, message, deadline)
        finally:
            self._admission.leave(1, len(message))

    def run(self, method: Method, message: bytes, deadline: float) -> bytes:
        """The same for a call that was admitted already."""
        try:
            request = parse(method.request, message)
            try:
                response = method.run(self._operations, request, Call(deadline, self._max_response_bytes()))
            except IN_MESSAGE as error:
                response = method.response(error=str(error))
            return response.SerializeToString()
        except Exception as error:
            raise call_error(error, method.name) from None
