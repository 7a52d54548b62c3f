"""DeleteRange in the local backend: one step for all, with whatever belongs to the keys; and their space comes back."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local import commit_point
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import DATA, FILES, CanDeleteRange, Engine
from kvtwisted.backends.local.history import events_of
from kvtwisted.backends.local.index_entries import FLOOD
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.backends.local.maintenance.compactions import MOST, RangeCompactions
from kvtwisted.backends.local.range_deletes import FEW
from kvtwisted.backends.local.views import WrittenRange
from kvtwisted.commands.delete_range import DeleteRange, Removed
from kvtwisted.commands.ranges import KeyRange
from kvtwisted.commands.watch import EventType
from kvtwisted.core.errors import DeadlineExceeded, LostFolder, Overloaded, StorageError, Unsupported, WriteStalled
from kvtwisted.core.options import EngineOptions

from ...support.engines import FaultyEngine, memory_engine
from ...support.storage import PLENTY, Storage
from .engines.support import INSTALLED

#: More keys than are deleted one by one.
MANY = 3 * FEW


def _storage(name: str, folder: Path, **options: Any) -> Storage:
    engine: Engine = open_engine(name, str(folder / "data"), EngineOptions())
    files = ValueFiles(str(folder / "values"))
    return Storage(FaultyEngine(engine), files=files, spill_threshold=10_000, cache_bytes=1 << 20, **options)


@pytest.fixture(params=INSTALLED)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """A store over each engine, with a cache and files."""
    storage = _storage(request.param, tmp_path)
    yield storage
    storage.engine.close()


@pytest.fixture
def one() -> Storage:
    """One in memory."""
    return Storage()


def fill(storage: Storage, count: int = MANY, ttl: int = 0) -> list[bytes]:
    """So many keys under k, and one before and behind."""
    keys = [b"k%05d" % number for number in range(count)]
    storage.store.mset(dict.fromkeys(keys, b"v"), ttl)
    storage.store.mset({b"a": b"v", b"l": b"v"})
    return keys


@pytest.mark.parametrize("count", [3, MANY])
def test_all_of_it_goes(storage: Storage, count: int) -> None:
    """Few keys and many; large values' files too; what is before and behind stays, and what is set later."""
    keys = fill(storage, count)
    large = b"l" * 20_000
    storage.store.mset({keys[1]: large, b"l": large})
    for _ in range(2):
        assert storage.value(keys[0]) == b"v"  # it is cached
    taken = storage.writer.files.taken
    assert storage.store.run(DeleteRange(b"k", dry_run=True)) == Removed(count, 0)
    before = storage.store.revision
    assert storage.store.run(DeleteRange(b"k")) == Removed(count, before + 1) == (count, storage.store.revision)
    assert list(storage.data()) == [b"a", b"l"]
    assert [key for key, _ in storage.engine.scan(b"", None, FILES)] == [b"l"]
    assert (storage.value(keys[0]), storage.value(keys[1])) == (None, None)
    assert storage.value(b"l") == large
    assert storage.writer.files.taken == taken // 2
    assert storage.store.run(DeleteRange(b"k")) == Removed(0, 0)
    storage.store.set(keys[1], b"new")
    assert storage.value(keys[1]) == b"new"
    storage.restart()
    assert list(storage.data()) == [b"a", keys[1], b"l"]
    assert list(storage.writer.commits.file_index.pointers) == [b"l"]


def test_everything(storage: Storage) -> None:
    """To the last key that there can be."""
    fill(storage)
    storage.store.set("\U0010ffff".encode() * 256, b"v")
    assert storage.store.run(DeleteRange(everything=True)).deleted == MANY + 3
    assert storage.data() == {}


def test_nothing_of_it_is_seen(storage: Storage) -> None:
    """Views that were taken before have all, those that are taken afterwards have none."""
    keys = fill(storage)
    earlier = storage.engine.scan(b"", None)
    assert earlier.take(1) == [(b"a", b"v")]
    storage.store.run(DeleteRange(b"k"))
    assert [key for key, _ in earlier] == [*keys, b"l"]
    for reverse in (False, True):
        assert storage.store.scan(b"k", reverse=reverse, budget=PLENTY).keys == []
    assert storage.store.mget([*keys[:90], b"a"], budget=PLENTY) == {b"a": b"v"}


