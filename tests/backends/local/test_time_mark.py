"""What was told of a key's end stays true: after a crash, and with a wall clock that was set back since."""

from __future__ import annotations

from typing import Callable

import pytest

from kvtwisted.backends.local.engines.engine import META
from kvtwisted.backends.local.maintenance.eviction import EvictionRules, Evictor
from kvtwisted.backends.local.write_sequence import WriteSequence
from kvtwisted.core.clock import Clock
from kvtwisted.core.disk import DiskUsage
from kvtwisted.core.errors import StorageError, WriteStalled

from ...support.clocks import START_MS, ManualClock
from ...support.storage import PLENTY, Storage
from .maintenance.evictions import seen_disk

HOUR_MS = 3_600_000
_OTHER = b"never read"


def _get(storage: Storage) -> bool:
    return storage.store.get(b"k") is not None


def _get_now(storage: Storage) -> bool:
    known, found = storage.store.get_now(b"k")
    return _get(storage) if not known else found is not None


def _mget(storage: Storage) -> bool:
    return b"k" in storage.store.mget([b"k", b"none"], budget=PLENTY)


def _scan(storage: Storage) -> bool:
    return b"k" in [key for key, _ in storage.store.scan(b"k", budget=PLENTY).items]


def _page(storage: Storage) -> bool:
    return b"k" in [key for key, _ in storage.store.scan(b"", limit=1, budget=PLENTY).items]


def _sweep(storage: Storage) -> bool:
    storage.sweeper.sweep(10)
    return b"k" in storage.data()


def _evict(storage: Storage) -> bool:
    disk = seen_disk(DiskUsage(900, 100), own_bytes=1000)
    evictor = Evictor(storage.engine, storage.writer.commits, storage.clock, bool, WriteSequence(1), lambda batch: None)
    evictor.run(disk, EvictionRules(threshold=90, batch_size=10, policy="none"))
    return b"k" in storage.data()


READERS = {"get": _get, "get_now": _get_now, "mget": _mget, "scan": _scan, "page": _page}
ALL = {**READERS, "sweep": _sweep, "evict": _evict}


def _mark(storage: Storage) -> int:
    return int(storage.engine.get(b"clock", META) or b"0")


def _expire(storage: Storage) -> None:
    """A key that has just expired, beside one that never does, with the wall clock set back meanwhile."""
    storage.store.set(b"k", b"v", 5)
    storage.store.set(b"z", b"v")
    storage.time.advance(2000)
    storage.time.step_wall(-HOUR_MS)
    storage.time.advance(3000)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_stays_away(name: str, cache_bytes: int) -> None:
    """Once anything has told that the key has expired, or acted on it, a later run says the same."""
    storage = Storage(cache_bytes=cache_bytes)
    storage.store.set(b"k", b"v", 5)
    for _ in range(3):
        assert _get(storage)  # so that it is cached
    _expire(storage)
    assert not ALL[name](storage)
    assert _mark(storage) == START_MS + 5000
    storage.restart()
    assert storage.clock.now_ms() == START_MS + 5000
    assert not any(read(storage) for read in READERS.values())


@pytest.mark.parametrize("name", ALL)
def test_durable_marks(name: str) -> None:
    """With `sync` the mark is fsynced before anything is told, as an acknowledged write is."""
    storage = Storage(durable=True)
    _expire(storage)
    syncs = len(storage.engine.called("sync"))
    assert not ALL[name](storage)
    assert len(storage.engine.called("sync")) == syncs + 1


@pytest.mark.parametrize("name", READERS)
def test_reads_go_on_while_nothing_can_be_written(name: str) -> None:
    """Then no mark is, and it is tried again; who asks is answered all the same."""
    storage = Storage()
    _expire(storage)
    for error in (StorageError("no"), WriteStalled("no")):
        storage.engine.fail("write", error)
        assert not READERS[name](storage)
    assert _mark(storage) == 0
    storage.engine.heal("write")
    assert not READERS[name](storage)
    assert _mark(storage) == START_MS + 5000


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_the_reactor_does_not_write(cache_bytes: int) -> None:
    """What may not block leaves the mark to who may, and counts nothing; then it knows."""
    storage = Storage(cache_bytes=cache_bytes)
    _expire(storage)
    writes, counted = len(storage.engine.called("write")), storage.store.cache_misses + storage.store.cache_hits
    assert storage.store.get_now(b"k") == (False, None)
    assert len(storage.engine.called("write")) == writes
    assert storage.store.cache_misses + storage.store.cache_hits == counted
    assert storage.store.get(b"k") is None
    assert storage.store.get_now(b"k") == (True, None)


def test_one_mark_is_for_all_that_have_expired() -> None:
    """However many keys are found expired, the mark is written once for each moment."""
    storage = Storage()
    storage.store.mset({b"%d" % number: b"" for number in range(100)}, 1)
    storage.time.advance(1000)
    before = len(storage.engine.called("write"))
    for number in range(100):
        assert storage.store.get(b"%d" % number) is None
    assert len(storage.engine.called("write")) == before + 1


def test_marks_are_synced_with_the_log() -> None:
    """The periodic fsync is for marks too: nothing else may have been written since the last."""
    storage = Storage()
    _expire(storage)
    storage.writer.commits.sync()
    assert not _get(storage)
    before = len(storage.engine.called("sync"))
    storage.writer.commits.sync()
    storage.writer.commits.sync()
    assert len(storage.engine.called("sync")) == before + 1


def test_marks_that_last_longer_are_written_anew() -> None:
    """Once writes wait for their fsync, what was marked before does not count."""
    storage = Storage()
    _expire(storage)
    assert not _get(storage)
    storage.writer.durable = True
    storage.store.metadata.mark_anew()
    before = len(storage.engine.called("sync"))
    assert not _get(storage)
    assert not _get(storage)
    assert len(storage.engine.called("sync")) == before + 1


def test_without_a_database_nothing_is_marked() -> None:
    """A clock by itself takes it that there is no later run."""
    clock = ManualClock().clock()
    clock.tell(START_MS - 1)
    assert clock.is_marked(START_MS - 1)
    assert Clock().ahead_ms() == 0


def test_a_mark_that_failed_is_none() -> None:
    """`mark` raises what the writing raised, and does it again the next time."""
    clock = ManualClock().clock()
    written: list[int] = []

    def write(mark_ms: int) -> None:
        written.append(mark_ms)
        if len(written) == 1:
            raise StorageError("no")

    clock.mark_with(write)
    mark: Callable[[int], None] = clock.mark
    with pytest.raises(StorageError):
        mark(START_MS)
    assert not clock.is_marked(START_MS)
    mark(START_MS)
    mark(START_MS - 1)
    assert written == [START_MS, START_MS]


def test_ahead_of_a_wall_clock_that_was_set_back() -> None:
    """By as much, until it has caught up."""
    manual = ManualClock()
    clock = manual.clock()
    assert clock.ahead_ms() == 0
    manual.step_wall(-5000)
    assert clock.ahead_ms() == 5000
    manual.advance(60_000)
    assert clock.ahead_ms() == 5000
    manual.step_wall(6000)
    assert clock.ahead_ms() == 0
