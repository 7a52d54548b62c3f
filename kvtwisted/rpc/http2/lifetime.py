"""How long a connection lives: its goodbye, and what takes too long (RFC 9113, sections 6.8 and 9.1)."""

from __future__ import annotations

from typing import Callable

from . import frames
from .frames import LARGEST_WINDOW, ErrorCode
from .responder import MAX_STREAMS
from .streams import Streams

#: Seconds for the client's first SETTINGS to come.
HANDSHAKE_SECONDS = 10.0
#: Seconds after the end of the last call when the connection is closed.
IDLE_SECONDS = 600.0
#: Seconds of silence while calls run after which the peer is asked whether it lives, and those it has to answer.
KEEPALIVE_SECONDS, KEEPALIVE_ANSWER_SECONDS = 60.0, 20.0
#: Seconds that answers may wait without so many bytes of them going out.
STALL_SECONDS, STALL_BYTES = 60.0, 65_536
#: Seconds that a goodbye waits for calls that were on their way, and those after it until the peer has closed.
GOODBYE_SECONDS, CLOSE_SECONDS = 1.0, 2.0
#: Seconds that calls under way still have when the connection ends for what the peer did.
LAST_CALLS_SECONDS = 10.0
#: Seconds that calls get to finish when the certificate of their client has ended.
EXPIRED_SECONDS = 10.0

#: Why connections are cut off: no first SETTINGS, answers that are not taken, no sign of life, a goodbye that the peer
#: does not answer; too many bytes of answers on all of them; frames without end that lead nowhere, what is not HTTP/2.
HANDSHAKE, SLOW_READER, SILENT, GOODBYE, UNSENT, FLOOD, PROTOCOL_ERROR = REASONS = (
    "handshake", "slow_reader", "silent", "goodbye", "unsent", "flood", "protocol_error",
)  # fmt: skip

#: What the server's own PINGs carry: whether the peer lives, and whether it has heard that it should go.
KEEPALIVE_PING, GOODBYE_PING = b"kvt-live", b"kvt-last"


class Lifetime:
    """The deadlines and the end of one connection. Reactor thread."""

    def __init__(self, streams: Streams, out: list[bytes], seconds: Callable[[], float]) -> None:
        """Frames are appended to `out`; `seconds` tells the time."""
        self._streams = streams
        self._responder = streams.responder
        self._out = out
        self._seconds = seconds
        #: Nothing that comes is looked at any more; calls that are under way may still be answered.
        self.failed = False
        #: Whether the peer's first SETTINGS have come.
        self.settled = False
        #: All is said; the peer has to close.
        self._said = False
        self._draining = False
        now = self._seconds()
        self._opened_at = now
        #: When the last call came, the last frame came, and answers got on last.
        self.active_at = self.heard_at = self.moved_at = now
        self._asked_at: float | None = None
        self._sent = 0
        self._closing_at: float | None = None

    # The end.

    def fail(self, code: ErrorCode, sentence: str) -> None:
        """Say goodbye for what the peer did; nothing it sends is looked at any more."""
        self.failed = True
        served = self._streams.last_served
        # Once it was said which stream is the last one served, it is never a later one (section 6.8).
        self._out.append(frames.goaway(self._streams.last_id if served is None else served, code, sentence))
        self._closing_at = self._seconds()

    def drain(self) -> None:
        """Say that no new calls should come. Those that are on their way are still served (section 6.8)."""
        if not self._draining and not self.failed:
            self._draining = True
            self._closing_at = self._seconds()
            self._out.append(frames.goaway(LARGEST_WINDOW, ErrorCode.NO_ERROR))
            self._out.append(frames.frame(frames.PING, 0, 0, GOODBYE_PING))

    def last_goodbye(self) -> None:
        """Say which calls are served; no later one is."""
        if self._streams.last_served is None:
            self._streams.last_served = self._streams.last_id
            self._out.append(frames.goaway(self._streams.last_id, ErrorCode.NO_ERROR))

    def idle_seconds(self) -> float | None:
        """For how long no call has been under way; None: one is."""
        responder = self._responder
        if self.failed or responder.count or responder.sender.queued or responder.sender.paused:
            return None
        return self._seconds() - self.active_at

    @property
    def finished(self) -> bool:
        """Whether the connection is to be closed once all is sent."""
        return (self.failed or self._streams.last_served is not None) and self._responder.count == 0

    def closing(self) -> None:
        """Everything was sent; the peer has to close."""
        self.failed = self._said = True
        self._closing_at = self._seconds()

    def half_closed(self) -> None:
        """The peer says nothing more: close when its calls have ended."""
        if self._streams.last_served is None:
            self._streams.last_served = self._streams.last_id

    def ping_answered(self, payload: bytes) -> None:
        """The peer has acknowledged a PING that carried this."""
        if payload == KEEPALIVE_PING:
            self._asked_at = None
        elif payload == GOODBYE_PING and self._draining:
            self.last_goodbye()

    # What takes too long.

    def moved(self) -> None:
        """Bytes of answers went out."""
        self.moved_at = self._seconds()

    def look(self, now: float) -> str | None:
        """See to what takes too long; why (one of REASONS) the connection is to be cut off, or None."""
        responder = self._responder
        responder.allowed = MAX_STREAMS
        if responder.count:
            self._streams.expire(now)
        if self._closing_at is not None:
            if self.failed:
                limit = CLOSE_SECONDS if self._said else LAST_CALLS_SECONDS
                return GOODBYE if now - self._closing_at > limit else None
            if now - self._closing_at > GOODBYE_SECONDS:
                self.last_goodbye()
        if not self.settled:
            return HANDSHAKE if now - self._opened_at > HANDSHAKE_SECONDS else None
        if self._stalled(now):
            return SLOW_READER
        return SILENT if self._silent(now) else None

    def _stalled(self, now: float) -> bool:
        sender = self._responder.sender
        if sender.sent - self._sent >= STALL_BYTES or not (sender.queued or sender.paused):
            self._sent = sender.sent
            self.moved_at = now
        return now - self.moved_at > STALL_SECONDS

    def _silent(self, now: float) -> bool:
        if self._asked_at is not None:
            if self.heard_at > self._asked_at:
                self._asked_at = None
            elif now - self._asked_at > KEEPALIVE_ANSWER_SECONDS:
                return True
        elif self._responder.count:
            self.active_at = now
            if now - self.heard_at > KEEPALIVE_SECONDS:
                self._asked_at = now
                self._out.append(frames.frame(frames.PING, 0, 0, KEEPALIVE_PING))
        elif now - self.active_at > IDLE_SECONDS:
            self.drain()
        return False
