"""Two lanes on one connection: the fast lane answers plain requests, twisted.web and Klein all others.

Note [One lane has the stream]: at any time the bytes of a connection belong to one lane. First they belong to the fast
lane, which takes complete plain requests off their front. At a request that is not plain, the bytes from its first one
on belong to twisted.web, until that has answered a request. What it has not read by then belongs to the fast lane
again. While an answer is promised, neither lane reads on. So answers go out in the order of the requests, and no byte
is taken by both lanes.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Callable

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..observability import incidents
from ..tls.direct_send import send_now
from .fast_lane import closing

if TYPE_CHECKING:
    from .access_log import AccessLog
    from .answers import Answer
    from .authorization import Authorization
    from .channel import KvChannel
    from .collaborators import Ending
    from .dispatch import Running
    from .fast_lane import FastLane
    from .fast_requests import Request

#: Requests answered, and bytes of answers given to the transport, before others have their turn. A packet holds 1,700
#: requests, so that a hundred connections that pipeline would take a second for each turn of the reactor.
TURN, BURST = 64, 262_144
#: The same for requests that twisted.web answers.
TWISTED_TURN = 4
#: Bytes that may come in behind an unanswered request; as many as twisted.web lets in.
EAGER = 16_384


class Lanes:
    """Decides which lane has the stream of one connection, and does the fast lane's part. Reactor thread."""

    def __init__(
        self,
        clock: IReactorTime,
        ending: Ending,
        authorization: Authorization,
        access_log: AccessLog | None,
        read: Callable[[bytes, int], Request | None],
        channel: KvChannel,
    ) -> None:
        """`read` is `RequestReader.read`."""
        #: What a promised answer waits for.
        self.running: Running | None = None
        #: Whether twisted.web has the stream; whether an answer is promised; whether bytes are being looked at.
        self.is_twisted = self.is_promised = self.is_busy = False
        self._channel = channel
        self._clock = clock
        self._ending = ending
        self._authorization = authorization
        self._log = access_log
        self._read = read
        # What answers the plain requests of whoever has shown this Authorization last.
        self._lane: FastLane | None = None
        self._shown: bytes | None = None
        # For the access log: the request that is being answered, and when it came (`time.monotonic`).
        self._asked: tuple[Request, float]
        # What has come in and belongs to the fast lane, and how long it must be to be worth looking at.
        self._held = b""
        self._needed = 0
        # Answers that wait for the end of what is being done.
        self._out: list[bytes] = []
        self._promises = 0

    def received(self, data: bytes) -> None:
        """Bytes from the client, for the lane that has the stream; ignored while the connection closes."""
        channel = self._channel
        if channel.closing:
            return
        if self.is_twisted:
            self._give_to_twisted(data)
            self.go_on()
            return
        self._held = self._held + data if self._held else data
        if self.is_busy:
            return
        channel.resetTimeout()
        if self.is_promised or channel.is_blocked:
            if len(self._held) > EAGER:
                self._limit_held()
        elif len(self._held) >= self._needed:
            self.go_on()

    def go_on(self) -> None:
        """Let the lanes take turns until one has to wait."""
        if self.is_busy:
            return
        self.is_busy = True
        channel, left = self._channel, TWISTED_TURN
        try:
            while self._held and not (self.is_twisted or self.is_promised or channel.is_blocked or channel.closing):
                if not left:
                    self._end_turn()
                elif not self._take():
                    break
                left -= 1
            if self._out:
                self._flush()
        except Exception:
            # A defect: where in the stream the lane is, is not known. The caller has other connections to serve.
            incidents.report(Failure(), "http")
            channel.closing, self.is_promised = True, False
            channel.abort()
        finally:
            self.is_busy = False
        if self.is_promised and len(self._held) > EAGER:
            self._limit_held()
        if channel.input_ended:
            channel.close_if_heard_out()

    def _take(self) -> bool:
        """Answer plain requests in a row; False when the next one is plain but not complete."""
        data, self._held, self._needed = self._held, b"", 0
        at, end, size, left = 0, len(data), 0, TURN
        read, log, channel = self._read, self._log, self._channel
        for_twisted = self._ending.draining or channel.expired_at is not None or channel.on_trial is not None
        while at < end:
            request = None if for_twisted else read(data, at)
            lane = self._lane
            if request is not None and (lane is None or request.authorization is not self._shown):
                lane = self._enter(request.authorization)
            if request is None or lane is None:
                if self._out:
                    self._flush()
                self.is_twisted = True
                self._give_to_twisted(data[at:] if at else data)
                return True
            last = request.end
            if last > end:
                self._needed = last - at
                self._held = data[at:] if at else data
                channel.progress.await_body(channel)
                return False
            at = last
            if log is not None:
                self._asked = request, monotonic()
            self._promises = promise = self._promises + 1
            self.is_promised = True
            try:
                reply = lane.answer(self, promise, request, data[request.body : last])
            except Exception:
                # A defect. Where the next request begins is known all the same.
                reply = lane.failed("http")
            if reply is not None:
                self.is_promised = False
                if log is not None:
                    self._log_answer(log, reply)
                self._out.append(reply)
                size += len(reply)
            if self.is_promised or channel.closing:
                break
            left -= 1
            if not left or size >= BURST:
                # When the transport wants no more it says when to go on. Otherwise that is in the next turn.
                if self._out:
                    self._flush()
                if at < end and not channel.is_blocked:
                    self._end_turn()
                break
        self._held = data[at:]
        return True

    def _end_turn(self) -> None:
        """Go on in the next turn of the reactor: when others have had theirs."""
        self._promises += 1
        self.is_promised = True
        self._clock.callLater(0, self.answered, self._promises)

    def _log_answer(self, log: AccessLog, answer: bytes) -> None:
        request, asked_at = self._asked
        log.plain(self._channel.peer, request, answer, monotonic() - asked_at)

    def _enter(self, authorization: bytes | None) -> FastLane | None:
        shown = () if authorization is None else (authorization,)
        self._shown = authorization
        self._channel.shown = shown
        self._lane = self._authorization.lane(self._channel.visitor._replace(authorization=shown))
        return self._lane

    def forget(self) -> None:
        """Find the session anew, from the next request on."""
        self._lane = None

    def _limit_held(self) -> None:
        if not self._channel.is_blocked:
            self._channel.transport.pauseProducing()

    def _flush(self) -> None:
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        send_now(self._channel.transport, data)

    def answered(self, promise: int, lane: FastLane | None = None, answer: Answer | None = None) -> None:
        """The answer that `lane` has promised; dropped when it is not waited for any more.

        None is the answer to nothing but the end of others' turn.
        """
        if promise != self._promises or not self.is_promised:
            return
        self.is_promised = False
        self.running = None
        channel = self._channel
        last = (self._ending.draining or channel.expired_at is not None) and channel.is_last_answer()
        if lane is not None and answer is not None:
            try:
                reply = lane.encode(answer)
            except Exception:
                # Whatever happens, a connection is not left waiting.
                reply = lane.failed("http")
            if self._log is not None:
                self._log_answer(self._log, reply)
            self._out.append(closing(reply) if last else reply)
        if self.is_busy:
            return
        if last:
            if self._out:
                self._flush()
            channel.loseConnection()
            return
        # The time of the server's own work is no idleness.
        channel.resetTimeout()
        if self._held or channel.input_ended:
            if len(self._held) > EAGER and not channel.is_blocked:
                channel.transport.resumeProducing()
            self.go_on()
        elif self._out:
            send_now(channel.transport, self._out.pop())

    # Twisted's lane.

    def _give_to_twisted(self, data: bytes) -> None:
        """Let twisted.web read, without the fast lane's coming in before it is done with that."""
        was_busy, self.is_busy = self.is_busy, True
        try:
            self._channel.give_to_twisted(data)
        finally:
            self.is_busy = was_busy

    def take_back(self, end: Callable[[], None]) -> None:
        """Twisted.web has answered a request, which `end` ends; what it holds behind that belongs to the fast lane."""
        self.is_twisted = False
        was_busy, self.is_busy = self.is_busy, True
        try:
            end()
        finally:
            self.is_busy = was_busy
        self._held += self._channel.clearLineBuffer()
        if self._held or self._channel.input_ended:
            self.go_on()

    # For the channel.

    @property
    def is_under_way(self) -> bool:
        """Whether a plain request is incomplete, or waits for its answer."""
        return self.is_promised or self._needed > 0

    @property
    def body_under_way(self) -> int | None:
        """Bytes that have come of the incomplete request; None: there is none."""
        return len(self._held) if self._needed else None

    @property
    def has_more(self) -> bool:
        """Whether bytes have come that no lane has read."""
        return bool(self._held)

    def end(self) -> Running | None:
        """The connection is gone, and what was promised to it is not waited for: what should be cancelled."""
        self.is_promised = False
        self._held = b""
        running, self.running = self.running, None
        return running
