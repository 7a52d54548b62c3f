"""Scans: pages of keys or pairs, each from one consistent view.

Note [Small scans inline]: rocksdict keeps Python's lock while a scan waits for the disk. So a thread helps nobody: all
others wait just as long, and the scan has to wait for the lock besides. A scan of few pairs is made on the reactor
thread. One that turns out to have more goes to the pool, and so does one that takes long, because it needs the disk or
reads over many deleted keys: there the others get their turns between its pairs.

After one that takes long the next is likely to do so, too. So the pool then has all scans for REST times as long as
that took in vain: the reactor loses a fiftieth of its time at most. Without this rest a small Get beside scans over
deleted keys waited twice as long as beside the pool alone.

Note [Folders]: with a delimiter keys that begin with the same text up to it are a folder, one entry of the page. Once a
living key of it was met the scan is sought behind the folder, in the same view, so that it costs the same however many
keys it has. A cursor that is a whole folder says that this is done; one inside of a folder, where a page ended early
over deleted keys before it had met a living one, does not. So no folder is lost or comes twice: a cursor that would say
the wrong of the two is moved to before the folder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

from ...commands.command import ENTRY_OVERHEAD
from ...commands.ranges import KeyRange, prefix_end
from ...commands.scan import Page, Scan, too_large
from ...core.clock import Clock
from ...core.errors import DeadlineExceeded
from . import records
from .engines.engine import TOO_LONG, Crossed, Engine, ScanUnfinished, ignored
from .large_values import ValueFiles
from .maintenance import expiry
from .records import ENVELOPE
from .views import ViewLost, text_after, text_before
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


class Wanted(NamedTuple):
    """Pairs that are asked for: their range, and what bounds them. `paged`: they may end early, with a cursor."""

    start: bytes
    end: bytes | None
    limit: int
    paged: bool
    keys_only: bool
    budget: int
    until: float
    reverse: bool = False
    count_only: bool = False
    with_expiries: bool = False
    #: How many bytes come before what is looked at for a delimiter.
    prefix_bytes: int = 0
    delimiter: bytes = b""

    def folder_of(self, key: bytes) -> bytes:
        """The folder that a key lies in, if any."""
        return folder_of(key, self.prefix_bytes, self.delimiter) if self.delimiter else b""


def folder_of(key: bytes, prefix_bytes: int, delimiter: bytes) -> bytes:
    """The part of a key up to the end of the first delimiter behind so many bytes; empty if there is none."""
    place = key.find(delimiter, prefix_bytes)
    return key[: place + len(delimiter)] if place >= 0 else b""


class PageReader:
    """Scans of checked prefixes. Blocks, but for what says that it does not; safe from any thread."""

    def __init__(self, engine: Engine, writer: Writer, clock: Clock) -> None:
        self._engine = engine
        self._guards = writer.commits.guards
        self._revisions = writer.commits.revisions
        self._files = writer.files
        self._clock = clock
        # Until then (a time of `time.monotonic`) no page is tried without blocking.
        self._resting_until = -math.inf

    def pairs_now(self, command: Scan) -> int:
        """Pairs that `scan_now` reads at most; 0: it is of no use."""
        if self._engine.scans_wait or command.delimiter:
            return 0
        return command.limit if 0 < command.limit <= PAIRS_NOW else PAIRS_TRIED

    def scan_now(self, command: Scan) -> Page | None:
        """What `scan` gives, if it is small and quick, and needs no file; else None.

        See Note [Small scans inline].
        """
        start, end = _range(command)
        revision = self._revisions.last
        if end is not None and start >= end:
            return Page([], [], b"", revision=revision)
        began = time.monotonic()
        if began < self._resting_until:
            return None
        most, room = self.pairs_now(command), min(command.budget, _BYTES_NOW)
        without_values = command.keys_only or command.count_only
        keys: list[bytes] = []
        values: list[bytes] = []
        expiries: dict[int, int] = {}
        size, read, at_once, now = 0, 0, _AT_FIRST_NOW, self._clock.now_ms()
        next_cursor = b""
        try:
            pairs = self._engine.scan(start, end, until=-math.inf, reverse=command.reverse)
            while not next_cursor and (taken := pairs.take(min(at_once, most + 1 - len(keys)))):
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
                        if record.expires_at_ms:
                            expiries[len(keys)] = record.expires_at_ms
                    if len(keys) == most:
                        if most != command.limit:
                            return None
                        next_cursor = keys[-1]
                        break
                    if without_values:
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
        if command.count_only:
            return Page([], [], next_cursor, counted=len(keys), revision=revision)
        dated = command.with_expiries and any(place < len(keys) for place in expiries)
        dates = [expiries.get(place, 0) for place in range(len(keys))] if dated else ()
        return Page(keys, values, next_cursor, dates, revision=revision)

    def _in_vain(self, began: float) -> None:
        """What was begun then has taken long, for nothing. See Note [Small scans inline]."""
        now = time.monotonic()
        self._resting_until = now + REST * (now - began)

    def scan(self, command: Scan) -> Page:
        """The page that `command` asks for. With a limit or a cursor it ends before its time is over, too.

        Without either it raises DeadlineExceeded then.
        """
        limit, deadline = command.limit, command.deadline
        start, end = _range(command)
        if end is not None and start >= end:
            return Page([], [], b"", revision=self._revisions.last)
        until, paged = deadline, bool(limit or command.cursor)
        if paged and deadline < math.inf:
            until -= (1 - _SHARE) * (deadline - time.monotonic())
        wanted = Wanted(
            start, end, limit, paged, command.keys_only or command.count_only, command.budget, until,
            command.reverse, command.count_only, command.with_expiries, len(command.prefix), command.delimiter,
        )  # fmt: skip
        try:
            page = self._read(wanted, -math.inf)
        except ScanUnfinished:  # there are many deleted keys next to each other
            page = self._read_guarded(wanted)
        while page is None:
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    "deleted keys were read over, and others written in between, until the request's time was over; "
                    "ask for less with limit and cursor"
                )
            page = self._read_guarded(wanted)
        return page

    def count(self, range: KeyRange, deadline: float) -> int:
        """The keys of a range that have not expired. Raises DeadlineExceeded."""
        command = Scan(b"", start=range.start, end=range.end or b"", count_only=True, budget=0, deadline=deadline)
        return self.scan(command).counted

    def _read_guarded(self, wanted: Wanted) -> Page | None:
        """The page, or what could be read of it; None for nothing. See Note [One view over deleted keys]."""
        with self._guards.range(wanted.start, wanted.end) as written:
            return self._read(wanted, wanted.until, written.crossing(reverse=wanted.reverse))

    def _read(self, wanted: Wanted, among_deleted: float, crossed: Crossed = ignored) -> Page | None:
        """The page, by one scan of the engine, which gets `among_deleted` as `until`, and `crossed`."""
        gathered = Gathered(wanted, self._files, self._clock.now_ms(), self._revisions.last)
        most = _FEW
        try:
            with self._files.reading():  # before the view is taken: its files must stay
                pairs = self._engine.scan(
                    wanted.start, wanted.end, until=among_deleted, crossed=crossed, reverse=wanted.reverse
                )
                # One more than the page may have tells whether there is more: that gives it a cursor.
                while taken := pairs.take(min(most, gathered.missing)):
                    if time.monotonic() > wanted.until:
                        first = taken[0][0]
                        return _in_time(gathered.early(first + b"\0" if wanted.reverse else first))
                    gathered.add(taken)
                    if gathered.is_full:
                        return gathered.page(gathered.last)
                    if gathered.beyond:
                        pairs.seek(gathered.beyond)
                    elif not wanted.delimiter:
                        most = _MANY
        except ViewLost as lost:
            return gathered.early(lost.reached)
        except ScanUnfinished as unfinished:
            if among_deleted < wanted.until:
                raise
            return _in_time(gathered.early(unfinished.reached))
        finally:
            if gathered.expired:
                self._clock.tell(gathered.expired)
        return gathered.page()


def _in_time(page: Page | None) -> Page:
    """The part of a page, since its time is over. Raises DeadlineExceeded when that is none."""
    if page is None:
        raise DeadlineExceeded(TOO_LONG)
    return page


def _range(command: Scan) -> tuple[bytes, bytes | None]:
    """Where the keys that it asks for begin and end."""
    prefix, cursor = command.prefix, command.cursor
    if not (command.reverse or command.start or command.end or command.delimiter):
        return max(prefix, cursor + b"\0") if cursor else prefix, prefix_end(prefix)
    start, end = command.range
    if cursor and command.reverse:
        end = cursor if end is None else min(cursor, end)
    elif cursor:
        start = max(start, cursor + b"\0")
        if command.delimiter and cursor == folder_of(cursor, len(prefix), command.delimiter):
            start = max(start, prefix_end(cursor) or b"")
    return start, end


class Gathered:
    """What a page has so far."""

    def __init__(self, wanted: Wanted, files: ValueFiles, now: int, revision: int) -> None:
        """It is `now`, in ms since 1970; `revision` is that of the view, or one before it."""
        self._wanted = wanted
        self._files = files
        self._now = now
        self._revision = revision
        #: Bytes of the entries, with ENTRY_OVERHEAD for each.
        self.size = 0
        self._keys: list[bytes] = []
        self._values: list[bytes] = []
        self._expiries: list[int] = []
        # Whether any of them expires, where that is asked for.
        self._is_dated = False
        self._prefixes: list[bytes] = []
        #: Entries that it has: keys, which may only have been counted, and folders.
        self.entries = 0
        #: The last of them.
        self.last = b""
        # The folder that it lies in.
        self._folder = b""
        #: Where the keys behind the last folder begin, as long as nothing behind it was added; in reverse, end.
        self.beyond = b""
        #: Whether there was more than fits in.
        self.is_full = False
        #: The latest deadline of those that were left out since they have expired.
        self.expired = 0

    @property
    def missing(self) -> int:
        """Pairs that can tell whether it is all that is asked for."""
        limit = self._wanted.limit
        return limit - self.entries + 1 if limit else _MANY

    def page(self, next_cursor: bytes = b"") -> Page:
        """The page as far as it has come."""
        wanted = self._wanted
        return Page(
            self._keys, self._values, next_cursor, self._expiries if self._is_dated else (),
            self.entries if wanted.count_only else 0, self._prefixes if wanted.delimiter else (), self._revision,
        )  # fmt: skip

    def early(self, reached: bytes) -> Page | None:
        """The page, which ends early: all before `reached` has been seen. None if it may not, or that is no step."""
        wanted, last = self._wanted, self.last
        if not wanted.paged:
            return None
        if wanted.reverse:
            cursor = text_after(reached)
            if last and (not cursor or cursor > last):
                cursor = last
            is_step = bool(cursor) and (wanted.end is None or cursor < wanted.end)
        else:
            cursor = text_before(reached)
            if self._folder and cursor.startswith(self._folder):
                cursor = self._folder
            elif cursor and reached.startswith(cursor) and cursor == wanted.folder_of(cursor):
                cursor = text_before(cursor)  # it would say that this folder is done
            cursor = max(cursor, last)
            is_step = bool(cursor) and cursor >= wanted.start
        return self.page(cursor) if is_step else None

    def add(self, pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Add these as they are stored, as far as they fit in: all but one at most are within the limit.

        Gives those that did not. Raises ResponseTooLarge when some do not, and the page may not end early.
        """
        limit = self._wanted.limit
        last = [pairs.pop()] if limit and self.entries + len(pairs) > limit else []
        if len(pairs) > _SOME and len(pairs[0][1]) < _SHORT and self._add_all(pairs):
            pairs = []
        pairs += last
        for place, (key, stored) in enumerate(pairs):
            self._add_one(key, stored)
            if self.is_full:
                return pairs[place:]
        return []

    def _add_all(self, pairs: Sequence[tuple[bytes, bytes]]) -> bool:
        """Add these at once, if none has an envelope and there is room for all; else, or if it is not sure, do nothing.

        It unrolls `_add_one` for each. Returns whether they were added.
        """
        wanted = self._wanted
        if wanted.delimiter:
            return False
        keys, values = zip(*pairs)
        joined = b"".join(values)
        if ENVELOPE in joined:
            return False
        if not wanted.count_only:
            size = self.size + len(b"".join(keys)) + ENTRY_OVERHEAD * len(keys)
            size += 0 if wanted.keys_only else len(joined)
            if size > wanted.budget:
                return False
            self.size = size
            self._keys += keys
            self._values += [b""] * len(keys) if wanted.keys_only else values
            if wanted.with_expiries:
                self._expiries += [0] * len(keys)
        self.entries += len(keys)
        self.last = keys[-1]
        return True

    def _add_one(self, key: bytes, stored: bytes) -> None:
        wanted = self._wanted
        record, value_bytes = None, len(stored)
        if self._folder:
            if key.startswith(self._folder):
                return
            self.beyond = b""
        if stored and stored[0] == ENVELOPE:
            record = records.decode(stored)
            if expiry.is_expired(record.expires_at_ms, self._now):
                self.expired = max(self.expired, record.expires_at_ms)
                return
            value_bytes = record.pointer.length if record.pointer else len(record.value)
        folder = wanted.folder_of(key)
        entry = folder or key
        if not wanted.count_only:
            self.size += len(entry) + ENTRY_OVERHEAD + (0 if wanted.keys_only or folder else value_bytes)
        if self.size > wanted.budget and not wanted.paged:
            raise too_large(wanted.budget)
        if (wanted.limit and self.entries == wanted.limit) or (self.size > wanted.budget and self.entries):
            self.is_full = True
            return
        self.entries += 1
        self.last = entry
        self._folder, self.beyond = folder, _beyond(folder, reverse=wanted.reverse)
        if wanted.count_only:
            return
        if folder:
            self._prefixes.append(folder)
            return
        if wanted.keys_only:
            stored = b""
        elif record is not None:
            stored = self._files.value(record)
        self._keys.append(key)
        self._values.append(stored)
        if wanted.with_expiries:
            self._expiries.append(record.expires_at_ms if record is not None else 0)
            self._is_dated = self._is_dated or self._expiries[-1] > 0


def _beyond(folder: bytes, *, reverse: bool) -> bytes:
    if not folder or reverse:
        return folder
    return prefix_end(folder) or b""
