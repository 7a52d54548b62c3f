"""A connection's progress: which part of a request is missing since when, and how its answers proceed.

Note [One answer at a time]: Twisted stops reading from a client that does not take its answers, but not while a request
is being worked on, and it goes on with requests that have come in already. A client that pipelines requests for large
values and reads nothing would make the server hold all the answers. So while an answer waits, no byte is read here and
no request is begun.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..reactor.twisted_internals import has_unread_lines, unsent_bytes
from . import errors
from .deadlines import MIN_BODY_RATE, SLOW_BODY, SLOW_HEAD, SLOW_READER, STALL_BYTES, Deadlines

if TYPE_CHECKING:
    from .channel import KvChannel

# What of a request is missing.
_NOTHING, _HEAD, _BODY = range(3)


class Progress:
    """See Note [Absolute deadlines] in `deadlines`. It does not keep its channel. Reactor thread."""

    __slots__ = ("_deadlines", "_missing", "_missing_since", "_unsent", "moved_at")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        #: When answers that wait got on last.
        self.moved_at = 0.0
        # What of a request is missing, and since when; what the look at its answers has seen last.
        self._missing = _NOTHING
        self._missing_since = 0.0
        self._unsent: int | None = None

    # Requests.

    def complete(self, channel: KvChannel) -> None:
        """The request is complete, or its head."""
        self._missing = _NOTHING
        if channel in self._deadlines.bodies:
            self._deadlines.release(channel)

    def note_what_is_missing(self, channel: KvChannel) -> None:
        """Bytes came in, and all that can be done with them is done: is it in the middle of a request?"""
        if channel.is_answering:
            return
        missing = _HEAD if channel.requests or has_unread_lines(channel) else _NOTHING
        if channel.requests and not channel.line_mode:
            missing = _BODY
        if missing != self._missing:
            self._await(channel, missing)

    def await_body(self, channel: KvChannel) -> None:
        """The head of a request is complete, its body is not."""
        self._await(channel, _BODY)

    def _await(self, channel: KvChannel, missing: int) -> None:
        self._missing = missing
        if missing != _NOTHING:
            self._missing_since = self._deadlines.seconds()
            self._deadlines.follow(channel)

    # Answers.

    def restart_sending(self) -> None:
        """Give what waits now its whole time again."""
        self._unsent, self.moved_at = None, self._deadlines.seconds()

    def follow_answer(self, channel: KvChannel) -> None:
        """Look at its answers, if any wait."""
        unsent = unsent_bytes(channel.transport)
        if unsent:
            self._deadlines.follow(channel, unsent)

    # Both.

    def look(self, channel: KvChannel, now: float) -> int | None:
        """See `deadlines.Followed.look`."""
        unsent = self._look_at_sending(channel, now)
        if channel.closing:
            return unsent or None
        if channel.is_blocked:
            # What it sends is not read; that is no fault of its own.
            self._missing_since = now
            return unsent
        return unsent or (0 if self._look_at_request(channel, now) else None)

    def _look_at_request(self, channel: KvChannel, now: float) -> bool:
        """Whether something of a request is missing that may still come."""
        deadlines = self._deadlines
        patience = deadlines.patience
        waited = now - self._missing_since
        if self._missing == _HEAD:
            if waited > patience.head:
                deadlines.cut_off[SLOW_HEAD] += 1
                channel.refuse(errors.too_slow("head", patience.head))
        elif self._missing == _BODY:
            received = channel.body_under_way()
            if received is None:
                self._missing = _NOTHING
            elif self._is_late(channel, now, received):
                deadlines.cut_off[SLOW_BODY] += 1
                channel.refuse(errors.too_slow("body", patience.body))
        return self._missing != _NOTHING and not channel.closing

    def _is_late(self, channel: KvChannel, now: float, received: int) -> bool:
        """Whether the body takes too long, of which so much has come."""
        if channel.intake is not None:
            return channel.intake.is_late(now)
        return now - self._missing_since > self._deadlines.patience.body + received / MIN_BODY_RATE

    def _look_at_sending(self, channel: KvChannel, now: float) -> int:
        """Cut off a client that does not read. Bytes that wait to be sent."""
        unsent = unsent_bytes(channel.transport)
        before = self._unsent
        if not unsent:
            self._unsent = None
        elif before is None or unsent <= before - STALL_BYTES:
            self._unsent, self.moved_at = unsent, now
        else:
            self._unsent = max(before, unsent)
            stuck = channel.is_blocked or (channel.closing and not channel.refused)
            if stuck and now - self.moved_at > self._deadlines.patience.sending:
                self._deadlines.cut_off[SLOW_READER] += 1
                channel.abort()
                return 0
        return unsent
