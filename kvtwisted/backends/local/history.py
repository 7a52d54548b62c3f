"""The last commits, in memory: what Watches are told of.

Note [History costs writers little]: every write of every client pays for this, whether anybody watches or not. So a
batch leaves one entry, which refers to the changes that were made for the engine anyway, and its bytes are added up
from sizes that are known. What the commits in it were is found out by who reads it.

An entry is written once, under the lock of the commit point, before the revision of its commits is known to anybody;
the reactor thread reads without the lock. Entries have numbers in a row, so that a reader is a number, and finds out by
itself that it was left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

from ...commands.command import Change
from ...commands.ranges import KeyRange
from ...commands.watch import EventType

if TYPE_CHECKING:
    from .write import Write

#: Bytes of entries that are kept, unless told otherwise, and while anybody watches at least.
HISTORY_BYTES, LIVE_BYTES = 16 * 1_048_576, 4 * 1_048_576
#: What an entry takes beside its changes, what a change does beside its key and value, and what a key does alone: the
#: objects that they are made of.
ENTRY_BYTES, CHANGE_BYTES, KEY_BYTES = 400, 180, 50
#: Entries that were dropped and still have their place in the list, at most as many as others.
_DROPPED = 512

#: Makes an Entry in half the time that the class itself takes.
_entry = tuple.__new__

#: Changes of a write, as many of them as belong to each of its commits (None: one to each), and how many commits.
Written = tuple[Sequence[Change], Optional[Sequence[int]], int]


class Entry(NamedTuple):
    """What one batch did: writes, keys that were removed together, or a range that was. `last` is its last revision."""

    last: int
    size: int
    happened: Sequence[Written] | Removed | KeyRange


class Removed(NamedTuple):
    """Keys that the server itself removed, in one commit."""

    type: EventType
    keys: Sequence[bytes]


class Happening(NamedTuple):
    """One event of a commit. `value` is that of a SET, and of a DELETE_RANGE its end (None: at the last key)."""

    revision: int
    type: EventType
    key: bytes
    value: bytes | None
    expires_at_ms: int
    #: Whether it is the last one of its commit.
    is_last: bool


class History:
    """The entries. Written under the commit point's lock; read by the reactor thread."""

    def __init__(self, revision: int, max_bytes: int = HISTORY_BYTES) -> None:
        """Nothing after this revision was forgotten yet. `max_bytes` are those of its entries, of which the last one
        is kept whatever it has. It may be changed at any time."""
        self.max_bytes = max_bytes
        #: What came after this revision is here, and nothing else; and the last one.
        self.begin = self.last = revision
        #: What the entries take.
        self.bytes = 0
        #: The number of the first entry in the list, and the list: those that were dropped are None.
        self.window: tuple[int, list[Entry | None]] = 0, []
        self._dropped = 0
        #: Called, under the lock, when there is something new, if anybody watches. Must not raise.
        self.wake: Callable[[], None] | None = None

    # For the commit point, under its lock.

    def add_writes(self, writes: Sequence[Write], last: int) -> None:
        """A batch of writes went in; their last revision."""
        size = ENTRY_BYTES
        written: list[Written] = []
        for write in writes:
            changes = write.changes
            size += write.size + CHANGE_BYTES * len(changes)
            written.append((changes, write.parts, write.commits))
        self._add(_entry(Entry, (last, size, written)))

    def add_removed(self, type: EventType, keys: Sequence[bytes], last: int) -> None:
        """Keys were removed, in one commit."""
        size = ENTRY_BYTES + KEY_BYTES * len(keys) + sum(map(len, keys))
        self._add(Entry(last, size, Removed(type, keys)))

    def add_range(self, range: KeyRange, last: int) -> None:
        """A range was removed, in one commit."""
        self._add(Entry(last, ENTRY_BYTES, range))

    def begin_anew(self, revision: int) -> None:
        """What happened up to this revision is not known: whoever watches has to begin anew."""
        first, entries = self.window
        # No reader has the number of the first entry there will be.
        self.window = first + len(entries) + 1, []
        self._dropped = self.bytes = 0
        self.begin = self.last = revision
        if self.wake is not None:
            self.wake()

    def _add(self, entry: Entry) -> None:
        self.last, size, _ = entry
        limit, wake = self.max_bytes, self.wake
        if limit < LIVE_BYTES and wake is not None:
            limit = LIVE_BYTES
        self.window[1].append(entry)
        self.bytes += size
        if self.bytes > limit:
            self._drop(limit)
        if wake is not None:
            wake()

    def _drop(self, limit: int) -> None:
        """Forget the first entries, but not the last one."""
        first, entries = self.window
        place, end, left = self._dropped, len(entries) - 1, self.bytes
        while left > limit and place < end:
            entry = entries[place]
            assert entry is not None  # noqa: S101 - those that were dropped lie before
            self.begin, size, _ = entry
            left -= size
            entries[place] = None
            place += 1
        self._dropped, self.bytes = place, left
        if place > _DROPPED and 2 * place > len(entries):
            self.window = first + place, entries[place:]
            self._dropped = 0

    # For the reactor thread.

    @property
    def present(self) -> tuple[int, int]:
        """The number of the next entry, and the last revision before it."""
        first, entries = self.window
        end = len(entries)
        entry = entries[end - 1] if end else None
        return first + end, self.begin if entry is None else entry.last

    @property
    def end(self) -> int:
        """The number of the next entry."""
        first, entries = self.window
        return first + len(entries)

    def is_pressing(self, number: int) -> bool:
        """Whether who watches and has come to that entry will soon be left behind: half of what is kept lies before."""
        left = max(self.max_bytes, LIVE_BYTES) // 2
        if self.bytes <= left:
            return False
        first, entries = self.window
        for place in range(max(number - first, 0), len(entries)):
            entry = entries[place]
            left -= 0 if entry is None else entry.size
            if left < 0:
                return True
        return False

    def entry(self, number: int) -> Entry | None:
        """The entry with a number below `end`; None: it is no longer there."""
        first, entries = self.window
        return entries[number - first] if number >= first else None

    def find(self, revision: int) -> tuple[int, int] | None:
        """Where that begins which came after a revision: an entry's number, and how many of its events come before.

        None if it is not all there.
        """
        first, entries = self.window
        low, high = 0, len(entries)
        while low < high:
            middle = (low + high) // 2
            entry = entries[middle]
            if entry is None or entry.last <= revision:
                low = middle + 1
            else:
                high = middle
        if self.begin > revision:  # also if it was only dropped while this looked
            return None
        entry = entries[low] if low < len(entries) else None
        before = 0
        if entry is not None:
            for happening in events_of(entry):
                if happening.revision > revision:
                    break
                before += 1
        return first + low, before


