"""One call of the key-value service, from the request's bytes to the answer's, for threads that wait for it."""

from __future__ import annotations

import time

from ...commands.command import Command
from ...sessions.charged import Charged
from ...sessions.session import Session
from ...sessions.threads import FromThreads
from ..calls import Terms, overdue
from ..errors import IN_MESSAGE
from ..methods import Call, Method


class ThreadedCalls:
    """Runs calls. Blocks; any thread but the reactor's."""

    def __init__(self, terms: Terms, from_threads: FromThreads) -> None:
        self.terms = terms
        self._from_threads = from_threads

    def answer(
        self,
        session: Session,
        method: Method,
        message: bytes,
        *,
        arrived: float,
        time_left: float,
        compressed: bool = False,
    ) -> bytes:
        """The encoded answer to `message`, which began to arrive at `arrived` (`time.monotonic`).

        `time_left` is what the client's own deadline still allows, in seconds. Raises KvErrors and CallErrors.
        """
        deadline = self.deadline(session, arrived, time_left)
        try:
            charged = Charged(session, len(message))
            try:
                call = Call(deadline, self.terms.max_response_bytes)
                command = self.terms.read(charged, method, message, call, compressed=compressed)
            except BaseException:
                charged.refuse()
                raise
            del message
            return method.answer(self._from_threads.run(charged.submit, command))
        except IN_MESSAGE as error:
            return method.refused(error)

    def carry_out(self, session: Session, method: Method, command: Command) -> bytes:
        """The same for an operation of a pipeline, which was read before anything was known of it."""
        try:
            return method.answer(self._from_threads.run(session.answer, command))
        except IN_MESSAGE as error:
            return method.refused(error)

    def deadline(self, session: Session, arrived: float, time_left: float) -> float:
        """When to stop trying. Raises DeadlineExceeded if that is over."""
        now = time.monotonic()
        deadline = min(now + time_left, arrived + self.terms.request_timeout)
        if deadline <= now:
            raise overdue(session)
        return deadline
