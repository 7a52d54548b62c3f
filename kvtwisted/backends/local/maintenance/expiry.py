"""When keys expire, and the sweeper that deletes those that have.

Times are milliseconds since 1970 by `Clock`. Reading decides by the record alone, so a key is gone at its deadline; the
index column family only tells the sweeper where to look. Its entries are the deadline (8 bytes, big-endian), then the
key. A key that is set again or deleted takes its old entry along (`index_entries`). Where that was left behind,
`scrub` removes it, or the sweeper, which finds that the record no longer carries that deadline.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from ....core.clock import Clock
from .. import records
from ..commit_point import CommitPoint
from ..engines.engine import EXPIRY, Engine, Mutation, first_pairs
from ..records import index_key, index_start, split_index_key

_FULL_SWEEP_MS = 600_000


def expires_at(now_ms: int, ttl: int) -> int:
    """The deadline of a key set now for `ttl` seconds."""
    return now_ms + ttl * 1000


def is_expired(expires_at_ms: int, now_ms: int) -> bool:
    """Whether the deadline has been reached (0: never)."""
    return 0 < expires_at_ms <= now_ms


def seconds_left(expires_at_ms: int, now_ms: int) -> int:
    """Whole seconds until the deadline, rounded up; 0 or less once it has been reached."""
    return -((now_ms - expires_at_ms) // 1000)


class Sweep(NamedTuple):
    """What one sweep did: the keys it deleted, and whether more have expired."""

    deleted: list[bytes]
    more: bool


class Sweeper:
    """Deletes expired keys in slices. Blocks on storage; safe from any thread (a second sweep waits for the first)."""

    def __init__(self, engine: Engine, commits: CommitPoint, clock: Clock) -> None:
        self._engine = engine
        self._commits = commits
        self._clock = clock
        self._lock = threading.Lock()
        # Where the next sweep starts: below lie only tombstones, which are slow to seek over. An entry may still
        # be below (a Set that was held up past its own deadline, or a write that came between and failed), so that a
        # full sweep follows now and then.
        self._floor = b""
        self._full_at = 0
        self._written = 0

    def sweep(self, slice_size: int) -> Sweep:
        """Delete up to `slice_size` expired keys. Raises StorageError; what it did not do stays for the next one."""
        with self._lock:
            now = self._clock.now_ms()
            if now >= self._full_at:
                self._floor, self._full_at = b"", now + _FULL_SWEEP_MS
            entries = self._expired_entries(now, slice_size)
            if not entries:
                self._floor = index_start(now)
                return Sweep([], False)
            # A client that finds them deleted learns that they have expired.
            self._clock.mark(entries[-1][0])
            swept = self._delete(entries, more=len(entries) == slice_size)
            self._floor = index_key(*entries[-1])
            self._written = self._commits.index_entries.written  # these may have been the last ones
            return swept

    def _delete(self, entries: list[tuple[int, bytes]], *, more: bool) -> Sweep:
        condemned: dict[bytes, list[Mutation]] = {}
        stale: list[Mutation] = []
        with self._commits.guards.keys(key for _, key in entries) as guard:
            for deadline, key in entries:
                unindex: Mutation = (EXPIRY, index_key(deadline, key), None)
                stored = self._engine.get(key)
                # What cannot be read is left for whoever reads it to be told; it must not stop the sweeper.
                record = None if stored is None else records.readable(stored)
                if record is not None and record.expires_at_ms == deadline:
                    condemned[key] = [unindex]
                else:
                    stale.append(unindex)
            # A condemned key that is written meanwhile keeps its entry too: the write may fail, and the key stay.
            deleted = self._commits.delete_guarded(guard, condemned, stale)
        return Sweep(deleted, more)

    def pending(self) -> bool:
        """Whether any key has a deadline at all."""
        written = self._commits.index_entries.written
        if written != self._written:  # nor need the index be asked, where refreshed keys leave many tombstones
            self._written = written
            return True
        scan = self._engine.scan(self._floor, None, EXPIRY)
        return next(scan, None) is not None

    def _expired_entries(self, now: int, most: int) -> list[tuple[int, bytes]]:
        scan = self._engine.scan(self._floor, index_start(now + 1), EXPIRY)
        return [split_index_key(entry) for entry, _ in first_pairs(scan, most)]
