"""ScanStreams: all pairs of a range from one view, read in pool threads, as fast as they are taken and no faster.

Note [Parts ahead]: while a client is sent one part the next ones are read, so that neither waits for the other. But no
more than AHEAD parts of a stream wait, whatever the client does: a stream of a slow reader takes the bytes of those,
and its view. They are read in one go, since a hop to a thread and back takes as long as some hundreds of pairs; then
others have their turn, so that a hundred streams share the threads as a hundred scans do.

How long a view lives: Note [The end of a view] in `stream_views`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Callable, NamedTuple

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from ...commands.command import Command
from ...commands.scan_stream import ScanStream
from ...core.errors import Unavailable
from ...reactor.fair_pool import FairPool
from ...reactor.pool import caught
from .stream_views import StreamView

#: Parts of a stream that wait to be taken.
AHEAD = 2


class _Read(NamedTuple):
    """A part that was read, encoded, and what it cost."""

    part: Any
    keys: int
    size: int
    last: bytes


class ScanStreams:
    """The streams of a backend. Reactor thread."""

    def __init__(
        self,
        reactor: Any,
        pool: FairPool,
        look: Callable[[ScanStream], StreamView],
        seconds: Callable[[], float],
    ) -> None:
        """`look` takes the view of a stream, in `pool`; it has it for so many `seconds`."""
        self.reactor = reactor
        self.pool = pool
        self.look = look
        self.seconds = seconds
        #: Told of each that has ended.
        self.settled: Callable[[Sequence[Command]], None]
        #: Those that have not.
        self.open: set[_Stream] = set()

    def begin(self, command: ScanStream) -> None:
        """It is given its flow, and reads when it is asked for more."""
        stream = _Stream(self, command)
        self.open.add(stream)
        command.flow = stream

    def stop(self) -> None:
        """All end now."""
        for stream in tuple(self.open):
            stream.fail(Unavailable("the server is stopping"))


class _Stream:
    """The flow of one ScanStream. Reactor thread."""

    def __init__(self, streams: ScanStreams, command: ScanStream) -> None:
        self._streams = streams
        self._command = command
        # Of the thread that is at it, while one is.
        self._view: StreamView | None = None
        self._is_reading = False
        self._parts: deque[_Read] = deque()
        # A part is asked for; all were read; the time of its view is over; and it was settled, or will be.
        self._is_wanted = self._is_read = self._is_late = self._is_over = False
        self._error: BaseException | None = None
        self._timer: IDelayedCall | None = None

    def more(self) -> None:
        """See `Flow.more`."""
        self._is_wanted = True
        self._go_on()

    def cancel(self) -> None:
        """See `Flow.cancel`."""
        if not self._is_over:
            self._leave()
            self._streams.reactor.callLater(0, self._streams.settled, (self._command,))

    def fail(self, error: BaseException) -> None:
        """It ends now, with an error."""
        if not self._is_over:
            self._leave()
            self._command.error = error
            self._streams.settled((self._command,))

    def _go_on(self) -> None:
        """Give what is asked for, if there is any, and see to it that more is read."""
        if self._is_wanted and self._parts:
            self._is_wanted = False
            read = self._parts.popleft()
            self._read_on()
            command = self._command
            command.entries += read.keys
            command.told += read.keys
            command.last = read.last or command.last
            command.answered += read.size
            command.part(read.part)
        elif self._is_wanted and self._is_read and not self._is_over:
            if self._error is not None:
                self.fail(self._error)
            else:
                self._leave()
                self._streams.settled((self._command,))
        else:
            self._read_on()

    def _read_on(self) -> None:
        """Have parts read, unless some wait: the first one alone, so that it comes soon."""
        has_some = bool(self._parts) and not (self._is_late and self._view is not None)
        if self._is_reading or self._is_read or self._is_over or has_some:
            return
        streams = self._streams
        if self._timer is None:
            self._timer = streams.reactor.callLater(streams.seconds(), self._late)
        self._is_reading = True
        count = 1 if self._view is None else AHEAD
        reading = streams.pool.run(self._command.admission, partial(self._read, count), is_long=True)
        reading.addCallbacks(self._has_read, self._has_failed)

    def _late(self) -> None:
        """The time of the view is over. See Note [The end of a view]."""
        self._is_late = True
        self._read_on()

    def _has_read(self, parts: list[_Read]) -> None:
        self._is_reading = False
        if self._is_over:
            self._let_go()
            return
        self._parts += parts
        self._is_read = self._error is not None or (self._view is not None and self._view.is_over)
        if self._is_read:
            self._let_go()
        self._go_on()

    def _has_failed(self, failure: Failure) -> None:
        self._error = failure.value
        self._has_read([])

    def _leave(self) -> None:
        """It is over: nothing is read for it any more."""
        self._is_over = True
        self._parts.clear()
        self._streams.open.discard(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if not self._is_reading:
            self._let_go()
        elif self._view is not None:
            self._view.give_up()

    def _let_go(self) -> None:
        """Give the view back, in a thread: files may have to be removed."""
        view, self._view = self._view, None
        if view is not None and not view.is_over:
            self._streams.pool.run(self._command.admission, view.close)

    # In a pool thread.

    def _read(self, count: int) -> list[_Read]:
        """So many parts, or as many as there are; `_error` is set if that is because something failed."""
        command = self._command
        parts: list[_Read] = []
        try:
            view = self._view
            if view is None:
                view = self._view = self._streams.look(command)
            while len(parts) < count and not view.is_over:
                page = view.page(give_up=self._is_late)
                part = page if command.encode is None else command.encode(page)
                keys, values = page.keys, page.values
                size = sum(map(len, keys)) + sum(map(len, values))
                parts.append(_Read(part, len(keys), size, keys[-1] if keys else b""))
        except Exception:
            self._error = caught().value
        return parts
