"""Removes entries of the expiry index that no record carries any more, long before their deadline would.

Most such entries go with the write that makes them so (`index_entries`). What is left behind, after a restart or
by more keys than can be remembered, is found here: a hand goes round the index, reads the records, and removes the
entries that belong to none.

Note [Pace of the scrub]: by the entries that may have been left behind since it last moved
(`IndexEntries.doubts`), four for each of them where it has found many, one for eight of them where it has found few. So
a store whose keys are all new pays little; and the useless entries stay within a fixed multiple of the useful ones,
however long keys are refreshed: the hand passes over useless ones four times as fast as they can be made, and useful
ones are as many as keys. The first round after a start, and one after a range of many keys was deleted, owes nothing to
anybody: it goes on in every turn until it is done.

Note [Scrub before an eviction]: a write without a ttl leaves the entry of an earlier ttl behind, and nobody counts
that, since it would cost every such write a look. One entry a key is no matter, until keys would be deleted for the
room that it takes. So an eviction has the hand go round whenever anything was written since its last whole round.
"""

from __future__ import annotations

import threading
import time
from typing import Callable

from ....core.clock import Clock
from ....core.limits import MAX_VALUE_BYTES
from .. import records
from ..commit_point import CommitPoint
from ..engines.engine import EXPIRY, CanCompact, Engine, first_pairs
from ..records import index_start, split_index_key

#: Entries looked at in one step, and records read at once.
SLICE, _READ = 500, 16
#: Steps in one turn: while many are found, and in the first round while few are.
TURN, QUIET_TURN = 200, 4
#: Entries looked at for each that may have been left behind: while many are found, and while few are.
EAGER, QUIET = 4.0, 1 / 8
#: Share of useless entries, in the last few slices, that is many.
MANY = 1 / 8
#: Entries that must have been removed before RocksDB is told to give their space back.
WORTH_COMPACTING = 10_000
#: Seconds that a search before an eviction may take while it finds many, and while it finds few.
PATIENCE, LITTLE_PATIENCE = 10.0, 1.0
#: After every entry: deadlines are far below this.
_AFTER_ALL = b"\xff" * 8


class Scrub:
    """Goes round the expiry index. Blocks on storage; safe from any thread (a second call waits for the first)."""

    def __init__(
        self, engine: Engine, commits: CommitPoint, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._commits = commits
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._hand = b""
        # Entries that may be looked at yet, and the doubts that are reckoned in it.
        self._credit = 0.0
        self._reckoned = 0
        # Doubts when the present round began; the version then, and when the last whole one began (None: there
        # was none).
        self._doubts_then = 0
        self._round_began = 0
        self._clean: int | None = None
        # Floods of entries that were left behind: those that are known of, and those when the round began.
        self._floods = self._floods_then = 0
        # The share of the last slices that was removed.
        self._found = 0.0
        # What was removed since the last compaction, and where.
        self._removed = 0
        self._low, self._high = _AFTER_ALL, b""
        #: Entries removed since the start.
        self.removed = 0

    def turn(self, rest: Callable[[], object] = lambda: None) -> None:
        """Look at as many entries as are due. Calls `rest` after each SLICE of them.

        Raises StorageError and WriteStalled.
        """
        with self._lock:
            doubts = self._commits.index_entries.doubts
            self._credit += (doubts - self._reckoned) * (EAGER if self._many else QUIET)
            self._reckoned = doubts
            floods = self._commits.index_entries.floods
            if floods != self._floods:
                self._floods, self._clean = floods, None
            for step in range(TURN):
                if not (self._credit >= 1 or (self._clean is None and (self._many or step < QUIET_TURN))):
                    break
                self._step()
                rest()
            if self._removed >= WORTH_COMPACTING:
                self._compact()

    def before_eviction(self) -> bool:
        """Look until the whole index has been seen, or for a while; what is found is given back to the disk at once.

        Returns whether many more are to be expected. Nothing is done when nothing was written since the last such
        round. See Note [Scrub before an eviction]. Raises StorageError and WriteStalled.
        """
        with self._lock:
            wanted = self._commits.version
            began = found_at = self._monotonic()
            while dirty := (self._clean is None or self._clean < wanted):
                self._step()
                now = self._monotonic()
                if self._many:
                    found_at = now
                if now - found_at > LITTLE_PATIENCE or now - began > PATIENCE:
                    break
            if self._removed:
                self._compact()
            return dirty and self._many

    @property
    def _many(self) -> bool:
        return self._found >= MANY

    def _step(self) -> None:
        """Look at one slice. At the end of the index the hand goes back to its start."""
        if not self._hand:
            self._doubts_then = self._commits.index_entries.doubts
            self._round_began = self._commits.version
            self._floods_then = self._commits.index_entries.floods
            self._hand = index_start(self._clock.now_ms() + 1)  # what is before that is the sweeper's
        entries = [entry for entry, _ in first_pairs(self._engine.scan(self._hand, None, EXPIRY), SLICE)]
        removed = self._remove_stale(entries)
        if self._clean is not None:
            self._credit -= len(entries)
        self._found += (removed - self._found * len(entries)) / (4 * SLICE)
        if len(entries) == SLICE:
            self._hand = entries[-1] + b"\0"
        else:
            self._hand = b""
            if self._floods_then == self._commits.index_entries.floods:
                self._clean = self._round_began
            # Whatever was left behind before the round is gone.
            self._credit = min(self._credit, (self._reckoned - self._doubts_then) * EAGER)

    def _remove_stale(self, entries: list[bytes]) -> int:
        if not entries:
            return 0
        keys = {entry: split_index_key(entry) for entry in entries}
        with self._commits.guards.keys(key for _, key in keys.values()) as guard:
            stale: dict[bytes, bytes] = {}
            for start in range(0, len(entries), _READ):
                some = entries[start : start + _READ]
                found = self._engine.multi_get([keys[entry][1] for entry in some], _READ * 2 * MAX_VALUE_BYTES)
                for entry, stored in zip(some, found):
                    deadline, key = keys[entry]
                    if not _carries(stored, deadline):
                        stale[entry] = key
            removed = self._commits.unindex_guarded(guard, stale)
        if stale:
            self._low, self._high = min(self._low, min(stale)), max(self._high, max(stale))
            self._removed += removed
            self.removed += removed
        return removed

    def _compact(self) -> None:
        if isinstance(self._engine, CanCompact):
            self._engine.compact(self._low, self._high + b"\0", EXPIRY)
        self._removed = 0
        self._low, self._high = _AFTER_ALL, b""


def _carries(stored: bytes | None, deadline: int) -> bool:
    """Whether a record has that deadline; one that nobody can read might."""
    if stored is None:
        return False
    record = records.readable(stored)
    return record is None or record.expires_at_ms == deadline
