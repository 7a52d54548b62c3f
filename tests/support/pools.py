"""A thread pool without threads: work waits until a test runs it."""

from __future__ import annotations

from collections import deque
from typing import Any, Callable

from twisted.python.failure import Failure


class ManualPool:
    """What `deferToThreadPool` needs of a pool; queued work runs on the caller's thread, oldest first."""

    def __init__(self) -> None:
        self._queue: deque[Callable[[], None]] = deque()

    @property
    def waiting(self) -> int:
        """Calls not yet run."""
        return len(self._queue)

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], None] | None, func: Any, *args: Any, **kw: Any
    ) -> None:
        """Queue a call; `onResult`, if there is one, is told its result or its exception."""

        def call() -> None:
            try:
                result = func(*args, **kw)
            except Exception:
                if onResult is None:
                    raise
                onResult(False, Failure())
            else:
                if onResult is not None:
                    onResult(True, result)

        self._queue.append(call)

    def run_one(self) -> None:
        """Run the oldest waiting call."""
        self._queue.popleft()()

    def run_all(self) -> None:
        """Run all that waits, and what that adds."""
        while self._queue:
            self.run_one()


class ImmediateReactor:
    """What a backend needs of a reactor: results of threads are delivered at once, and turns come when a test says."""

    def __init__(self) -> None:
        self._next_turn: list[Callable[[], object]] = []

    def callLater(self, delay: float, func: Callable[..., object], *args: Any, **kw: Any) -> None:
        """Call it in the next turn: nothing here asks for more."""
        assert delay == 0
        self._next_turn.append(lambda: func(*args, **kw))

    @property
    def waiting(self) -> int:
        """Calls of the next turn."""
        return len(self._next_turn)

    def turn(self) -> None:
        """The next turn of the reactor."""
        calls, self._next_turn = self._next_turn, []
        for call in calls:
            call()

    def callFromThread(self, func: Callable[..., object], *args: Any, **kw: Any) -> None:
        """Call it here and now."""
        func(*args, **kw)
