"""A connection's part in what takes too long, and what keeps it from piling up answers. The rest is in `channel`.

Note [One answer at a time]: Twisted stops reading from a client that does not take its answers, but not while a request
is being worked on, and it goes on with requests that have come in already. A client that pipelines requests for large
values and reads nothing would make the server hold all the answers. So here neither is a byte read nor a request begun
while an answer waits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from twisted.web.http import HTTPChannel

from . import errors
from .answers import Answer
from .deadlines import MIN_BODY_RATE, SLOW_BODY, SLOW_HEAD, SLOW_READER, STALL_BYTES, unsent_bytes

if TYPE_CHECKING:
    from .site import KvSite

# What of a request is missing.
_NOTHING, _HEAD, _BODY = range(3)


class WatchedChannel(HTTPChannel):
    """See Note [Absolute deadlines] in `deadlines`. Reactor thread."""

    site: KvSite
    transport: Any
    #: When answers that wait got on last.
    moved_at = 0.0
    # Nothing that comes in is looked at any more; and that is so because a request was refused.
    _closing = False
    _refused = False
    # The client sends no more.
    _input_ended = False
    # What of a request is missing, and since when; what the look at its answers has seen last.
    _missing = _NOTHING
    _missing_since = 0.0
    _unsent: int | None = None

    def refuse(self, answer: Answer, reason: str | None = None) -> None:
        """Answer in place of a request that is not complete, and close. None: the reason is the status's."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        raise NotImplementedError

    def close_if_heard_out(self) -> None:
        """Close if nothing more comes in, and all that came has been answered."""
        raise NotImplementedError

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client, which are of no interest once we are closing. They may end amid a request."""
        if self._closing:
            return
        super().dataReceived(data)
        if not self._busyReceiving and not self._closing:
            self._note_what_is_missing()
            if self._input_ended:
                self.close_if_heard_out()

    # Requests.

    def _nothing_missing(self) -> None:
        self._missing = _NOTHING
        self.site.deadlines.release(self)

    def _note_what_is_missing(self) -> None:
        """Bytes came in, and all that can be done with them is done: is it in the middle of a request?"""
        if self._handlingRequest:
            return
        missing = _HEAD if self.requests or self._buffer else _NOTHING
        if self.requests and not self.line_mode:
            missing = _BODY
        if missing != self._missing:
            self._await(missing)

    def _await(self, missing: int) -> None:
        self._missing = missing
        if missing != _NOTHING:
            deadlines = self.site.deadlines
            self._missing_since = deadlines.seconds()
            deadlines.watch(self)

    def await_body(self) -> None:
        """The head of a request is complete, its body is not. For lanes that read by themselves."""
        self._await(_BODY)

    def body_under_way(self) -> int | None:
        """Bytes that have come of the body that is waited for; None when it is complete."""
        return self.requests[-1].content.tell() if self.requests and not self._handlingRequest else None

    def is_known(self) -> bool:
        """Whether the request whose body is waited for is from somebody known."""
        return self.site.entrance.knows(self.requests[-1].visitor)

    def make_room(self, rate: float = math.inf, *, known: bool = True) -> None:
        """Give up the body that is waited for, which came in `rate` bytes a second (inf: nobody can say), from
        somebody `known` or not.
        """
        self.refuse(errors.too_much_unfinished(self.site.deadlines.limits.unfinished, rate, known=known))

    # Both.

    def look(self, now: float) -> int | None:
        """See to what takes too long. Bytes that wait to be sent, or None when there is nothing more to watch."""
        unsent = self._look_at_sending(now)
        if self._closing:
            return unsent or None
        if self._waitingForTransport:
            # What it sends is not read; that is no fault of its own.
            self._missing_since = now
            return unsent
        return unsent or (0 if self._look_at_request(now) else None)

    def _look_at_request(self, now: float) -> bool:
        """Whether something of a request is missing that may still come."""
        deadlines = self.site.deadlines
        patience = deadlines.patience
        waited = now - self._missing_since
        if self._missing == _HEAD:
            if waited > patience.head:
                deadlines.cut_off[SLOW_HEAD] += 1
                self.refuse(errors.too_slow("head", patience.head))
        elif self._missing == _BODY:
            received = self.body_under_way()
            if received is None:
                self._missing = _NOTHING
            elif waited > patience.body + received / MIN_BODY_RATE:
                deadlines.cut_off[SLOW_BODY] += 1
                self.refuse(errors.too_slow("body", patience.body))
        return self._missing != _NOTHING and not self._closing

    def _look_at_sending(self, now: float) -> int:
        """Cut off a client that does not read. Bytes that wait to be sent."""
        unsent = unsent_bytes(self.transport)
        before = self._unsent
        if not unsent:
            self._unsent = None
        elif before is None or unsent <= before - STALL_BYTES:
            self._unsent, self.moved_at = unsent, now
        else:
            self._unsent = max(before, unsent)
            stuck = self._waitingForTransport or (self._closing and not self._refused)
            if stuck and now - self.moved_at > self.site.deadlines.patience.sending:
                self.site.deadlines.cut_off[SLOW_READER] += 1
                self.abort()
                return 0
        return unsent

    # Answers.

    def _restart_sending(self) -> None:
        self._unsent, self.moved_at = None, self.site.deadlines.seconds()

    def _watch_sending(self) -> None:
        unsent = unsent_bytes(self.transport)
        if unsent:
            self.site.deadlines.watch(self, unsent)

    def pauseProducing(self) -> None:
        """The client does not take its answers. See Note [One answer at a time]."""
        super().pauseProducing()
        self._networkProducer.pauseProducing()
        self.paused = True
        # All that waited before has gone.
        self._restart_sending()
        self.site.deadlines.watch(self, unsent_bytes(self.transport))

    def resumeProducing(self) -> None:
        """The client has taken all."""
        if self._closing:
            return
        self.paused = False
        super().resumeProducing()
        # What has come in meanwhile.
        self.dataReceived(b"")
