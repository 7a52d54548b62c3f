"""What a ScanStream is read from: one view, page by page.

Note [The end of a view]: what a view shows must be kept for it, in RocksDB's files and in those of large values,
however much of it has been replaced since. So a view lives for some time at most (`limits.max_snapshot_seconds`), and
ends when the database is opened anew. The stream then ends too, with a cursor: whoever goes on from it sees a later
view.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import repeat

from ...commands.command import ENTRY_OVERHEAD
from ...commands.scan import Page
from ...commands.scan_stream import ScanStream
from ...core.clock import Clock
from ...core.errors import Unavailable, Unsupported
from . import records
from .engines.engine import Engine, Pairs
from .large_values import Reading, ValueFiles
from .maintenance import expiry
from .records import ENVELOPE

#: Pairs that are read at a time.
_PAIRS = 512

Pair = tuple[bytes, bytes]


class StreamView:
    """What one stream reads: pairs of its range from one view. Blocks; for one thread at a time."""

    def __init__(self, engine: Engine, files: ValueFiles, clock: Clock, command: ScanStream, revision: int) -> None:
        """Takes the view: it shows all up to `revision` at least. Raises StorageError and Unsupported."""
        if command.reverse:
            raise Unsupported("reverse: this server streams forward only")
        wanted = command.range
        start = max(wanted.start, command.cursor + b"\0") if command.cursor else wanted.start
        self.revision = revision
        self._files = files
        self._clock = clock
        self._budget = command.budget
        self._left = command.limit or -1
        # The last key that was given: where whoever has to begin anew goes on.
        self._reached = command.cursor
        self._waiting: deque[Pair] = deque()
        self._is_renewed = False
        self._pairs: Pairs | None = None
        self._reading: Reading | None = None
        if wanted.end is None or start < wanted.end:
            self._reading = files.reading()
            self._reading.__enter__()  # before the view is taken: its files must stay
            try:
                self._pairs = engine.scan(start, wanted.end, renewed=self._renewed)
            except BaseException:
                self.close()
                raise

    def _renewed(self, key: bytes) -> None:
        self._is_renewed = True

    @property
    def is_over(self) -> bool:
        """Whether there are no more pairs."""
        return self._pairs is None

    def close(self) -> None:
        """Let go of the view."""
        self._pairs = None
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.__exit__()

    def page(self, *, give_up: bool = False) -> Page:
        """The next pairs; with `give_up`, or if the view is lost, an empty page with a cursor, as the last."""
        page = _Gathered(self._budget)
        now, expired = self._clock.now_ms(), 0
        try:
            while not give_up:
                try:
                    pairs = self._take()
                except Unavailable:
                    give_up = True  # the database is opened anew, or closed
                    break
                if self._is_renewed:
                    self._waiting.clear()
                    give_up = True
                    break
                if not pairs:
                    self.close()
                    break
                if page.add_all(pairs):
                    continue
                for at, (key, stored) in enumerate(pairs):
                    value, ends = stored, 0
                    if stored and stored[0] == ENVELOPE:
                        record = records.decode(stored)
                        ends = record.expires_at_ms
                        if expiry.is_expired(ends, now):
                            expired = max(expired, ends)
                            continue
                        value = self._files.value(record)
                    if not page.add(key, value, ends):
                        self._waiting.extend(pairs[at:])
                        break
                if self._waiting:
                    break
        finally:
            if expired:
                self._clock.tell(expired)
        return self._finished(page, give_up)

    def _take(self) -> Sequence[Pair]:
        if self._waiting:
            waiting = list(self._waiting)
            self._waiting.clear()
            return waiting
        return () if self._pairs is None else self._pairs.take(_PAIRS)

    def _finished(self, page: _Gathered, give_up: bool) -> Page:
        keys, values, expiries = page.keys, page.values, page.expiries
        if 0 < self._left <= len(keys):
            del keys[self._left :], values[self._left :], expiries[self._left :]
            give_up = False
            self.close()
        self._left -= len(keys)
        if keys:
            self._reached = keys[-1]
        if give_up:
            self.close()
            if not self._reached:
                raise Unavailable("the stream's view was lost before it had shown anything; try again")
        cursor = self._reached if give_up else b""
        return Page(keys, values, cursor, expiries if any(expiries) else (), revision=self.revision)


class _Gathered:
    """What a part has so far."""

    def __init__(self, budget: int) -> None:
        self._room = budget
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.expiries: list[int] = []

    def add_all(self, pairs: Sequence[Pair]) -> bool:
        """Add these as they are stored, if there is room for all, and none has an envelope; else do nothing.

        It unrolls `add` for each. Returns whether they were added.
        """
        keys, values = zip(*pairs)
        joined = b"".join(values)
        size = len(joined) + len(b"".join(keys)) + ENTRY_OVERHEAD * len(keys)
        if size > self._room or ENVELOPE in joined:
            return False
        self._room -= size
        self.keys += keys
        self.values += values
        self.expiries += repeat(0, len(keys))
        return True

    def add(self, key: bytes, value: bytes, expires_at_ms: int) -> bool:
        """Add one, if there is room, or it is the first. Returns whether it was added."""
        self._room -= len(key) + len(value) + ENTRY_OVERHEAD
        if self._room < 0 and self.keys:
            return False
        self.keys.append(key)
        self.values.append(value)
        self.expiries.append(expires_at_ms)
        return True
