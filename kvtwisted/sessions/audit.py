"""The audit log: who changed what, and who was refused. One JSON object in a line.

Every line has `time` (UTC), `event` and `who`: a token's id, `cert:` and a certificate's name, `anonymous`, or `server`
for what it did by itself. Values of keys are never in it, and keys only where writes are audited.

Note [The audit log cannot be flooded]: the log is bounded, and the oldest lines go first. So lines that a client can
cause without a limit must take little room: a line has a bound; of one kind of line from one client the first are
written, and further ones become one line a minute with their number. Writes of keys, which are unlimited and each
wanted, have a log of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from threading import Lock
from time import monotonic, time
from typing import Callable, Protocol

from .buckets import Addresses, Limiter, Rate, network_of

#: The names for the server itself, and for unknown clients.
SERVER, ANONYMOUS = "server", "anonymous"
#: The name in the line for all those that have no line of their own.
OTHERS = "others"

#: Characters of a text in a line, and bytes of a line, at most.
MAX_TEXT, MAX_LINE = 1024, 16_384
#: Entries of a list or object in a line.
_MAX_ENTRIES = 100

#: Seconds after which the lines that a flood left out are summed up.
WINDOW = 60.0
#: Lines a second of one kind from one principal or address, and how many may come at once.
EACH, EACH_BURST = 1 / 60, 10
#: The same for all principals together, and for all addresses of unknown clients together.
TOGETHER, TOGETHER_BURST = 1 / 10, 100
#: How many principals, and addresses, have a line of their own on what was left out.
_NAMED, _NAMED_ADDRESSES = 20, 10


class Auditing(Protocol):
    """Any thread."""

    def record(self, event: str, who: str, **facts: object) -> None:
        """Something happened; `facts` must be fit for JSON."""


class Audit:
    """Makes lines and gives them to `add`, which must be quick and safe from any thread. So is this."""

    def __init__(self, add: Callable[[bytes], None], now: Callable[[], float] = time) -> None:
        """`now` is in seconds since 1970."""
        self._add = add
        self._now = now

    def record(self, event: str, who: str, **facts: object) -> None:
        """See `Auditing.record`. What is long is cut."""
        self._add(_line(self._now(), event, who, facts))


def lines_lost(lines: int) -> bytes:
    """The line that says how many lines are missing here."""
    return _line(time(), "lines_lost", SERVER, {"lines": lines})


class Floods:
    """Lines that a client can cause without a limit. Note [The audit log cannot be flooded]. Any thread."""

    def __init__(
        self, audit: Auditing, seconds: Callable[[], float] = monotonic, *, each_burst: int = EACH_BURST
    ) -> None:
        """`seconds` is a monotonic time."""
        self._audit = audit
        self._seconds = seconds
        self._known = _Crowd(each_burst, _NAMED)
        self._unknown = _Crowd(each_burst, _NAMED_ADDRESSES)

    def record(self, event: str, who: str, **facts: object) -> None:
        """See `Auditing.record`; unknown clients are told apart by the `address` among the facts."""
        now = self._seconds()
        if who == ANONYMOUS:
            address = str(facts.get("address", ""))
            is_written = self._unknown.take(event, network_of(address), {"address": address}, facts, now)
        else:
            is_written = self._known.take(event, who, {}, facts, now)
        if is_written:
            self._audit.record(event, who, **facts)

    def tell(self, *, at_once: bool = False) -> None:
        """Write what was left out, if it is time or `at_once`. Every second or so."""
        now = self._seconds()
        for crowd, who in ((self._known, None), (self._unknown, ANONYMOUS)):
            for event, name, left_out in crowd.left_out(now, at_once=at_once):
                self._audit.record(event, who or name, **left_out)


class _LeftOut:
    """What was left out of one kind of line from one client."""

    def __init__(self, whose: Mapping[str, object]) -> None:
        self._whose = whose
        self._lines = 0
        self._sums: dict[str, int] = {}
        self._last: Mapping[str, object] = {}

    def add(self, facts: Mapping[str, object]) -> None:
        self._lines += 1
        self._last = facts
        for name, value in facts.items():
            if type(value) is int:
                self._sums[name] = self._sums.get(name, 0) + value

    def facts(self) -> dict[str, object]:
        return {**self._whose, "left_out": self._lines, **self._sums, "last": dict(self._last)}


class _Crowd:
    """Those who share a rate beside their own."""

    def __init__(self, each_burst: int, named: int) -> None:
        self._each = Addresses(Rate(EACH), burst=each_burst / EACH)
        self._together = Limiter(Rate(TOGETHER), max(TOGETHER_BURST, each_burst) / TOGETHER)
        self._named = named
        self._lock = Lock()
        self._left_out: dict[tuple[str, str], _LeftOut] = {}
        self._until: float | None = None

    def take(self, event: str, name: str, whose: Mapping[str, object], facts: Mapping[str, object], now: float) -> bool:
        """Whether a line is written for this; else it is counted."""
        # Neither an address nor a name has a space before an event's name.
        wait = self._each.take(f"{event} {name}", 1, 0, now) or self._together.take(1, 0, now)
        if not wait:
            return True
        with self._lock:
            left_out = self._left_out.get((event, name))
            if left_out is None:
                if len(self._left_out) >= self._named:
                    name, whose = OTHERS, {}
                left_out = self._left_out.setdefault((event, name), _LeftOut(whose))
            left_out.add(facts)
            if self._until is None:
                self._until = now + WINDOW
        return False

    def left_out(self, now: float, *, at_once: bool) -> list[tuple[str, str, dict[str, object]]]:
        """Kind, name and facts of each of those that were left out, once."""
        with self._lock:
            if self._until is None or (now < self._until and not at_once):
                return []
            told, self._left_out, self._until = self._left_out, {}, None
        return [(event, name, left_out.facts()) for (event, name), left_out in told.items()]


def _line(now: float, event: str, who: str, facts: Mapping[str, object]) -> bytes:
    moment = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="milliseconds")
    head = {"time": moment, "event": event, "who": _cut(who)}
    # ASCII: a lone surrogate of a file's name must not keep the line from being written.
    line = json.dumps({**head, **{name: _cut(value) for name, value in facts.items()}}).encode("ascii")
    if len(line) > MAX_LINE:
        line = json.dumps({**head, "cut": _cut(json.dumps(facts))}).encode("ascii")
    return line + b"\n"


def _cut(value: object) -> object:
    """`value`, or what there is room for of it."""
    if isinstance(value, str):
        if len(value) <= MAX_TEXT:
            return value
        return f"{value[:MAX_TEXT]}... ({len(value)} characters)"
    if isinstance(value, Mapping):
        return {str(_cut(name)): _cut(member) for name, member in list(value.items())[:_MAX_ENTRIES]}
    if isinstance(value, (list, tuple)):
        more = [] if len(value) <= _MAX_ENTRIES else [f"... ({len(value)} entries)"]
        return [*map(_cut, value[:_MAX_ENTRIES]), *more]
    return value
