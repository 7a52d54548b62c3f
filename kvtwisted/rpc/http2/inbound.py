"""Incoming messages: put together from DATA frames, within what the server can hold.

Note [Room for unfinished requests]: every stream may send its first window, 64 KiB, unasked. The length in front of a
larger message says how much more it needs; it gets the credit when the server has the memory for all of it. Peers that
announce much and send little must not keep others waiting. So a promise takes at most half of what is free; the next
one goes to the connection that would have the least; and while others wait, a message that comes slower than
PACE_SECONDS allows loses its promise, and its call fails. Likewise a connection may hold no more unasked bytes than are
free for the others. The connection's own window is always given back at once, or one slow stream would hold up the
others.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Callable

from ...core.counting import ByteAccount, Holding
from ..errors import CallError, Code
from .frames import DEFAULT_WINDOW, ErrorCode, StreamFault
from .responses import MESSAGE_PREFIX

#: A message as it came, and whether it is compressed.
Message = tuple[bytes, bool]


#: Seconds in which a promised message has to come while others wait, and those it has before that is looked at.
PACE_SECONDS, PATIENCE_SECONDS = 10.0, 1.0


class Share:
    """One connection's part of the budget: bytes held unasked, and bytes that it was promised or asks for."""

    __slots__ = ("asked", "held")

    def __init__(self, unasked: ByteAccount) -> None:
        self.held = Holding(unasked)
        self.asked = 0


