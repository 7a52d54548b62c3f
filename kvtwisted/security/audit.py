"""The audit log: who changed what, and who was turned away. One JSON object in a line.

Every line has `time` (UTC), `event` and `who`: a token's id, `cert:` and a certificate's name, `anonymous`, or `server`
for what it did by itself. Values of keys are never in it, and keys only where writes are audited.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from threading import Lock
from time import monotonic, time
from typing import Callable

from .buckets import Addresses, Limiter, Rate, network_of

#: Who did what the server did by itself, and who showed nothing of who they are.
SERVER, ANONYMOUS = "server", "anonymous"

#: Lines in a second on refusals of one token, certificate or address, and of all together who are anonymous.
REFUSALS, ANONYMOUS_REFUSALS = 1, 10
#: Seconds' worth of them that may come at once.
REFUSAL_BURST = 10.0


class Audit:
    """Makes lines and gives them to `add`, which must be quick and safe from any thread. So is this."""

    def __init__(self, add: Callable[[bytes], None], now: Callable[[], float] = time) -> None:
        """`now` is in seconds since 1970."""
        self._add = add
        self._now = now

    def record(self, event: str, who: str, **facts: object) -> None:
        """Something happened; `facts` must be fit for JSON."""
        moment = datetime.fromtimestamp(self._now(), timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": moment, "event": event, "who": who, **facts}
        # ASCII: a lone surrogate of a file's name must not keep the line from being written.
        self._add(json.dumps(line).encode("ascii") + b"\n")


class Refusals:
    """The lines on who was turned away, few enough that a flood of them can neither fill the log nor push others out.

    Any thread. What is left out is counted, and the next line that is written tells how many in `left_out`.
    """

    def __init__(self, audit: Audit, seconds: Callable[[], float] = monotonic) -> None:
        """`seconds` is a monotonic time."""
        self._audit = audit
        self._seconds = seconds
        self._each = Addresses(Rate(REFUSALS), burst=REFUSAL_BURST)
        self._anonymous = Limiter(Rate(ANONYMOUS_REFUSALS), REFUSAL_BURST)
        self._lock = Lock()
        self._left_out = 0

    def record(self, event: str, who: str, address: str = "", **facts: object) -> None:
        """`who` was turned away; somebody anonymous is told by the address."""
        now = self._seconds()
        if who == ANONYMOUS:
            # An address is no token's id, which has neither dots nor colons.
            wait = self._each.take(network_of(address), 1, 0, now) or self._anonymous.take(1, 0, now)
        else:
            wait = self._each.take(who, 1, 0, now)
        with self._lock:
            if wait:
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
        if address:
            facts["address"] = address
        if left_out:
            facts["left_out"] = left_out
        self._audit.record(event, who, **facts)