def test_lesser_engines_delete_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, up to a limit; over that, nothing: also when they became more since they were counted."""
    storage = Storage()
    del storage.engine.delete_range
    assert not isinstance(storage.engine, CanDeleteRange)
    storage.restart()
    keys = fill(storage)
    deletes = storage.store._range_deletes
    monkeypatch.setattr(deletes, "_most", lambda: MANY - 1)
    with pytest.raises(Unsupported, match=f"{MANY} keys .* at most {MANY - 1} .*limits.max_range_delete_keys"):
        storage.store.run(DeleteRange(b"k"))
    monkeypatch.setattr(deletes, "_most", lambda: MANY)
    storage.engine.after("scan", lambda: storage.store.set(b"kx", b"v"))
    with pytest.raises(Unsupported, match=r"limits.max_range_delete_keys"):
        storage.store.run(DeleteRange(b"k"))
    assert list(storage.data()) == [b"a", *keys, b"kx", b"l"]
    monkeypatch.setattr(deletes, "_most", lambda: MANY + 1)
    assert storage.store.run(DeleteRange(b"k")).deleted == MANY + 1
    assert list(storage.data()) == [b"a", b"l"]
    assert storage.store.compactions.waiting == 0


@pytest.mark.parametrize("count", [3, MANY])
def test_what_is_written_after_the_count_goes_too(one: Storage, count: int) -> None:
    """It is one step: what is there by then."""
    fill(one, count)
    one.engine.after("scan", lambda: one.store.mset({b"k-new%d" % number: b"v" for number in range(FEW)}))
    assert one.store.run(DeleteRange(b"k")).deleted == count
    assert list(one.data()) == [b"a", b"l"]


def test_guards_learn_of_it(one: Storage) -> None:
    """Who judges keys, or reads a range."""
    fill(one)
    guards = one.writer.commits.guards
    with guards.keys([b"a", b"k00001", b"k00002"]) as keys, guards.range(b"", None) as range:
        one.store.run(DeleteRange(b"k", b"k00001", b"k00002"))
        assert keys == {b"a", b"k00002"}
        assert isinstance(range, WrittenRange)
        assert range.untouched(b"a", b"k00001", reverse=False) is None
        assert range.untouched(b"a", b"k00002", reverse=False) == b"k00001"


@pytest.mark.parametrize("count", [3, MANY])
def test_entries_of_the_expiry_index_go_later(one: Storage, count: int) -> None:
    """The scrub is told of them; the sweeper removes the others when their time has come. New keys keep their own."""
    keys = fill(one, count, ttl=60)
    for _ in range(3):
        one.scrub.turn()  # all that is due already
    one.store.run(DeleteRange(b"k"))
    assert len(one.index()) == count
    for _ in range(3):
        one.scrub.turn()
    assert len(one.index()) == (count if count < FLOOD else 0)
    one.store.set(keys[0], b"new", 90)
    one.store.set(keys[1], b"new")
    one.store.set(keys[2], b"new")
    one.time.advance(60_000)
    while one.sweeper.sweep(100).more:
        """There are more."""
    assert [key for _, key in one.index()] == [keys[0]]
    assert [one.value(key) for key in keys[:3]] == [b"new"] * 3


def test_expired_keys_are_not_counted(one: Storage) -> None:
    """But they go along."""
    fill(one, ttl=1)
    one.store.set(b"kept", b"v")
    one.time.advance(1000)
    assert one.store.run(DeleteRange(b"k")).deleted == 1
    assert list(one.data()) == [b"a", b"l"]


def test_nothing_is_done_after_the_deadline(one: Storage) -> None:
    """Nor while writes are stalled, or when the folder was lost."""
    keys = fill(one)
    with pytest.raises(DeadlineExceeded, match="nothing was deleted: delete it in parts"):
        one.store.run(DeleteRange(b"k", deadline=time.monotonic() - 1))
    one.engine.fail("delete_range", WriteStalled("stalled"))
    with pytest.raises(Overloaded):
        one.store.run(DeleteRange(b"k", deadline=time.monotonic() + 0.05))
    one.engine.heal("delete_range")
    one.writer.commits.refusal = "it went away"
    with pytest.raises(LostFolder):
        one.store.run(DeleteRange(b"k"))
    one.writer.commits.refusal = None
    assert list(one.data()) == [b"a", *keys, b"l"]
    one.engine.fail("delete_range", WriteStalled("stalled"), times=2)
    assert one.store.run(DeleteRange(b"k")).deleted == MANY


def test_a_failure_is_told(one: Storage) -> None:
    """Where the storage fails the deletion, but not where it fails the count."""
    fill(one)
    failures: list[StorageError] = []
    one.engine.fail("scan", StorageError("unreadable"), times=1)
    with pytest.raises(StorageError):
        one.store.delete_range(DeleteRange(b"k"), failures.append)
    assert failures == []
    one.engine.fail("delete_range", StorageError("broken"), times=1)
    with pytest.raises(StorageError):
        one.store.delete_range(DeleteRange(b"k"), failures.append)
    assert [str(error) for error in failures] == ["broken"]
    assert one.writer.commits.failing


def test_it_lasts(tmp_path: Path) -> None:
    """With `sync` it is not done before an fsync; nor do files go before."""
    storage = _storage("memory", tmp_path, durable=True)
    fill(storage)
    before = len(storage.engine.called("sync"))
    storage.store.run(DeleteRange(b"k"))
    assert len(storage.engine.called("sync")) == before + 1
    lazy = _storage("memory", tmp_path / "other")
    fill(lazy)
    lazy.store.run(DeleteRange(b"k"))
    assert lazy.engine.called("sync") == []
    lazy.store.set(b"k", b"l" * 20_000)
    before = len(lazy.engine.called("sync"))
    lazy.store.run(DeleteRange(b"k"))
    assert len(lazy.engine.called("sync")) == before + 1
    assert lazy.writer.files.taken == 0


def test_space_comes_back(tmp_path: Path) -> None:
    """Without a restart: the files of the engine shrink to what is left."""
    storage = _storage("rocksdict", tmp_path)
    noise = random.Random(1)
    for first in range(0, 50_000, 5_000):
        storage.engine.write(
            [(DATA, b"k%06d" % number, b"v" + noise.randbytes(300)) for number in range(first, first + 5_000)]
        )
    storage.engine.compact(b"", b"\xff")
    assert _table_bytes(tmp_path) > 15_000_000
    storage.store.set(b"a", b"v")
    assert storage.store.run(DeleteRange(b"k")).deleted == 50_000
    assert storage.store.compactions.waiting == 1
    storage.store.compactions.turn()
    assert storage.store.compactions.waiting == 0
    assert _table_bytes(tmp_path) < 100_000
    assert list(storage.data()) == [b"a"]
    storage.engine.close()


def _table_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in (folder / "data").glob("*.sst"))


def test_what_waits_for_compaction_is_bounded() -> None:
    """Ranges that meet are one; of too many, neighbours are joined; each is compacted once, and again if it fails."""
    engine = memory_engine()
    compactions = RangeCompactions(engine)
    for number in range(3 * MOST):
        compactions.add(KeyRange(b"%03d" % (2 * number), b"%03d" % (2 * number + 1)), files=number == 5)
    assert compactions.waiting == MOST
    compactions.add(KeyRange(b"", b"%03d" % (5 * MOST)), files=False)
    assert compactions.waiting < MOST
    engine.fail("compact", StorageError("broken"), times=1)
    with pytest.raises(StorageError):
        compactions.turn()
    compactions.turn()
    assert compactions.waiting == 0
    ranges = engine.called("compact")[1:]
    assert ranges[:2] == [(b"", ranges[0][1]), (b"", ranges[0][1], FILES)]
    assert len({start for start, *_ in ranges}) == len(ranges) - 1
    compactions.add(KeyRange(b"x", None), files=False)
    compactions.turn()
    assert engine.called("compact")[-1][1] > "\U0010ffff".encode() * 256


def test_beside_writers(storage: Storage) -> None:
    """Each MSet is there whole or not at all, whatever is deleted meanwhile."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            storage.store.mset({b"k%03d" % (key * 7): b"%d" % number for key in range(100)})

    def remove() -> None:
        for _ in range(30):
            storage.store.run(DeleteRange(b"k"))

    def look() -> None:
        try:
            while not stop.is_set():
                values = storage.store.scan(b"k", budget=PLENTY).values
                assert (len(values), len(set(values))) in ((0, 0), (100, 1))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=act) for act in (write, look)]
    for thread in threads:
        thread.start()
    remove()
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_large_values_are_not_read_under_the_lock(one: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few keys with much behind them go at once."""
    one.store.mset({b"k%d" % number: b"v" * 10_000 for number in range(20)})
    monkeypatch.setattr(commit_point, "_READ_BYTES", 100_000)
    monkeypatch.setattr(commit_point, "_AT_ONCE", 5)
    assert one.store.run(DeleteRange(b"k")).deleted == 20
    assert len(one.engine.called("delete_range")) == 1
    assert one.store.compactions.waiting == 1


@pytest.mark.parametrize("count", [3, MANY])
def test_who_watches_is_told_the_range(one: Storage, count: int) -> None:
    """As one event, however it was deleted; nothing of a range that was empty."""
    fill(one, count)
    history = one.writer.commits.history
    one.store.run(DeleteRange(b"nothing"))
    before = history.end
    revision = one.store.run(DeleteRange(b"k")).revision
    assert history.end == before + 1
    entry = history.entry(before)
    assert entry is not None
    assert [(told.revision, told.type, told.key, told.value) for told in events_of(entry)] == [
        (revision, EventType.DELETE_RANGE, b"k", b"l")
    ]