class Budget:
    """Bytes of unfinished requests on all connections. Reactor thread. See Note [Room for unfinished requests]."""

    def __init__(self, limit: int, seconds: Callable[[], float] = lambda: 0.0) -> None:
        """`limit` bytes (`limits.max_unfinished_bytes`) in all: half is for what is promised, half for what comes
        unasked. `seconds`: the time.
        """
        self._limit = limit
        self._unasked, self._promised = ByteAccount(limit // 2), ByteAccount(limit // 2)
        #: Calls that failed for lack of room, since the start.
        self.refused = 0
        self._seconds = seconds
        self._promises: dict[Incoming, Holding] = {}
        # A heap; those who have withdrawn stay in it for a while, as None.
        self._waiting: list[tuple[int, int, list[Incoming | None]]] = []
        self._entries: dict[Incoming, list[Incoming | None]] = {}
        self._turn = 0

    def retune(self, limit: int) -> None:
        """Change the limit. Those that wait may get their promise."""
        self._limit = limit
        self._unasked.limit = self._promised.limit = limit // 2
        self._grant()

    def share(self) -> Share:
        """For one more connection."""
        return Share(self._unasked)

    def _refusal(self, sentence: str) -> CallError:
        self.refused += 1
        return CallError(
            Code.RESOURCE_EXHAUSTED, f"{sentence}: limits.max_unfinished_bytes is {self._limit} bytes; try again"
        )

    @property
    def capacity(self) -> int:
        """Bytes that may be promised, and as many again that may come unasked."""
        return self._promised.limit

    @property
    def used(self) -> int:
        """Bytes held or promised."""
        return self._unasked.bytes + self._promised.bytes

    @property
    def waiting(self) -> int:
        """Messages that ask for more than there is now."""
        return len(self._entries)

    def hold(self, share: Share, size: int) -> None:
        """Count bytes that came unasked. Raises CallError when there are too many."""
        if not share.held.fits(size):
            raise self._refusal(f"unfinished requests take {self._unasked.bytes} bytes already")
        share.held.add(size)

    def ask(self, incoming: Incoming, size: int) -> None:
        """Call `incoming.granted`, now or later, when `size` bytes are promised to it."""
        incoming.share.asked += size
        self._turn += 1
        entry = self._entries[incoming] = [incoming]
        heappush(self._waiting, (incoming.share.asked, self._turn, entry))
        self._grant()

    def release(self, incoming: Incoming, size: int) -> None:
        """The `size` bytes it has asked for are not needed any more, whether it has got them or not."""
        incoming.share.asked -= size
        entry = self._entries.pop(incoming, None)
        if entry is not None:
            entry[0] = None
            if len(self._waiting) > 2 * len(self._entries) + 100:
                self._waiting = [waiting for waiting in self._waiting if waiting[2][0] is not None]
                heapify(self._waiting)
        elif (promise := self._promises.pop(incoming, None)) is not None:
            promise.free()
        self._grant()

    def _grant(self) -> None:
        while self._waiting:
            incoming = self._waiting[0][2][0]
            if incoming is not None and self._promised.bytes and 2 * incoming.promised > self._promised.room:
                break
            heappop(self._waiting)
            if incoming is not None:
                del self._entries[incoming]
                promise = self._promises[incoming] = Holding(self._promised, self._seconds())
                promise.add(incoming.promised)
                incoming.granted()

    def look(self, now: float) -> None:
        """Take promises back that are not used, if others wait."""
        if not self._entries:
            return
        for incoming, promise in list(self._promises.items()):
            if incoming.came < promise.bytes * (now - promise.since - PATIENCE_SECONDS) / PACE_SECONDS:
                incoming.lost(self._refusal("the request came too slowly while others waited"))


class Incoming:
    """The messages of one stream. `credit` is called with the bytes of window to give the peer."""

    __slots__ = (
        "_asking", "_budget", "_buffer", "_credit", "_kept", "_limit", "_need",
        "held", "lost", "paused", "promised", "share", "window",
    )  # fmt: skip

    def __init__(
        self,
        budget: Budget,
        share: Share,
        limit: int,
        credit: Callable[[int], None],
        lost: Callable[[CallError], None],
    ) -> None:
        """A message has at most `limit` bytes. `lost` is called when its rest is given up."""
        self._budget = budget
        self.share = share
        self._limit = limit
        self._credit = credit
        self.lost = lost
        self._buffer = bytearray()
        self._need = MESSAGE_PREFIX.size
        self._asking = False
        self._kept = 0
        #: While set, the peer gets no more window.
        self.paused = False
        #: Bytes that the peer may still send.
        self.window = DEFAULT_WINDOW
        #: Bytes counted in the budget: those that came unasked, and those that were promised or asked for.
        self.held = self.promised = 0

    def feed(self, data: bytes, size: int) -> list[Message]:
        """Take the data of a frame that took `size` bytes of the window; returns the messages that are complete.

        Raises StreamFault when the window was not that large, and CallError for what is wrong with a message.
        """
        self.window -= size
        if self.window < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window allows")
        messages: list[Message] = []
        buffer = self._buffer
        position = self._fill(data, messages) if buffer else 0
        if not buffer:
            position = self._whole(data, position, messages)
        buffer += data[position:]
        self._hold()
        while len(buffer) >= MESSAGE_PREFIX.size:
            self._need = MESSAGE_PREFIX.size + self._length()
            if len(buffer) < self._need:
                break
            messages.append(self._take())
        if messages:
            self._release()
            self._hold()
        self._replenish()
        return messages

    def _fill(self, data: bytes, messages: list[Message]) -> int:
        """Give the message that has begun what it lacks, and take it if that is all; returns where the rest begins."""
        buffer = self._buffer
        position = self._need - len(buffer)
        buffer += data[:position]
        if len(buffer) == self._need == MESSAGE_PREFIX.size:
            length = self._length()
            self._need += length
            buffer += data[position : position + length]
            position += length
        if len(buffer) == self._need:
            messages.append(self._take())
        return position

    def _whole(self, data: bytes, position: int, messages: list[Message]) -> int:
        """Take the good messages in `data` from `position` on that are whole in it; returns where the rest begins.

        Putting them together in the buffer would take three times as long.
        """
        limit, unpack, append = self._limit, MESSAGE_PREFIX.unpack_from, messages.append
        prefix, end = MESSAGE_PREFIX.size, len(data)
        last = end - prefix
        while position <= last:
            compressed, length = unpack(data, position)
            start = position + prefix
            after = start + length
            if compressed > 1 or length > limit or after > end:
                break
            append((data[start:after], compressed == 1))
            position = after
        return position

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun that is not complete."""
        return bool(self._buffer)

    def go_on(self) -> None:
        """Take more, after a pause."""
        self.paused = False
        self._replenish()

    def keep(self, size: int) -> None:
        """Count a whole message that waits for the end of its stream. Raises CallError when there are too many."""
        self._budget.hold(self.share, size)
        self._kept = size

    def close(self) -> None:
        """Nothing more is read of the stream."""
        self._asking = False
        self._buffer.clear()
        self._release()
        if self._kept:
            self.share.held.add(-self._kept)
            self._kept = 0

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

    @property
    def came(self) -> int:
        """Bytes of what was promised that have come."""
        return len(self._buffer) - self.held

    def _hold(self) -> None:
        unasked = self.came - (0 if self._asking else self.promised)
        if unasked > 0:
            self._budget.hold(self.share, unasked)
            self.held += unasked

    def _release(self) -> None:
        if self.promised:
            promised, self.promised = self.promised, 0
            self._budget.release(self, promised)
        freed = self.held - len(self._buffer)
        if freed > 0:
            self.held -= freed
            self.share.held.add(-freed)

    def _replenish(self) -> None:
        if self.paused:
            return
        missing = self._need - len(self._buffer)
        if self._asking:
            return
        if missing <= MESSAGE_PREFIX.size:
            # Not asked for, however small the window is: nobody waits for the budget between two messages.
            if self.window <= DEFAULT_WINDOW // 2:
                self._give(DEFAULT_WINDOW - self.window)
        elif missing > self.window and self.promised:
            # Padding has used up some of the window, and none of what was promised.
            self._give(missing - self.window)
        elif missing > self.window:
            # Larger than the first window: see Note [Room for unfinished requests].
            self._asking = True
            self.promised = self._need - self.held
            self._budget.ask(self, self.promised)

    def granted(self) -> None:
        """The promise is given."""
        self._asking = False
        self._give(self._need - len(self._buffer) - self.window)

    def _give(self, size: int) -> None:
        if size > 0:
            self.window += size
            self._credit(size)
