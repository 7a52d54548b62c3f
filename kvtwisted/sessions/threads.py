"""The way to the door for threads that wait, as grpcio's do: their commands go over in batches."""

from __future__ import annotations

import threading
import time
from typing import Callable, NamedTuple

from twisted.internet.interfaces import IReactorFromThreads

from ..commands.command import Command
from ..core.errors import DeadlineExceeded, without_frames
from .door import Done

#: Seconds past a command's own deadline after which it is no longer waited for. Until then whatever carries it out
#: gives up by itself, and says more exactly why; this is for what is stuck.
LAST_RESORT = 1.0


def overdue() -> DeadlineExceeded:
    """What is answered when the last resort is reached."""
    return DeadlineExceeded("the storage did not answer in the request's time; a write may still be applied")


class _Waiting(NamedTuple):
    submit: Callable[[Command, Done], None]
    command: Command
    done: threading.Event

    def finished(self, command: Command) -> None:
        """The command is done."""
        self.done.set()


class FromThreads:
    """Any thread but the reactor's."""

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []

    def run(self, submit: Callable[[Command, Done], None], command: Command) -> object:
        """The result of a command, let in by `submit` (see `Session.submit`). Raises KvErrors.

        Blocks until it is there, or the command's deadline is well over.
        """
        waiting = _Waiting(submit, command, threading.Event())
        with self._lock:
            self._waiting.append(waiting)
            first = len(self._waiting) == 1
        if first:
            self._reactor.callFromThread(self._submit)
        if not waiting.done.wait(min(command.deadline - time.monotonic() + LAST_RESORT, threading.TIMEOUT_MAX)):
            raise overdue()
        error, command.error = command.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error
        return command.result

    def _submit(self) -> None:
        """On the reactor thread."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for one in waiting:
            try:
                one.submit(one.command, one.finished)
            except Exception as error:
                one.command.error = without_frames(error)
                one.done.set()
