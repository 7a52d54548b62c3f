"""The hot cache: values by key in memory, so that reading a hot key needs no RocksDB, no lock and no thread.

Note [The writer keeps the cache coherent]: the cache is coherent by construction. Only `CommitPoint` changes it, under
the lock under which it changes the engine: a written key's entry is blanked before the engine has the write, and filled
after. What a reader brings from the engine is let in only if no write has begun or ended since it began to read
(`CommitPoint.version`).

Entries leave by CLOCK (second chance): a queue in order of entry, whose head is removed unless it was used since its
last turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ...commands.command import Change
from ...commands.get import Found
from ...commands.ranges import KeyRange

if TYPE_CHECKING:
    from .write import Write

#: Bytes that an entry costs beside its key and value: two bytes objects, the entry, and its place in the table.
ENTRY_COST = 320

#: Makes a Found in half the time that the class itself takes.
_new = tuple.__new__


class Entry:
    """What is cached of a key. A reader looks at each field once, and sets `used`.

    `answer` is what Get gives when the key never expires (making it costs more than finding it); otherwise `expiring`
    has the value and its deadline in ms since 1970. While the key is being written both are None.
    """

    __slots__ = ("answer", "cost", "expiring", "used")

    def __init__(self) -> None:
        self.answer: Found | None = None
        self.expiring: tuple[bytes, int] | None = None
        self.used = False
        self.cost = 0


class HotCache:
    """At most `max_bytes` of entries; 0 turns it off. `entries.get` may be called on any thread without a lock.

    Everything else is for the commit point, under its lock.
    """

    def __init__(self, max_bytes: int) -> None:
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.max_bytes = max_bytes
        #: Bytes of the entries, with ENTRY_COST for each.
        self.size = 0

    def resize(self, max_bytes: int) -> None:
        """Change the limit; what is over it leaves at once."""
        self.max_bytes = max_bytes
        self._shrink()

    def blank(self, key: bytes) -> Entry | None:
        """The key is about to be written: whoever reads it asks the engine, until its entry is filled or dropped."""
        entry = self.entries.get(key)
        if entry is not None:
            entry.answer = entry.expiring = None
        return entry

    def blank_all(self, writes: Iterable[Write]) -> dict[bytes, tuple[Entry, Change]]:
        """Their changes are about to be written: blank what is here of them. Gives it, for `fill_all`."""
        get = self.entries.get
        blanked: dict[bytes, tuple[Entry, Change]] = {}
        for write in writes:
            for change in write.changes:
                entry = get(change[0])
                if entry is not None:
                    entry.answer = entry.expiring = None
                    # Of several changes of one key the last one counts: nobody may see the others after it.
                    blanked[change[0]] = entry, change
        return blanked

    def fill_all(self, blanked: Mapping[bytes, tuple[Entry, Change]]) -> None:
        """The engine holds these changes now."""
        for entry, (key, value, expires_at_ms) in blanked.values():
            if value is None:
                self.drop(key)
            elif expires_at_ms or entry.cost != len(key) + len(value) + ENTRY_COST:
                self.fill(entry, key, value, expires_at_ms)
            else:
                entry.answer = _new(Found, (value, 0))  # what `fill` would do, without the call

    def fill(self, entry: Entry, key: bytes, value: bytes, expires_at_ms: int) -> None:
        """The engine holds this value now. `entry` is the key's, or a new one, or one that was dropped."""
        cost = len(key) + len(value) + ENTRY_COST
        if cost != entry.cost and not self._make_room(entry, key, cost):
            return
        if expires_at_ms:
            entry.expiring = (value, expires_at_ms)
        else:
            entry.answer = _new(Found, (value, 0))

    def put(self, key: bytes, value: bytes, expires_at_ms: int) -> None:
        """Let a key in; the engine holds this value now."""
        self.fill(self.blank(key) or Entry(), key, value, expires_at_ms)

    def drop(self, key: bytes) -> None:
        """Forget a key."""
        entry = self.entries.pop(key, None)
        if entry is not None:
            entry.answer = entry.expiring = None
            self.size -= entry.cost
            entry.cost = 0

    def drop_range(self, range: KeyRange) -> None:
        """Forget the keys of a range."""
        for key in [key for key in self.entries if range.has(key)]:
            self.drop(key)

    def _make_room(self, entry: Entry, key: bytes, cost: int) -> bool:
        # One value must not push out all that is hot.
        if cost * 8 > self.max_bytes:
            self.drop(key)
            return False
        if not entry.cost:
            self.entries[key] = entry
        self.size += cost - entry.cost
        entry.cost = cost
        self._shrink()
        return entry.cost > 0

    def _shrink(self) -> None:
        while self.size > self.max_bytes:
            key, entry = next(iter(self.entries.items()))
            if entry.used:
                entry.used = False
                self.entries.move_to_end(key)
            else:
                self.drop(key)