def events_of(entry: Entry, start: int = 0) -> Iterator[Happening]:
    """All events of an entry from that one on, in order."""
    last, _, happened = entry
    if isinstance(happened, Removed):
        for place in range(start, len(happened.keys)):
            is_last = place == len(happened.keys) - 1
            yield Happening(last, happened.type, happened.keys[place], None, 0, is_last)
    elif isinstance(happened, KeyRange):
        if not start:
            yield Happening(last, EventType.DELETE_RANGE, happened.start, happened.end, 0, True)
    else:
        revision = last - sum([commits for _, _, commits in happened])
        for changes, parts, commits in happened:
            if start >= len(changes):
                start -= len(changes)
                revision += commits
                continue
            if parts is None:
                parts = (len(changes),) if commits == 1 else ()
            yield from _events_of_write(revision, changes, parts, start)
            start = 0
            revision += commits


def _events_of_write(revision: int, changes: Sequence[Change], parts: Sequence[int], start: int) -> Iterator[Happening]:
    """Those of one write from that one on; without `parts` each is a commit."""
    set_, delete = EventType.SET, EventType.DELETE
    if not parts:
        for place in range(start, len(changes)):
            key, value, expires_at_ms = changes[place]
            yield Happening(revision + place + 1, delete if value is None else set_, key, value, expires_at_ms, True)
        return
    end = 0
    for part in parts:
        begin, end = end, end + part
        revision += 1
        for place in range(max(begin, start), end):
            key, value, expires_at_ms = changes[place]
            type = delete if value is None else set_
            yield Happening(revision, type, key, value, expires_at_ms, place == end - 1)
