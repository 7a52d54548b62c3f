"""Messages as they come in: put together from DATA, within what the server can hold.

Note [Who may send much]: every stream may send its first window, 64 KiB, unasked. The length in front of a larger
message says how much more it needs; it gets the credit when the server has the memory for all of it, in the order of
asking. So many streams that send much at once wait for one another, and never for what a peer only announced: a stream
that does not go on loses its call at its deadline. The connection's own window is always given back at once; were it
not, one slow stream would hold up the others.
"""

from __future__ import annotations

from collections import deque
from typing import Callable

from ..errors import CallError, Code
from .frames import DEFAULT_WINDOW, ErrorCode, StreamFault
from .responses import MESSAGE_PREFIX

#: A message as it came, and whether it is compressed.
Message = tuple[bytes, bool]


class Budget:
    """Bytes of unfinished requests that the whole server holds. Reactor thread."""

    def __init__(self, capacity: int) -> None:
        """`capacity` is for what is granted; as much again may be held of what comes unasked."""
        self.capacity = capacity
        #: Bytes held or promised.
        self.used = 0
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    def hold(self, size: int) -> None:
        """Count bytes that came unasked. Raises CallError when there are too many."""
        if self.used + size > 2 * self.capacity:
            raise CallError(
                Code.RESOURCE_EXHAUSTED, f"unfinished requests take {2 * self.capacity} bytes already; try again"
            )
        self.used += size

    def ask(self, size: int, granted: Callable[[], None]) -> None:
        """Call `granted`, now or later, when `size` bytes are promised to the caller."""
        self._waiting.append((size, granted))
        self._grant()

    def withdraw(self, granted: Callable[[], None]) -> None:
        """Forget a request that was not granted yet."""
        self._waiting = deque([waiting for waiting in self._waiting if waiting[1] != granted])

    def release(self, size: int) -> None:
        """Bytes that are held no more."""
        self.used -= size
        self._grant()

    def _grant(self) -> None:
        while self._waiting and (self.used + self._waiting[0][0] <= self.capacity or not self.used):
            size, granted = self._waiting.popleft()
            self.used += size
            granted()


class Incoming:
    """The messages of one stream. `credit` is called with the bytes of window to give the peer."""

    __slots__ = ("_asking", "_budget", "_buffer", "_credit", "_limit", "_need", "held", "window")

    def __init__(self, budget: Budget, limit: int, credit: Callable[[int], None]) -> None:
        """A message has at most `limit` bytes."""
        self._budget = budget
        self._limit = limit
        self._credit = credit
        self._buffer = bytearray()
        self._need = MESSAGE_PREFIX.size
        self._asking = False
        #: Bytes that the peer may still send.
        self.window = DEFAULT_WINDOW
        #: Bytes counted in the budget.
        self.held = 0

    def feed(self, data: bytes, size: int) -> list[Message]:
        """Take the data of a frame that took `size` bytes of the window; returns the messages that are complete.

        Raises StreamFault when the window was not that large, and CallError for what is wrong with a message.
        """
        self.window -= size
        if self.window < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window allows")
        buffer = self._buffer
        buffer += data
        if len(buffer) > self.held:
            self._budget.hold(len(buffer) - self.held)
            self.held = len(buffer)
        messages: list[Message] = []
        while len(buffer) >= MESSAGE_PREFIX.size:
            self._need = MESSAGE_PREFIX.size + self._length()
            if len(buffer) < self._need:
                break
            messages.append(self._take())
        if messages:
            self._free(len(buffer))
        self._replenish()
        return messages

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun that is not complete."""
        return bool(self._buffer)

    def close(self) -> None:
        """Nothing more is wanted of the stream."""
        if self._asking:
            self._budget.withdraw(self._granted)
            self._asking = False
        self._buffer.clear()
        self._free(0)

    def _length(self) -> int:
        length = MESSAGE_PREFIX.unpack_from(self._buffer)[1]
        if length > self._limit:
            raise CallError(
                Code.RESOURCE_EXHAUSTED, f"the request's message has {length} bytes, over the limit of {self._limit}"
            )
        return int(length)

    def _take(self) -> Message:
        compressed = self._buffer[0]
        message = bytes(memoryview(self._buffer)[MESSAGE_PREFIX.size : self._need])
        del self._buffer[: self._need]
        self._need = MESSAGE_PREFIX.size
        if compressed > 1:
            raise CallError(Code.INTERNAL, f"a message's compressed flag must be 0 or 1, not {compressed}")
        return message, bool(compressed)

    def _free(self, keep: int) -> None:
        if self.held > keep:
            freed, self.held = self.held - keep, keep
            self._budget.release(freed)

    def _replenish(self) -> None:
        missing = self._need - len(self._buffer)
        if missing > self.window and not self._asking:
            # Larger than the first window: see Note [Who may send much].
            self._asking = True
            self._budget.ask(self._need - self.held, self._granted)
        elif not self._asking and self.window <= DEFAULT_WINDOW // 2 and missing <= MESSAGE_PREFIX.size:
            self._give(DEFAULT_WINDOW - self.window)

    def _granted(self) -> None:
        self._asking = False
        self.held = self._need
        self._give(self._need - len(self._buffer) - self.window)

    def _give(self, size: int) -> None:
        if size > 0:
            self.window += size
            self._credit(size)
