"""The store's own entries: format mark, clock mark, probes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import META
from kvtwisted.core.errors import Corruption, StorageError
from kvtwisted.core.options import EngineOptions

from ...support.clocks import START_MS
from ...support.engines import FaultyEngine, memory_engine
from ...support.storage import PLENTY, Storage


def test_new_folder_gets_its_format(storage: Storage) -> None:
    """The mark is written once, and not again by the next start."""
    assert storage.engine.get(b"format", META) == b"1"
    storage.restart()
    assert len(storage.engine.called("write")) == 1


def test_newer_format_is_refused() -> None:
    """A folder of another format is not opened, and not changed."""
    engine = memory_engine()
    engine.write([(META, b"format", b"2")])
    with pytest.raises(Corruption, match="the data folder has format b'2'; this server reads format 1"):
        Storage(engine)
    assert len(engine.called("write")) == 1


def test_own_entries_are_no_keys(storage: Storage) -> None:
    """Users see neither mark."""
    storage.store.metadata.mark_clock()
    assert storage.store.scan(b"", budget=PLENTY).items == []
    assert storage.store.get(b"format") is None


def test_expired_stays_expired_after_restart_and_step_back(tmp_path: Path) -> None:
    """The clock mark of one run is the least time of the next, also on a disk."""
    storage = Storage(FaultyEngine(open_engine("rocksdict", str(tmp_path), EngineOptions())))
    storage.store.set(b"k", b"v", 1)
    storage.time.advance(1000)
    assert storage.store.get(b"k") is None
    storage.store.metadata.mark_clock()
    storage.engine.close()

    storage.time.step_wall(-3_600_000)
    storage.engine = FaultyEngine(open_engine("rocksdict", str(tmp_path), EngineOptions()))
    storage.restart()
    assert storage.clock.now_ms() == START_MS + 1000
    assert storage.store.get(b"k") is None
    storage.engine.close()


def test_mark_behind_the_clock_changes_nothing(storage: Storage) -> None:
    """A restart later than the mark goes by the wall clock."""
    storage.store.metadata.mark_clock()
    storage.time.advance(60_000)
    storage.restart()
    assert storage.clock.now_ms() == START_MS + 60_000


def test_mark_that_is_no_number() -> None:
    """A damaged clock mark is Corruption, not a traceback."""
    engine = memory_engine()
    engine.write([(META, b"format", b"1"), (META, b"clock", b"soon")])
    with pytest.raises(Corruption, match="clock mark is b'soon'"):
        Storage(engine)


def test_check_reads(storage: Storage) -> None:
    """`check` raises what a read raises, and Corruption when the mark is not what was written."""
    storage.store.metadata.check()
    storage.engine.fail("get", StorageError("unreadable"), times=1)
    with pytest.raises(StorageError, match="unreadable"):
        storage.store.metadata.check()
    storage.engine.write([(META, b"format", b"?")])
    with pytest.raises(Corruption, match="cannot be read back"):
        storage.store.metadata.check()


def test_probe_writes_and_reads(storage: Storage) -> None:
    """`probe` raises what a write raises, then syncs and reads; it changes no record."""
    storage.store.metadata.probe()
    for method in ("write", "get"):
        storage.engine.fail(method, StorageError(f"{method} broke"), times=1)
        with pytest.raises(StorageError, match=f"{method} broke"):
            storage.store.metadata.probe()
    storage.store.metadata.probe()
    assert storage.data() == {}
    # One for each probe whose write went in.
    assert len(storage.engine.called("sync")) == 3


def test_failing_fsync_fails_the_probe(storage: Storage) -> None:
    """Whether writes wait for one or not."""
    storage.engine.fail("sync", StorageError("fsync broke"), times=1)
    with pytest.raises(StorageError, match="fsync broke"):
        storage.store.metadata.probe()
    storage.store.metadata.probe()
