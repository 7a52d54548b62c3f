"""Streaming answers on the threaded transport: a thread for each, which takes one part after the other.

grpcio asks for the next message when the last was handed to the connection, within its flow control. So one part is
asked for while the last is sent, and no more.

Note [Threads of streams]: a stream may idle for days, and has its thread all the time. So streams have threads of their
own, half as many as calls have, and one more is refused; a few threads beside those are there to say so.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

from twisted.internet.interfaces import IReactorFromThreads

from ...commands.command import Command
from ...commands.streams import StreamCommand
from ...core.errors import without_frames
from ...sessions.charged import Charged
from ...sessions.session import Session
from ...sessions.slots import Slots
from ..calls import Terms
from ..messages import is_compressed
from ..streams import StreamMethod

#: Threads that refuse streams for which there is no thread.
_REFUSING_THREADS = 2

#: Says that there is nothing more to come.
_END = object()


class ThreadedStreams:
    """Runs them. Any thread but the reactor's. Construction starts no thread."""

    def __init__(self, reactor: IReactorFromThreads, terms: Terms, threads: int) -> None:
        """`threads` are those of calls. See Note [Threads of streams]."""
        self._reactor = reactor
        self._terms = terms
        most = max(1, threads // 2)
        self._slots = Slots("Watch and ScanStream calls", "half of grpc.threads", most, "principal")
        #: What runs the streams.
        self.threads = ThreadPoolExecutor(most + _REFUSING_THREADS, "grpc-stream")

    def answer(
        self, session: Session, method: StreamMethod, message: bytes, on_end: Callable[[Callable[[], None]], bool]
    ) -> Iterator[bytes]:
        """The encoded messages. Raises KvErrors and CallErrors.

        `on_end` is given what to call, on any thread, when the client does not wait any more; False: it does not now.
        """
        owner = session.owner
        self._slots.enter(owner)
        try:
            yield from self._parts(session, method, message, on_end)
        except Exception as error:
            if method.refused is None or not method.answered_in_message(error):
                raise
            yield method.refused(without_frames(error))
        finally:
            self._slots.leave(owner)

    def _parts(
        self, session: Session, method: StreamMethod, message: bytes, on_end: Callable[[Callable[[], None]], bool]
    ) -> Iterator[bytes]:
        charged = Charged(session, len(message))
        try:
            compressed = is_compressed(message)
            command = method.read(message, compressed, self._terms.max_response_bytes, method.messages)
        except BaseException:
            charged.refuse()
            raise
        taken: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = self._reactor.callFromThread
        command.part = taken.put
        if not on_end(lambda: taken.put(_END)):
            charged.forget()
            return
        call(_submit, charged, command, taken)
        try:
            while (part := taken.get()) is not _END:
                if isinstance(part, BaseException):
                    raise part
                call(command.more)
                yield from part
        finally:
            call(command.cancel)


def _submit(charged: Charged, command: StreamCommand, taken: queue.SimpleQueue[Any]) -> None:
    """On the reactor thread."""

    def settled(command: Command) -> None:
        error, command.error = command.error, None
        taken.put(_END if error is None else error)

    try:
        charged.submit(command, settled)
    except Exception as error:
        taken.put(without_frames(error))
    else:
        command.more()
