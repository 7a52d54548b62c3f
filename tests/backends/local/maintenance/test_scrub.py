"""The scrub of the expiry index."""

from __future__ import annotations

import pytest

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY
from kvtwisted.backends.local.index_entries import IndexEntries
from kvtwisted.backends.local.maintenance import scrub as scrub_module
from kvtwisted.backends.local.maintenance.scrub import SLICE, Scrub
from kvtwisted.backends.local.records import index_key
from kvtwisted.core.errors import StorageError

from ....support.clocks import START_MS
from ....support.storage import Storage

HOUR = 3600


def _stale(storage: Storage, number: int, keys: int = 1) -> None:
    """Entries that belong to no record, as a server without a memory of them leaves behind."""
    for first in range(0, number, 1000):
        storage.engine.write(
            [
                (EXPIRY, index_key(START_MS + 1000 * HOUR + 1 + n, b"%06d" % (n % keys)), b"")
                for n in range(first, min(number, first + 1000))
            ]
        )


def _turns(storage: Storage, number: int = 1) -> int:
    """How many entries that many turns removed."""
    before = storage.scrub.removed
    for _ in range(number):
        storage.scrub.turn()
    return storage.scrub.removed - before


def _before_eviction(scrub: Scrub) -> tuple[int, bool]:
    """How many entries a search before an eviction removed, and whether there are many more."""
    before = scrub.removed
    more = scrub.before_eviction()
    return scrub.removed - before, more


def test_what_an_earlier_run_left_behind_goes(each_storage: Storage) -> None:
    """In the turns after a start, whatever the records are: gone, without a deadline, or with another one."""
    keys = {b"%06d" % number: b"v" for number in range(3000)}
    _stale(each_storage, 3000, 3000)
    some = dict(list(keys.items())[:1000])
    each_storage.store.mset(some, HOUR)
    each_storage.store.mset(dict(list(keys.items())[1000:2000]))
    each_storage.restart()
    assert _turns(each_storage, 5) == 3000 == each_storage.scrub.removed
    assert [key for _, key in each_storage.index()] == sorted(some)
    each_storage.time.advance(HOUR * 1000)
    assert len(each_storage.sweeper.sweep(5000).deleted) == 1000


def test_nothing_is_looked_at_when_nothing_can_be_there(storage: Storage) -> None:
    """After the first round the index is left alone as long as every entry goes with its key."""
    storage.store.set(b"k", b"v", HOUR)
    storage.scrub.turn()
    before = len(storage.engine.calls)
    for ttl in range(50):
        storage.store.set(b"k", b"v", HOUR + ttl)
    storage.scrub.turn()
    assert [call.method for call in storage.engine.calls[before:]] == ["write"] * 50
    storage.scrub.before_eviction()
    before = len(storage.engine.calls)
    storage.scrub.before_eviction()
    assert len(storage.engine.calls) == before


@pytest.mark.parametrize("refreshed", [100, 1000])
def test_the_index_stays_within_bounds(storage: Storage, refreshed: int) -> None:
    """Even when nothing is remembered of any key: however often they are refreshed, each has a few entries at most."""
    storage.writer.commits.index_entries = IndexEntries(1)
    keys = [b"%04d" % number for number in range(1000)]
    most = 0
    for turn in range(60):
        storage.time.advance(1000)
        for start in range(0, 1000, refreshed):
            storage.store.mset(dict.fromkeys(keys[start : start + refreshed], b"v"), 86_400)
        storage.scrub.turn()
        most = max(most, len(storage.index()))
        assert {key for _, key in storage.index()} == set(keys), turn
    assert most <= 10 * len(keys) + SLICE


def test_keys_that_are_all_new_cost_little(storage: Storage) -> None:
    """One entry is looked at for eight that are written."""
    for number in range(80):
        storage.store.mset({b"%03d/%03d" % (number, n): b"v" for n in range(100)}, HOUR)
        storage.scrub.turn()
    looked_at = sum(len(keys) for keys, *_ in storage.engine.called("multi_get"))
    assert looked_at <= 8000 / 8 + 2 * SLICE
    assert storage.scrub.removed == 0


