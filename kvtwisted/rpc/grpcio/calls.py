"""One call of the key-value service, from the request's bytes to the answer's, for threads that wait for it."""

from __future__ import annotations

import time

from ...sessions.session import Session
from ...sessions.threads import FromThreads
from ..calls import Charged, Terms, overdue
from ..errors import IN_MESSAGE, call_error
from ..methods import Call, Method


class ThreadedCalls:
    """Runs one session's calls. Blocks; any thread but the reactor's."""

    def __init__(self, session: Session, terms: Terms, from_threads: FromThreads) -> None:
        self.session = session
        self._terms = terms
        self._from_threads = from_threads

    def answer(
        self, method: Method, message: bytes, *, arrived: float, time_left: float, compressed: bool = False
    ) -> bytes:
        """The encoded answer to `message`, which began to arrive at `arrived` (`time.monotonic`).

        `time_left` is what the client's own deadline still allows, in seconds. Raises CallError, and nothing else.
        """
        try:
            now = time.monotonic()
            deadline = min(now + time_left, arrived + self._terms.request_timeout)
            if deadline <= now:
                raise overdue(self.session)
            try:
                return self._run(method, message, compressed, deadline)
            except IN_MESSAGE as error:
                return method.refused(error)
        except Exception as error:
            failed = call_error(error, method.name)
        # Not within the handler: that would make what was caught its context. Nor may this frame keep it, which it has.
        try:
            raise failed
        finally:
            del failed

    def _run(self, method: Method, message: bytes, compressed: bool, deadline: float) -> bytes:
        charged = Charged(self.session, len(message))
        try:
            call = Call(deadline, self._terms.max_response_bytes)
            command = charged.read(self._terms, method, message, call, compressed=compressed)
        except BaseException:
            charged.refuse()
            raise
        del message
        return method.answer(self._from_threads.run(charged, command))
