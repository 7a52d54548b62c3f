"""The store against a dict: whatever is done in whatever order, both show the same."""

from __future__ import annotations

import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvtwisted.backends.local import records
from kvtwisted.backends.local.cache import ENTRY_COST
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.commands.command import ENTRY_OVERHEAD
from kvtwisted.commands.get import Found
from kvtwisted.core.options import EngineOptions

from ...support.engines import FaultyEngine, memory_engine
from ...support.properties import repeatable_machine
from ...support.storage import PLENTY, Storage

_keys = st.sampled_from([text.encode() for text in ("a", "a/", "a/1", "a/é", "a/\U0001f600", "a0", "b", "b/1")])
_prefixes = st.sampled_from([b"", b"a", b"a/", b"b/", b"c"])
_values = st.sampled_from([b"", b"1", b"value", "\U0001f600".encode(), b"x" * 40])
_ttls = st.sampled_from([0, 0, 1, 2, 5])


class StoreMachine(RuleBasedStateMachine):
    """Operations, time, clock steps, sweeps and restarts. The model keeps each key's value and deadline (0: none)."""

    cache_bytes = 0

    @initialize()
    def begin(self) -> None:
        """An empty store."""
        self.storage = Storage(self.new_engine(), cache_bytes=self.cache_bytes)
        self.model: dict[bytes, tuple[bytes, int]] = {}
        self.now = self.storage.clock.now_ms()
        self.marked = 0

    def new_engine(self) -> FaultyEngine:
        """An empty engine."""
        return memory_engine()

    def reopened_engine(self) -> FaultyEngine:
        """The engine as the next run of the server finds it."""
        return self.storage.engine

    def live(self) -> dict[bytes, bytes]:
        """What the model shows now, in key order."""
        shown = {key: value for key, (value, deadline) in self.model.items() if not self.expired(deadline)}
        return dict(sorted(shown.items()))

    def expired(self, deadline: int) -> bool:
        """Whether a deadline has come."""
        return deadline != 0 and deadline <= self.now

    def deadline(self, ttl: int) -> int:
        """When a key that is set now expires."""
        return self.now + 1000 * ttl if ttl else 0

    # Operations.

    @rule(key=_keys, value=_values, ttl=_ttls)
    def set(self, key: bytes, value: bytes, ttl: int) -> None:
        """Set."""
        self.storage.store.set(key, value, ttl)
        self.model[key] = (value, self.deadline(ttl))

    @rule(pairs=st.dictionaries(_keys, _values, max_size=4), ttl=_ttls)
    def mset(self, pairs: dict[bytes, bytes], ttl: int) -> None:
        """MSet."""
        self.storage.store.mset(pairs, ttl)
        self.model.update({key: (value, self.deadline(ttl)) for key, value in pairs.items()})

    @rule(key=_keys)
    def delete(self, key: bytes) -> None:
        """Delete."""
        self.storage.store.delete(key)
        self.model.pop(key, None)

    @rule(keys=st.lists(_keys, max_size=4))
    def mdelete(self, keys: list[bytes]) -> None:
        """MDelete."""
        self.storage.store.mdelete(keys)
        for key in keys:
            self.model.pop(key, None)

    @rule(key=_keys)
    def get(self, key: bytes) -> None:
        """Get shows the value and the seconds left, rounded up."""
        found = self.storage.store.get(key)
        if key not in self.live():
            assert found is None
            return
        value, deadline = self.model[key]
        left = -(-(deadline - self.now) // 1000) if deadline else 0
        assert found == Found(value, left)

    @rule(keys=st.lists(_keys, max_size=6))
    def mget(self, keys: list[bytes]) -> None:
        """MGet shows what is there, in the order asked."""
        live = self.live()
        expected = [(key, live[key]) for key in dict.fromkeys(keys) if key in live]
        assert list(self.storage.store.mget(keys, budget=PLENTY).items()) == expected

    @rule(prefix=_prefixes, limit=st.integers(0, 4), cursor=st.one_of(st.just(b""), _keys), keys_only=st.booleans())
    def scan(self, prefix: bytes, limit: int, cursor: bytes, keys_only: bool) -> None:
        """A scan shows one page of what lies between, and says whether there is more."""
        items = [(key, b"" if keys_only else value) for key, value in self.live().items()]
        items = [(key, value) for key, value in items if key.startswith(prefix) and key > cursor]
        page = self.storage.store.scan(prefix, cursor=cursor, limit=limit, keys_only=keys_only, budget=PLENTY)
        expected = items[:limit] if limit else items
        assert page.items == expected
        assert page.next_cursor == (expected[-1][0] if len(items) > len(expected) else b"")

    @rule(prefix=_prefixes, budget=st.integers(1, 200))
    def scan_in_pages(self, prefix: bytes, budget: int) -> None:
        """Pages by budget make up the whole, and none but a single entry exceeds the budget."""
        items: list[tuple[bytes, bytes]] = []
        cursor = b""
        while True:
            page = self.storage.store.scan(prefix, cursor=cursor, limit=100, budget=budget)
            size = sum(len(key) + len(value) + ENTRY_OVERHEAD for key, value in page.items)
            assert size <= budget or len(page.items) == 1
            items += page.items
            cursor = page.next_cursor
            if not cursor:
                break
        assert items == [(key, value) for key, value in self.live().items() if key.startswith(prefix)]

    # Time.

    @rule(ms=st.sampled_from([1, 250, 999, 1000, 1001, 4000]))
    def advance(self, ms: int) -> None:
        """Time passes."""
        self.storage.time.advance(ms)
        self.now = max(self.now + ms, self.storage.time.wall_ms)

    @rule(ms=st.sampled_from([-3_600_000, -1000, -1, 1, 1500]))
    def step(self, ms: int) -> None:
        """The wall clock is set: forward counts, back does not."""
        self.storage.time.step_wall(ms)
        self.now = max(self.now, self.storage.time.wall_ms)

    # What the server does by itself.

    @rule(slice_size=st.integers(1, 5))
    def sweep(self, slice_size: int) -> None:
        """A slice deletes only what has expired, and nothing else."""
        swept = self.storage.sweeper.sweep(slice_size)
        assert len(swept.deleted) <= slice_size
        for key in swept.deleted:
            assert self.expired(self.model.pop(key)[1])

    @rule()
    def sweep_all(self) -> None:
        """Slices to the end leave nothing expired, in records or index."""
        self.storage.restart_sweeper()
        more = True
        while more:
            swept = self.storage.sweeper.sweep(2)
            more = swept.more
            for key in swept.deleted:
                assert self.expired(self.model.pop(key)[1])
        assert not [key for key, (_, deadline) in self.model.items() if self.expired(deadline)]
        assert not [entry for entry in self.storage.index() if self.expired(entry[0])]

    @rule()
    def mark(self) -> None:
        """The clock mark is written."""
        self.storage.store.metadata.mark_clock()
        self.marked = self.now

    @rule()
    def restart(self) -> None:
        """A new run knows the wall clock and the mark, which is not before any deadline that has been seen to pass."""
        self.storage.engine = self.reopened_engine()
        self.storage.restart()
        now = self.storage.clock.now_ms()
        assert max(self.storage.time.wall_ms, self.marked) <= now <= self.now
        self.now = now

    # What always holds.

    @invariant()
    def shows_the_model(self) -> None:
        """One scan shows exactly the model, and the clock agrees."""
        assert self.storage.clock.now_ms() == self.now
        assert self.storage.store.scan(b"", budget=PLENTY).items == list(self.live().items())
        passed = [deadline for _, deadline in self.model.values() if self.expired(deadline)]
        self.marked = max(self.marked, *passed, 0)

    @invariant()
    def stores_the_model(self) -> None:
        """Records are the model's, byte for byte, and each deadline can be found by the sweeper."""
        assert self.storage.data() == {key: records.encode(*entry) for key, entry in self.model.items()}
        assert {(deadline, key) for key, (_, deadline) in self.model.items() if deadline} <= set(self.storage.index())


class CachedMachine(StoreMachine):
    """The same with a hot cache that has room for a few of the keys."""

    cache_bytes = 8 * (ENTRY_COST + 50)


class RocksdictMachine(StoreMachine):
    """The same on a disk, where a restart closes and opens the folder."""

    def new_engine(self) -> FaultyEngine:
        """A new folder."""
        self.folder = tempfile.mkdtemp(prefix="kvtwisted-model-")
        return self._open()

    def reopened_engine(self) -> FaultyEngine:
        """The same folder."""
        self.storage.engine.close()
        return self._open()

    def teardown(self) -> None:
        """Remove the folder."""
        self.storage.engine.close()
        shutil.rmtree(self.folder)

    def _open(self) -> FaultyEngine:
        return FaultyEngine(open_engine("rocksdict", self.folder, EngineOptions()))


TestStoreModel = StoreMachine.TestCase
TestStoreModel.settings = repeatable_machine

TestCachedStoreModel = CachedMachine.TestCase
TestCachedStoreModel.settings = repeatable_machine

TestStoreModelOnDisk = RocksdictMachine.TestCase
TestStoreModelOnDisk.settings = settings(repeatable_machine, max_examples=10)
