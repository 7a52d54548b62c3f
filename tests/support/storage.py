"""A store with everything around it, over one engine and one manual clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kvtwisted.backends.local import records
from kvtwisted.backends.local.apart import Apart
from kvtwisted.backends.local.cache import HotCache
from kvtwisted.backends.local.deciding_write import DecidingWrite
from kvtwisted.backends.local.engines.engine import DATA, EXPIRY
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.backends.local.maintenance import expiry
from kvtwisted.backends.local.maintenance.expiry import Sweeper
from kvtwisted.backends.local.maintenance.scrub import Scrub
from kvtwisted.backends.local.recency import Recency
from kvtwisted.backends.local.store import Store
from kvtwisted.backends.local.writer import Writer
from kvtwisted.commands.command import Command, WriteCommand
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.delete_range import DeleteRange
from kvtwisted.commands.get import Found, Get
from kvtwisted.commands.mdelete import MDelete
from kvtwisted.commands.mget import MGet
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.scan import Page, Scan
from kvtwisted.commands.set import Set
from kvtwisted.core.limits import Limits

from .clocks import ManualClock
from .engines import FaultyEngine, memory_engine

#: A budget that no test's answer exceeds.
PLENTY = 1 << 30


class BlockingStore(Store):
    """A store whose commands are carried out at once, on the thread that asks; what is wrong is raised."""

    def __init__(self, *args: Any, limits: Limits | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.limits = limits or Limits()

    def run(self, command: Command) -> Any:
        """The result."""
        command.check(self.limits)
        if isinstance(command, DeleteRange):
            return self.delete_range(command, lambda error: None)
        if isinstance(command, WriteCommand):
            write = self.prepare(command)
            self.writer.write_all([write])
            if isinstance(write, DecidingWrite) and not write.settled:
                Apart(self.writer, write).settle()
            write.check()
            if isinstance(write, DecidingWrite):
                write.complete()
            return command.result
        return self.read(command)

    def set(self, key: bytes, value: bytes, ttl: int = 0, deadline: float = math.inf) -> None:
        """See `Set`."""
        self.run(Set(key, value, ttl, deadline))

    def get(self, key: bytes) -> Found | None:
        """See `Get`."""
        found: Found | None = self.run(Get(key))
        return found

    def delete(self, key: bytes, *, deadline: float = math.inf) -> None:
        """See `Delete`."""
        self.run(Delete(key, deadline))

    def mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = math.inf) -> None:
        """See `MSet`."""
        self.run(MSet(pairs, ttl, deadline))

    def mget(self, keys: Sequence[bytes], *, budget: int) -> dict[bytes, bytes]:
        """See `MGet`."""
        found: dict[bytes, bytes] = self.run(MGet(keys, budget=budget))
        return found

    def mdelete(self, keys: Sequence[bytes], *, deadline: float = math.inf) -> None:
        """See `MDelete`."""
        self.run(MDelete(keys, deadline))

    def scan(self, prefix: bytes, **options: Any) -> Page:
        """See `Scan`."""
        page: Page = self.run(Scan(prefix, **options))
        return page


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
        self.store = BlockingStore(self.engine, self.writer, self.clock, limits=self._limits, recency=self.recency)
        self.restart_sweeper()

    def restart_sweeper(self) -> None:
        """A sweeper, and a scrub, that have seen nothing yet."""
        self.sweeper = Sweeper(self.engine, self.writer.commits, self.clock)
        self.scrub = Scrub(self.engine, self.writer.commits, self.clock)

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
