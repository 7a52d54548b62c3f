"""What waits to be sent: flow control towards the peer, by connection and stream (RFC 9113, 5.2 and 6.9)."""

from __future__ import annotations

from collections import OrderedDict, deque

from ...core.counting import ByteAccount, Holding
from .frames import (
    DATA,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    LARGEST_WINDOW,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    frame_header,
)

#: One of how many equal parts of what all connections may have waiting a single one may have.
SHARES = 8

#: Bytes of DATA that go out before other streams have their turn, and before the transport is given what there is.
_TURN, _BURST = 65_536, 262_144


class Outgoing:
    """One stream's queue: DATA that its window, or the connection's, holds back, then its last frame."""

    __slots__ = ("last", "queue", "queued", "stream_id", "window")

    def __init__(self, stream_id: int, window: int) -> None:
        self.stream_id = stream_id
        self.window = window
        self.queue: deque[bytes | memoryview] = deque()
        self.queued = 0
        #: The frames that end the stream, sent after its DATA; None while more may come.
        self.last: bytes | None = None


class Backlog:
    """Bytes of answers that wait or are being made, on all connections together. Reactor thread."""

    __slots__ = ("expected", "queued")

    def __init__(self, limit: int) -> None:
        #: Bytes that wait.
        self.queued = ByteAccount(limit)
        #: What answers that are being made may have: as much as such a one may have, which is seldom so much.
        self.expected = ByteAccount(limit)

    def retune(self, limit: int) -> None:
        """There may be `limit` bytes (`limits.max_unsent_bytes`) from now on; calls on top wait."""
        self.queued.limit = self.expected.limit = limit

    @property
    def limit(self) -> int:
        """Bytes that there may be, of both together."""
        return self.queued.limit

    @property
    def share(self) -> int:
        """Bytes that one connection may have of them."""
        return self.queued.limit // SHARES

    @property
    def bytes(self) -> int:
        """Bytes of both."""
        return self.queued.bytes + self.expected.bytes

    @property
    def room(self) -> int:
        """Bytes that one connection may have now: no more than is left for the others, so that something is."""
        queued = self.queued
        return max(0, min(queued.limit // SHARES, queued.limit - queued.bytes - self.expected.bytes))


class Sender:
    """All that one connection sends under flow control. Frames go to `out`. Reactor thread."""

    def __init__(self, out: list[bytes], backlog: Backlog) -> None:
        self._out = out
        #: Bytes that wait here, or in a transport whose buffer is full.
        self.waiting = Holding(backlog.queued)
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.frame_size = DEFAULT_FRAME_SIZE
        #: Bytes of DATA sent so far.
        self.sent = 0
        #: Streams that have sent all, and those that have ended, since somebody looked.
        self.drained: list[Outgoing] = []
        self.ended: list[Outgoing] = []
        #: While the transport's own buffer is full.
        self.paused = False
        #: Bytes given to the transport since it is paused, which it may still hold; counted like what waits here.
        self._kept = 0
        #: Streams that have something to send, in the order of their turns. Not a deque: an empty one would take 760
        #: bytes of each idle connection.
        self.ready: OrderedDict[Outgoing, None] = OrderedDict()

    @property
    def queued(self) -> int:
        """Bytes that wait."""
        return self.waiting.bytes

    def send(self, stream: Outgoing, data: bytes) -> None:
        """Queue DATA; `pump` sends it."""
        if data:
            # Small pieces go out whole; large ones are cut without a copy of what remains.
            stream.queue.append(memoryview(data) if len(data) > DEFAULT_FRAME_SIZE else data)
            stream.queued += len(data)
            self.waiting.add(len(data))
        self._queue(stream)

    def keep(self, size: int) -> None:
        """So many bytes were given to a transport whose buffer is full."""
        self._kept += size
        self.waiting.add(size)

    def resume(self) -> None:
        """The transport's buffer is empty, or gone."""
        self.paused = False
        self.waiting.add(-self._kept)
        self._kept = 0

    def end(self, stream: Outgoing, last: bytes) -> None:
        """Send `last`, whole frames, after all DATA of the stream."""
        stream.last = last
        self._queue(stream)

    def _queue(self, stream: Outgoing) -> None:
        if stream.window > 0 or not stream.queued:
            self.ready.setdefault(stream)

    def drop(self, stream: Outgoing) -> None:
        """The stream is over: nothing of it is sent any more."""
        self.waiting.add(-stream.queued)
        stream.queued = 0
        stream.queue.clear()
        stream.last = None

    @property
    def can_send(self) -> bool:
        """Whether `pump` would send anything."""
        ready = self.ready
        # Streams that only have to say goodbye need no window.
        return bool(ready) and not self.paused and (self.window > 0 or not all(stream.queued for stream in ready))

    def pump(self) -> None:
        """Send some of what the windows allow, streams taking turns.

        Streams that have nothing left to send are appended to `drained`, those whose last frame went out to `ended`.
        """
        until = self.sent + _BURST
        while self.can_send and self.sent < until:
            # One is there, or there would be nothing to do: see `can_send`.
            stream = next(stream for stream in self.ready if self.window > 0 or not stream.queued)
            del self.ready[stream]
            self._take_turn(stream)
            if stream.queued:
                self._queue(stream)
                continue
            self.drained.append(stream)
            if stream.last is not None:
                self._out.append(stream.last)
                stream.last = None
                self.ended.append(stream)

    def _take_turn(self, stream: Outgoing) -> None:
        taken = left = min(stream.queued, max(0, min(stream.window, self.window, _TURN)))
        while left:
            size = min(self.frame_size, left)
            self._out.append(frame_header(DATA, 0, stream.stream_id, size))
            self._take(stream.queue, size)
            left -= size
        stream.queued -= taken
        stream.window -= taken
        self.window -= taken
        self.sent += taken
        self.waiting.add(-taken)

    def _take(self, queue: deque[bytes | memoryview], size: int) -> None:
        """Move so many bytes from a queue to the output: small messages share a frame."""
        while size:
            piece = queue[0]
            if len(piece) <= size:
                self._out.append(queue.popleft())  # type: ignore[arg-type]  # they are joined
                size -= len(piece)
            else:
                self._out.append(piece[:size])  # type: ignore[arg-type]
                queue[0] = piece[size:]
                size = 0

    # What the peer says of its windows.

    def widen(self, increment: int) -> None:
        """WINDOW_UPDATE for the connection."""
        self.window += increment
        if self.window > LARGEST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"the connection's window is over {LARGEST_WINDOW}")

    def widen_stream(self, stream: Outgoing, increment: int) -> None:
        """WINDOW_UPDATE for a stream."""
        if stream.window + increment > LARGEST_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, f"a stream's window is over {LARGEST_WINDOW}")
        stream.window += increment
        if stream.queued:
            self._queue(stream)

    def change_initial_window(self, size: int, streams: list[Outgoing]) -> None:
        """SETTINGS_INITIAL_WINDOW_SIZE: it moves the windows of all open streams, below 0 too (section 6.9.2)."""
        change = size - self.initial_window
        self.initial_window = size
        for stream in streams:
            if stream.window + change > LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"a stream's window is over {LARGEST_WINDOW}")
            stream.window += change
            if stream.queued:
                self._queue(stream)
