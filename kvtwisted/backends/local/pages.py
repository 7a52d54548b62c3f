"""Scans: pages of keys or pairs, each from one consistent view.

Note [Small scans inline]: rocksdict keeps Python's lock while a scan waits for the disk, so that nobody is better off
for its being in a thread. There it only waits for that lock, and others for it. So a scan of few pairs is made on the
reactor thread. What turns out to be more than that goes to the pool, as does what takes longer, since it needs the disk
or has many deleted keys to read over: then there is a moment for others between its pairs.
"""

from __future__ import annotations

import math
import time
from typing import Callable, NamedTuple

from ...commands.command import ENTRY_OVERHEAD
from ...commands.scan import Page, Scan, too_large
from ...core.clock import Clock
from ...core.errors import DeadlineExceeded
from . import records
from .engines.engine import TOO_LONG, Engine, ScanUnfinished, ignored
from .maintenance import expiry
from .records import ENVELOPE
from .views import text_before
from .writer import Writer

_STRIDE = 1024
#: Pairs of a page that is read without blocking, those that are tried where the limit is larger, and their bytes.
PAIRS_NOW, PAIRS_TRIED, _BYTES_NOW = 256, 128, 262_144
#: Seconds that such a page has, and pairs after which that is looked at.
_SECONDS_NOW, _STRIDE_NOW = 0.002, 16
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
            return Page([], b"")
        most, room = self.pairs_now(command), min(command.budget, _BYTES_NOW)
        until = time.monotonic() + _SECONDS_NOW
        items: list[tuple[bytes, bytes]] = []
        size, now = 0, self._clock.now_ms()
        try:
            for position, (key, stored) in enumerate(self._engine.scan(start, end, until=-math.inf)):
                if position % _STRIDE_NOW == 0 and (time.monotonic() > until or position > 2 * most):
                    return None
                if stored and stored[0] == ENVELOPE:
                    record = records.decode(stored)
                    if expiry.is_expired(record.expires_at_ms, now) and self._clock.is_marked(record.expires_at_ms):
                        continue
                    if record.pointer is not None or expiry.is_expired(record.expires_at_ms, now):
                        return None  # the value is in a file; or the clock's mark has to be written first
                    stored = record.value
                if len(items) == most:
                    return Page(items, items[-1][0]) if most == command.limit else None
                if command.keys_only:
                    stored = b""
                size += len(key) + len(stored) + ENTRY_OVERHEAD
                if size > room:
                    return None
                items.append((key, stored))
        except ScanUnfinished:
            return None
        return Page(items, b"")

    def scan(self, command: Scan) -> Page:
        """The page that `command` asks for. With a limit or a cursor it ends before its time is over, too.

        Without either it raises DeadlineExceeded then.
        """
        cursor, limit, deadline = command.cursor, command.limit, command.deadline
        start, end = _range(command)
        if end is not None and start >= end:
            return Page([], b"")
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
        return _cut(wanted, page.items, max(lowest, renewed[0]))

    def _read(self, wanted: _Wanted, among_deleted: float, renewed: Callable[[bytes], object] = ignored) -> Page:
        """The page, by one scan of the engine, which gets `among_deleted` as `until`, and `renewed`."""
        now, expired = self._clock.now_ms(), 0
        limit, keys_only, budget, paged = wanted.limit, wanted.keys_only, wanted.budget, wanted.paged
        items: list[tuple[bytes, bytes]] = []
        size = 0
        try:
            with self._files.reading():  # before the view is taken: its files must stay
                pairs = self._engine.scan(wanted.start, wanted.end, until=among_deleted, renewed=renewed)
                for position, (key, stored) in enumerate(pairs):
                    if not position % _STRIDE and time.monotonic() > wanted.until:
                        return _early(wanted, items, key)
                    record = None
                    value_bytes = len(stored)
                    if stored and stored[0] == ENVELOPE:
                        record = records.decode(stored)
                        if expiry.is_expired(record.expires_at_ms, now):
                            expired = max(expired, record.expires_at_ms)
                            continue
                        value_bytes = record.pointer.length if record.pointer else len(record.value)
                    size += len(key) + ENTRY_OVERHEAD + (0 if keys_only else value_bytes)
                    if size > budget and not paged:
                        raise too_large(budget)
                    if (limit and len(items) == limit) or (size > budget and items):
                        return Page(items, items[-1][0])
                    if keys_only:
                        stored = b""
                    elif record is not None:
                        stored = self._files.value(record)
                    items.append((key, stored))
        except ScanUnfinished as unfinished:
            if among_deleted < wanted.until:
                raise
            return _early(wanted, items, unfinished.reached)
        finally:
            if expired:
                self._clock.tell(expired)
        return Page(items, b"")


def _range(command: Scan) -> tuple[bytes, bytes | None]:
    """Where the keys that it asks for begin and end."""
    prefix, cursor = command.prefix, command.cursor
    return max(prefix, cursor + b"\0") if cursor else prefix, prefix_end(prefix)


def _early(wanted: _Wanted, items: list[tuple[bytes, bytes]], before: bytes) -> Page:
    """The part of a page before that key, since its time is over. Raises DeadlineExceeded when that is none."""
    page = _cut(wanted, items, before)
    if page is None:
        raise DeadlineExceeded(TOO_LONG)
    return page


def _cut(wanted: _Wanted, items: list[tuple[bytes, bytes]], before: bytes) -> Page | None:
    """The part of a page before that key; None when it may not end early, or that would be no step forward."""
    kept = [item for item in items if item[0] < before]
    cursor = max(text_before(before), kept[-1][0] if kept else b"")
    return Page(kept, cursor) if wanted.paged and cursor >= wanted.start and cursor else None


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key after all those that start with `prefix`, or None when there is no such key."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