@pytest.mark.parametrize("moment", ["scan", "multi_get"])
def test_an_entry_that_is_made_meanwhile_stays(storage: Storage, moment: str) -> None:
    """A key that gets the very deadline of its stale entry, while that is judged."""
    storage.store.set(b"k", b"v", HOUR)
    storage.store.set(b"k", b"v")
    storage.restart()
    storage.engine.after(moment, lambda: storage.store.set(b"k", b"v", HOUR))
    storage.scrub.turn()
    assert storage.index() == [(START_MS + HOUR * 1000, b"k")]


def test_expired_entries_are_the_sweepers(storage: Storage) -> None:
    """The hand starts after them."""
    storage.store.set(b"k", b"v", 1)
    storage.store.delete(b"k")
    storage.store.set(b"expired", b"v", 1)
    storage.time.advance(5000)
    assert _turns(storage) == 0
    assert len(storage.index()) == 1


def test_a_record_that_nobody_can_read_keeps_its_entry(storage: Storage) -> None:
    """Who knows what it says."""
    storage.engine.write([(DATA, b"k", b"\xff\x09"), (EXPIRY, index_key(START_MS + 5000, b"k"), b"")])
    assert _turns(storage) == 0
    assert len(storage.index()) == 1


def test_a_turn_that_fails_is_made_up_for(storage: Storage) -> None:
    """Nothing is taken as seen that could not be removed."""
    _stale(storage, 2000)
    storage.engine.fail("write", StorageError("broken"), 1)
    with pytest.raises(StorageError):
        storage.scrub.turn()
    _turns(storage, 3)
    assert storage.index() == []


@pytest.mark.parametrize("restarted", [False, True])
def test_before_an_eviction_what_keys_without_a_ttl_left_behind_goes(each_storage: Storage, restarted: bool) -> None:
    """A ttl that is taken from a key, by a single write or a batch, leaves its entry; nobody counts it."""
    keys = [b"%04d" % number for number in range(1200)]
    each_storage.store.mset(dict.fromkeys(keys, b"v"), HOUR)
    if restarted:
        each_storage.restart()
    each_storage.scrub.before_eviction()
    for key in keys[:400]:
        each_storage.store.set(key, b"w")
    each_storage.store.mset(dict.fromkeys(keys[400:1000], b"w"))
    assert _before_eviction(each_storage.scrub) == (1000, False)
    assert [key for _, key in each_storage.index()] == keys[1000:]
    assert _before_eviction(each_storage.scrub) == (0, False)


def test_before_an_eviction_all_of_it_goes(storage: Storage) -> None:
    """At once, and RocksDB is told to give the space back."""
    _stale(storage, 20_000)
    scrubbed = _before_eviction(storage.scrub)
    assert scrubbed == (20_000, False)
    assert storage.index() == []
    assert [call[2:] for call in storage.engine.called("compact")] == [(EXPIRY,)]


def test_a_long_search_goes_on_next_time(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that there is more; and ends soon where it finds nothing."""
    now = [0.0]

    def tick() -> float:
        now[0] += 1
        return now[0]

    _stale(storage, 20_000)
    scrub = Scrub(storage.engine, storage.writer.commits, storage.clock, tick)
    assert _before_eviction(scrub) == (11 * SLICE, True)
    rest = 20_000 - 11 * SLICE
    assert _before_eviction(scrub) == (11 * SLICE, True)
    monkeypatch.setattr(scrub_module, "PATIENCE", 1000)
    assert _before_eviction(scrub) == (rest - 11 * SLICE, False)
    for start in range(0, 20_000, 1000):
        storage.store.mset({b"%06d" % number: b"" for number in range(start, start + 1000)}, HOUR)
    assert _before_eviction(scrub) == (0, False)
    assert len(storage.engine.called("multi_get")) < 2 * 20_000 / 16


def test_rocksdb_gives_the_space_back(each_storage: Storage) -> None:
    """The files of the index shrink, at the latest before an eviction."""
    _stale(each_storage, 20_000)
    each_storage.engine.compact(b"", b"\xff", EXPIRY)
    before = each_storage.engine.statistics().file_bytes or 0
    each_storage.scrub.before_eviction()
    after = each_storage.engine.statistics().file_bytes or 0
    assert after < before / 10 or before == 0
