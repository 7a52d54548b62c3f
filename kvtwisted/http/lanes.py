"""Two lanes on one connection: plain requests are answered here, all others by twisted.web and Klein.

Note [Who has the stream]: at any time the bytes of a connection belong to one lane. They belong to the fast one from
the start, and it takes whole plain requests off their front. At a request that is not plain, all that has come and all
that comes belongs to twisted.web, from that request's first byte on, until it has answered a request; what it has not
looked at by then belongs to the fast lane again. A promised answer keeps either lane from looking at what comes behind
it. So answers go out in the order of the requests, and no byte is taken by both lanes.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Callable

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http

from ..threaded import incidents
from ..tls.direct_send import send_now
from .channel import KvChannel
from .fast_answers import closing

if TYPE_CHECKING:
    from .access_log import AccessLog
    from .answering import Running
    from .entrance import Entrance
    from .fast_lane import FastLane
    from .fast_requests import Request

#: Requests answered, and bytes of answers given to the transport, before others have their turn. A packet holds 1,700
#: requests, so that a hundred connections that pipeline would take a second for each turn of the reactor.
TURN, BURST = 64, 262_144
#: The same for requests that twisted.web answers.
TWISTED_TURN = 4
#: Bytes that may come in behind an unanswered request; as many as twisted.web lets in.
EAGER = 16_384


class TwoLaneChannel(KvChannel):
    """One connection. Reactor thread."""

    def __init__(self, entrance: Entrance, read: Callable[[bytes, int], Request | None]) -> None:
        """`read` is `RequestReader.read`."""
        super().__init__()
        #: What a promised answer waits for.
        self.running: Running | None = None
        self._entrance = entrance
        self._read = read
        # What answers the plain requests of whoever has shown this Authorization last.
        self._lane: FastLane | None = None
        self._authorization: bytes | None = None
        # For the access log: the request that is being answered, and when it came (`time.monotonic`).
        self._asked: tuple[Request, float]
        # What has come in and belongs to the fast lane, and how long it must be to be worth looking at.
        self._held = b""
        self._needed = 0
        # Answers that wait for the end of what is being done.
        self._out: list[bytes] = []
        self._is_twisted = False
        self._is_promised = False
        self._promises = 0
        self._is_busy = False

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client, for the lane that has the stream."""
        if self._closing:
            return
        if self._is_twisted:
            self._give_to_twisted(data)
            self._go_on()
            return
        # Also when twisted.web gives back what came behind a request that it has answered.
        self._held = self._held + data if self._held else data
        if self._is_busy:
            return
        self.resetTimeout()
        if self._is_promised or self._waitingForTransport:
            self._limit_held()
        elif len(self._held) >= self._needed:
            self._go_on()

    def _go_on(self) -> None:
        """Let the lanes take turns until one has to wait."""
        if self._is_busy:
            return
        self._is_busy = True
        left = TWISTED_TURN
        try:
            while self._held and not (
                self._is_twisted or self._is_promised or self._waitingForTransport or self._closing
            ):
                if not left:
                    self._end_turn()
                elif not self._take():
                    break
                left -= 1
            self._flush()
        except Exception:
            # A defect, after which nobody knows where this stream stands. The caller has other connections to serve.
            incidents.report(Failure(), "http")
            self._closing, self._is_promised = True, False
            self.abort()
        finally:
            self._is_busy = False
        if self._is_promised:
            self._limit_held()
        if self._input_ended:
            self.close_if_heard_out()

    def _take(self) -> bool:
        """Answer plain requests in a row; False when the next one is plain but not complete."""
        data, self._held, self._needed = self._held, b"", 0
        at, end, size, left = 0, len(data), 0, TURN
        read, log = self._read, self.site.access_log
        for_twisted = self.is_ending() or self.on_trial is not None
        while at < end:
            request = None if for_twisted else read(data, at)
            lane = self._lane
            if request is not None and (lane is None or request[5] is not self._authorization):
                lane = self._enter(request[5])
            if request is None or lane is None:
                self._flush()
                self._is_twisted = True
                self._give_to_twisted(data[at:] if at else data)
                return True
            body, last = request[3], request[4]
            if last > end:
                self._needed = last - at
                self._held = data[at:] if at else data
                self.await_body()
                return False
            at = last
            if log is not None:
                self._asked = request, monotonic()
            try:
                reply = lane.answer(self, request, data[body:last])
            except Exception:
                # A defect. Where the next request begins is known all the same.
                reply = lane.failed("http")
            if reply is not None:
                self._is_promised = False
                if log is not None:
                    self._log_answer(log, reply)
                self._out.append(reply)
                size += len(reply)
            if self._is_promised or self._closing:
                break
            left -= 1
            if not left or size >= BURST:
                # When the transport wants no more it says when to go on. Otherwise that is in the next turn.
                self._flush()
                if at < end and not self._waitingForTransport:
                    self._end_turn()
                break
        self._held = data[at:]
        return True

    def _end_turn(self) -> None:
        """Go on in the next turn of the reactor: when others have had theirs."""
        self.site.reactor.callLater(0, self.answered, self.promise(), b"")

    def _log_answer(self, log: AccessLog, answer: bytes) -> None:
        request, asked_at = self._asked
        log.plain(self.peer, request, answer, monotonic() - asked_at)

    def _enter(self, authorization: bytes | None) -> FastLane | None:
        shown = () if authorization is None else (authorization,)
        self._authorization, self._shown = authorization, shown
        self._lane = self._entrance.lane(self.visitor._replace(authorization=shown))
        return self._lane

    def forget(self) -> None:
        """Look again who is there, from the next request on."""
        self._lane = None

    def _limit_held(self) -> None:
        if len(self._held) > EAGER and not self._waitingForTransport:
            self._networkProducer.pauseProducing()

    def _flush(self) -> None:
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            send_now(self.transport, data)

    # The fast lane.

    def promise(self) -> int:
        """See `fast_lane.Waiter`."""
        self._is_promised = True
        self._promises += 1
        return self._promises

    def answered(self, promise: int, answer: bytes) -> None:
        """See `fast_lane.Waiter`. No bytes are the answer to nothing but the end of others' turn."""
        if promise != self._promises or not self._is_promised:
            return
        self._is_promised = False
        self.running = None
        last = self.is_last_answer()
        if answer:
            if self.site.access_log is not None:
                self._log_answer(self.site.access_log, answer)
            self._out.append(closing(answer) if last else answer)
        if self._is_busy:
            return
        if last:
            self._flush()
            self.loseConnection()
            return
        # The time of the server's own work is no idleness.
        self.resetTimeout()
        if len(self._held) > EAGER and not self._waitingForTransport:
            self._networkProducer.resumeProducing()
        self._go_on()

    # Twisted's lane.

    def _give_to_twisted(self, data: bytes) -> None:
        """Let twisted.web read, without the fast lane's coming in before it is done with that."""
        was_busy, self._is_busy = self._is_busy, True
        try:
            super().dataReceived(data)
        finally:
            self._is_busy = was_busy

    def requestDone(self, request: http.Request) -> None:
        """Twisted.web has answered a request; what it holds behind that belongs to the fast lane."""
        self._is_twisted = False
        was_busy, self._is_busy = self._is_busy, True
        try:
            super().requestDone(request)
        finally:
            self._is_busy = was_busy
        self._held += self.clearLineBuffer()
        self._go_on()

    # Both.

    def idle_seconds(self) -> float | None:
        """For how long no request was under way; None: one is, or an answer."""
        return None if self._is_promised or self._needed else super().idle_seconds()

    def body_under_way(self) -> int | None:
        """Bytes that have come of the body that is waited for; None when it is complete."""
        if self._is_twisted:
            return super().body_under_way()
        return len(self._held) if self._needed else None

    def is_working(self) -> bool:
        """See `KvChannel.is_working`."""
        return self._is_promised or self._is_busy or super().is_working()

    def resumeProducing(self) -> None:
        """The client reads again."""
        super().resumeProducing()
        self._go_on()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, and what was promised to it is not waited for."""
        self._is_promised = False
        self._held = b""
        running, self.running = self.running, None
        super().connectionLost(reason)
        if running is not None:
            running.cancel()

    def has_more(self) -> bool:
        """See `KvChannel.has_more`."""
        return bool(self._held) or super().has_more()

    def part(self) -> None:
        """See `KvChannel.part`. Twisted.web gets all by now, and knows whether it is a request."""
        self._go_on()
        super().part()

    def has_unanswered(self) -> bool:
        """See `KvChannel.has_unanswered`."""
        return self._is_promised or super().has_unanswered()

    def timeoutConnection(self) -> None:
        """The idle timeout, which rests while the server works on a request."""
        if self._is_promised and not self._closing:
            self.setTimeout(self.site.timeOut)
        else:
            super().timeoutConnection()
