"""A store with everything around it, over one engine and one manual clock."""

from __future__ import annotations

import math

from kvtwisted.core import expiry, records
from kvtwisted.core.cache import HotCache
from kvtwisted.core.engine import DATA, EXPIRY
from kvtwisted.core.expiry import Sweeper
from kvtwisted.core.large_values import ValueFiles
from kvtwisted.core.limits import Limits
from kvtwisted.core.recency import Recency
from kvtwisted.core.scrub import Scrub
from kvtwisted.core.store import Store
from kvtwisted.core.writer import Writer

from .clocks import ManualClock
from .engines import FaultyEngine, memory_engine

#: A budget that no test's answer exceeds.
PLENTY = 1 << 30


class Storage:
    """The parts of a running store, built anew over the same engine and clock by `restart`."""

    def __init__(
        self,
        engine: FaultyEngine | None = None,
        *,
        durable: bool = False,
        limits: Limits | None = None,
        cache_bytes: int = 0,
        files: ValueFiles | None = None,
        spill_threshold: float = math.inf,
    ) -> None:
        self.engine = engine or memory_engine()
        self.time = ManualClock()
        self._durable = durable
        self._limits = limits or Limits()
        self._cache_bytes = cache_bytes
        self._files = files
        self._spill_threshold = spill_threshold
        if files is not None:
            files.prepare()
        self.restart()

    def restart(self) -> None:
        """New parts, which know only what the engine kept."""
        self.clock = self.time.clock()
        self.cache = HotCache(self._cache_bytes)
        self.writer = Writer(
            self.engine, self.cache, self._files, durable=self._durable, spill_threshold=self._spill_threshold
        )
        self.recency = Recency()
        self.store = Store(self.engine, self.writer, self.clock, limits=self._limits, recency=self.recency)
        self.restart_sweeper()

    def restart_sweeper(self) -> None:
        """A sweeper, and a scrub, that have seen nothing yet."""
        self.sweeper = Sweeper(self.engine, self.writer, self.clock)
        self.scrub = Scrub(self.engine, self.writer, self.clock)

    def data(self) -> dict[bytes, bytes]:
        """The records as they are stored."""
        return dict(self.engine.scan(b"", None, DATA))

    def index(self) -> list[tuple[int, bytes]]:
        """Deadline and key of each entry of the expiry index."""
        return [expiry.split_index_key(entry) for entry, _ in self.engine.scan(b"", None, EXPIRY)]

    def value(self, key: bytes) -> bytes | None:
        """What a reader gets at `key`."""
        found = self.store.get(key)
        return None if found is None else found.value

    def put_record(self, key: bytes, value: bytes, expires_at_ms: int) -> None:
        """Store a record behind the store's back, its index entry included."""
        self.engine.write(
            [
                (DATA, key, records.encode(value, expires_at_ms)),
                (EXPIRY, expiry.index_key(expires_at_ms, key), b""),
            ]
        )
