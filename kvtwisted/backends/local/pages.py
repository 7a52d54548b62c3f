"""Scans: pages of keys or pairs, each from one consistent view.

Note [Small scans inline]: rocksdict keeps Python's lock while a scan waits for the disk. So a thread helps nobody: all
others wait just as long, and the scan has to wait for the lock besides. A scan of few pairs is made on the reactor
thread. One that turns out to have more goes to the pool, and so does one that takes long, because it needs the disk or
reads over many deleted keys: there the others get their turns between its pairs.

After one that takes long the next is likely to do so, too. So the pool then has all scans for REST times as long as
that took in vain: the reactor loses a fiftieth of its time at most. Without this rest a small Get beside scans over
deleted keys waited twice as long as beside the pool alone.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from ...commands.command import ENTRY_OVERHEAD
from ...commands.ranges import prefix_end
from ...commands.scan import Page, Scan, too_large
from ...core.clock import Clock
from ...core.errors import DeadlineExceeded
from . import records
from .engines.engine import TOO_LONG, Engine, Renewed, ScanUnfinished, ignored
from .large_values import ValueFiles
from .maintenance import expiry
from .records import ENVELOPE
from .views import text_before
from .writer import Writer

#: Pairs of a page that is read at once; those that are tried where it may have more; and bytes of either.
PAIRS_NOW, PAIRS_TRIED, _BYTES_NOW = 256, 128, 262_144
#: Seconds that such a page may take; and after how many pairs that is looked at: at first, and at last.
_SECONDS_NOW, _AT_FIRST_NOW, _AT_ONCE_NOW = 0.001, 4, 32
#: After one that has taken longer none is tried for so many times as long.
REST = 50
#: Pairs that are read at a time, at first and later.
_FEW, _MANY = 16, 256
#: More pairs than these, of shorter values than these bytes, are quicker added at once than one by one.
_SOME, _SHORT = 4, 4096
#: The part of its time after which a page ends early; the rest is for the answer.
_SHARE = 0.8


class _Wanted(NamedTuple):
    """A page that is asked for: its range, and what bounds it. `paged` says that it may end early, with a cursor."""

    start: bytes
    end: bytes | None
    limit: int
    paged: bool
    keys_only: bool
    budget: int
    until: float


class PageReader:
    """Scans of checked prefixes. Blocks, but for what says that it does not; safe from any thread."""

    def __init__(self, engine: Engine, writer: Writer, clock: Clock) -> None:
        self._engine = engine
        self._guards = writer.commits.guards
        self._files = writer.files
        self._clock = clock
        # Until then (a time of `time.monotonic`) no page is tried without blocking.
        self._resting_until = -math.inf

    def pairs_now(self, command: Scan) -> int:
        """Pairs that `scan_now` reads at most; 0: it is of no use."""
        if self._engine.scans_wait:
            return 0
        return command.limit if 0 < command.limit <= PAIRS_NOW else PAIRS_TRIED

    def scan_now(self, command: Scan) -> Page | None:
        """What `scan` gives, if it is small and quick, and needs no file; else None.

        See Note [Small scans inline].
        """
        start, end = _range(command)
        if end is not None and start >= end:
            return Page([], [], b"")
        began = time.monotonic()
        if began < self._resting_until:
            return None
        most, room = self.pairs_now(command), min(command.budget, _BYTES_NOW)
        keys: list[bytes] = []
        values: list[bytes] = []
        size, read, at_once, now = 0, 0, _AT_FIRST_NOW, self._clock.now_ms()
        try:
            pairs = self._engine.scan(start, end, until=-math.inf)
            while taken := pairs.take(min(at_once, most + 1 - len(keys))):
                read += len(taken)
                if time.monotonic() > began + _SECONDS_NOW or read > 2 * most + _AT_ONCE_NOW:
                    self._in_vain(began)
                    return None
                for key, stored in taken:
                    value = stored
                    if stored and stored[0] == ENVELOPE:
                        record = records.decode(stored)
                        if expiry.is_expired(record.expires_at_ms, now) and self._clock.is_marked(record.expires_at_ms):
                            continue
                        if record.pointer is not None or expiry.is_expired(record.expires_at_ms, now):
                            return None  # the value is in a file; or the clock's mark has to be written first
                        value = record.value
                    if len(keys) == most:
                        return Page(keys, values, keys[-1]) if most == command.limit else None
                    if command.keys_only:
                        value = b""
                    size += len(key) + len(value) + ENTRY_OVERHEAD
                    if size > room:
                        return None
                    keys.append(key)
                    values.append(value)
                at_once = min(2 * at_once, _AT_ONCE_NOW)
        except ScanUnfinished:
            self._in_vain(began)
            return None
        return Page(keys, values, b"")

    def _in_vain(self, began: float) -> None:
        """What was begun then has taken long, for nothing. See Note [Small scans inline]."""
        now = time.monotonic()
        self._resting_until = now + REST * (now - began)

    def scan(self, command: Scan) -> Page:
        """The page that `command` asks for. With a limit or a cursor it ends before its time is over, too.

        Without either it raises DeadlineExceeded then.
        """
        cursor, limit, deadline = command.cursor, command.limit, command.deadline
        start, end = _range(command)
        if end is not None and start >= end:
            return Page([], [], b"")
        until, paged = deadline, bool(limit or cursor)
        if paged and deadline < math.inf:
            until -= (1 - _SHARE) * (deadline - time.monotonic())
        wanted = _Wanted(start, end, limit, paged, command.keys_only, command.budget, until)
        try:
            return self._read(wanted, -math.inf)
        except ScanUnfinished:
            """There are many deleted keys next to each other."""
        while (page := self._read_guarded(wanted)) is None:
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    "deleted keys were read over, and others written in between, until the request's time was over; "
                    "ask for less with limit and cursor"
                )
        return page

    def _read_guarded(self, wanted: _Wanted) -> Page | None:
        """The page, or what could be read of it; None for nothing. See Note [A page from several views]."""
        renewed: list[bytes] = []

        def note(key: bytes) -> None:
            if not renewed:
                renewed.append(key)

        with self._guards.range(wanted.start, wanted.end) as written:
            page = self._read(wanted, wanted.until, note)
        lowest = written.lowest
        if not renewed or lowest is None or (page.next_cursor and lowest > page.next_cursor):
            return page
        return _cut(wanted, page, max(lowest, renewed[0]))

    def _read(self, wanted: _Wanted, among_deleted: float, renewed: Renewed = ignored) -> Page:
        """The page, by one scan of the engine, which gets `among_deleted` as `until`, and `renewed`."""
        gathered = _Gathered(wanted, self._files, self._clock.now_ms())
        limit, keys = wanted.limit, gathered.keys
        most = _FEW
        try:
            with self._files.reading():  # before the view is taken: its files must stay
                pairs = self._engine.scan(wanted.start, wanted.end, until=among_deleted, renewed=renewed)
                # One more than the page may have tells whether there is more: that gives it a cursor.
                while taken := pairs.take(min(most, limit - len(keys) + 1) if limit else most):
                    if time.monotonic() > wanted.until:
                        return _early(wanted, gathered.page(), taken[0][0])
                    gathered.add(taken)
                    if gathered.is_full:
                        return gathered.page(keys[-1])
                    most = _MANY
        except ScanUnfinished as unfinished:
            if among_deleted < wanted.until:
                raise
            return _early(wanted, gathered.page(), unfinished.reached)
        finally:
            if gathered.expired:
                self._clock.tell(gathered.expired)
        return gathered.page()


def _range(command: Scan) -> tuple[bytes, bytes | None]:
    """Where the keys that it asks for begin and end."""
    prefix, cursor = command.prefix, command.cursor
    return max(prefix, cursor + b"\0") if cursor else prefix, prefix_end(prefix)


class _Gathered:
    """What a page has so far."""

    def __init__(self, wanted: _Wanted, files: ValueFiles, now: int) -> None:
        self._wanted = wanted
        self._files = files
        self._now = now
        self._size = 0
        self.keys: list[bytes] = []
        self._values: list[bytes] = []
        #: Whether there was more than fits in.
        self.is_full = False
        #: The latest deadline of those that were left out since they have expired.
        self.expired = 0

    def page(self, next_cursor: bytes = b"") -> Page:
        """The page as far as it has come."""
        return Page(self.keys, self._values, next_cursor)

    def add(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """Add these as they are stored, as far as they fit in: all but one at most are within the limit.

        Raises ResponseTooLarge when they do not fit in, and the page may not end early.
        """
        limit = self._wanted.limit
        last = [pairs.pop()] if limit and len(self.keys) + len(pairs) > limit else ()
        if len(pairs) > _SOME and len(pairs[0][1]) < _SHORT and self._add_all(pairs):
            pairs = []
        for key, stored in (*pairs, *last):
            if not self.is_full:
                self._add_one(key, stored)

    def _add_all(self, pairs: Sequence[tuple[bytes, bytes]]) -> bool:
        """Add these at once, if none has an envelope and there is room for all; else, or if it is not sure, do nothing.

        It unrolls `_add_one` for each. Returns whether they were added.
        """
        wanted = self._wanted
        keys, values = zip(*pairs)
        joined = b"".join(values)
        size = self._size + len(b"".join(keys)) + ENTRY_OVERHEAD * len(keys) + (0 if wanted.keys_only else len(joined))
        if ENVELOPE in joined or size > wanted.budget:
            return False
        self._size = size
        self.keys += keys
        self._values += [b""] * len(keys) if wanted.keys_only else values
        return True

    def _add_one(self, key: bytes, stored: bytes) -> None:
        wanted, keys = self._wanted, self.keys
        record, value_bytes = None, len(stored)
        if stored and stored[0] == ENVELOPE:
            record = records.decode(stored)
            if expiry.is_expired(record.expires_at_ms, self._now):
                self.expired = max(self.expired, record.expires_at_ms)
                return
            value_bytes = record.pointer.length if record.pointer else len(record.value)
        self._size += len(key) + ENTRY_OVERHEAD + (0 if wanted.keys_only else value_bytes)
        if self._size > wanted.budget and not wanted.paged:
            raise too_large(wanted.budget)
        if (wanted.limit and len(keys) == wanted.limit) or (self._size > wanted.budget and keys):
            self.is_full = True
            return
        if wanted.keys_only:
            stored = b""
        elif record is not None:
            stored = self._files.value(record)
        keys.append(key)
        self._values.append(stored)


def _early(wanted: _Wanted, page: Page, before: bytes) -> Page:
    """The part of a page before that key, since its time is over. Raises DeadlineExceeded when that is none."""
    part = _cut(wanted, page, before)
    if part is None:
        raise DeadlineExceeded(TOO_LONG)
    return part


def _cut(wanted: _Wanted, page: Page, before: bytes) -> Page | None:
    """The part of a page before that key; None when it may not end early, or that would be no step forward."""
    kept = bisect_left(page.keys, before)
    cursor = max(text_before(before), page.keys[kept - 1] if kept else b"")
    if not cursor or cursor < wanted.start or not wanted.paged:
        return None
    return Page(page.keys[:kept], page.values[:kept], cursor)
