"""Deadlines, and the sweeper that deletes what has expired."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, META
from kvtwisted.backends.local.maintenance import expiry
from kvtwisted.backends.local.maintenance.expiry import Sweep
from kvtwisted.core.errors import StorageError, WriteStalled

from ....support.clocks import START_MS
from ....support.properties import repeatable
from ....support.storage import Storage


def test_deadline_is_ttl_seconds_from_now() -> None:
    """A ttl is in seconds, a deadline in ms."""
    assert expiry.expires_at(1_000_000, 5) == 1_005_000


@pytest.mark.parametrize(
    ("deadline", "now", "expired"),
    [(0, 10**15, False), (1, 1, True), (1000, 999, False), (1000, 1000, True), (1000, 1001, True)],
)
def test_is_expired(deadline: int, now: int, expired: bool) -> None:
    """Expired from the deadline on; 0 never."""
    assert expiry.is_expired(deadline, now) is expired


@repeatable
@given(st.integers(1, 2**53), st.integers(0, 2**53))
def test_seconds_left_agrees_with_is_expired(deadline: int, now: int) -> None:
    """Seconds left are the ms left, rounded up, and positive exactly until the deadline."""
    left = expiry.seconds_left(deadline, now)
    assert (left - 1) * 1000 < deadline - now <= left * 1000
    assert (left > 0) is not expiry.is_expired(deadline, now)


@repeatable
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=8))))
def test_index_keys_sort_by_deadline(entries: list[tuple[int, bytes]]) -> None:
    """Index entries sort as deadline, then key, and can be taken apart."""
    packed = [expiry.index_key(*entry) for entry in entries]
    assert [expiry.split_index_key(entry) for entry in packed] == entries
    assert sorted(packed) == [expiry.index_key(*entry) for entry in sorted(entries)]


def test_sweep_deletes_what_has_expired(each_storage: Storage) -> None:
    """Expired keys go with their index entries; others stay. Freed are the bytes of keys and records."""
    each_storage.store.mset({b"a": b"1", b"bb": b"22"}, 1)
    each_storage.store.set(b"later", b"v", 2)
    each_storage.store.set(b"never", b"v")
    each_storage.time.advance(999)
    assert each_storage.sweeper.sweep(10) == Sweep([], False)
    each_storage.time.advance(1)
    assert each_storage.sweeper.sweep(10) == Sweep([b"a", b"bb"], False)
    assert set(each_storage.data()) == {b"later", b"never"}
    assert each_storage.index() == [(START_MS + 2000, b"later")]


def test_sweep_in_slices(each_storage: Storage) -> None:
    """A sweep deletes at most a slice, soonest first, and says whether there may be more."""
    for n in range(5):
        each_storage.store.set(b"k%d" % n, b"", 5 - n)
    each_storage.time.advance(5000)
    sweeps = [each_storage.sweeper.sweep(2) for _ in range(4)]
    assert [sweep.deleted for sweep in sweeps] == [[b"k4", b"k3"], [b"k2", b"k1"], [b"k0"], []]
    assert [sweep.more for sweep in sweeps] == [True, True, False, False]
    assert each_storage.data() == {}
    assert each_storage.index() == []


def test_slice_and_its_batch_are_one_write(storage: Storage) -> None:
    """What a slice deletes, it deletes in one batch, once the clock's mark has gone before."""
    storage.store.mset({b"%d" % n: b"" for n in range(5)}, 1)
    storage.time.advance(1000)
    before = len(storage.engine.called("write"))
    storage.sweeper.sweep(10)
    families = [{family for family, _, _ in batch} for (batch,) in storage.engine.called("write")[before:]]
    assert families == [{META}, {DATA, EXPIRY}]


def test_sweep_starts_where_the_last_one_ended(storage: Storage) -> None:
    """The tombstones of earlier sweeps are not walked over again."""
    storage.store.mset({b"%d" % n: b"" for n in range(4)}, 1)
    storage.time.advance(1000)
    storage.sweeper.sweep(2)
    storage.sweeper.sweep(10)
    storage.sweeper.sweep(10)
    storage.time.advance(1)
    storage.sweeper.sweep(10)
    deadline = START_MS + 1000
    starts = [start for start, _, family, *_ in storage.engine.called("scan") if family == EXPIRY]
    assert starts == [
        b"",
        expiry.index_key(deadline, b"1"),
        expiry.index_key(deadline, b"3"),
        deadline.to_bytes(8, "big"),
    ]


def test_sweep_reads_no_further_than_now(storage: Storage) -> None:
    """Entries that are not due are not read, whatever the start."""
    storage.sweeper.sweep(10)
    storage.time.advance(7)
    storage.sweeper.sweep(10)
    bounds = [(start, end) for start, end, family, *_ in storage.engine.called("scan") if family == EXPIRY]
    due = [(START_MS + passed + 1).to_bytes(8, "big") for passed in (0, 7)]
    assert bounds == [(b"", due[0]), (START_MS.to_bytes(8, "big"), due[1])]


def test_stale_index_entries_go_alone(each_storage: Storage) -> None:
    """The entries that earlier Sets and Deletes left are removed; the key that was set again survives."""
    each_storage.store.set(b"again", b"old", 1)
    each_storage.store.set(b"again", b"new", 100)
    each_storage.store.set(b"forever", b"old", 1)
    each_storage.store.set(b"forever", b"new")
    each_storage.store.set(b"deleted", b"old", 1)
    each_storage.store.delete(b"deleted")
    each_storage.time.advance(1000)
    assert each_storage.sweeper.sweep(10) == Sweep([], False)
    assert each_storage.index() == [(START_MS + 100_000, b"again")]
    assert (each_storage.value(b"again"), each_storage.value(b"forever")) == (b"new", b"new")


def test_key_with_two_entries_in_one_slice(storage: Storage) -> None:
    """The entry that the record carries decides; both entries go."""
    storage.store.set(b"k", b"old", 1)
    storage.store.set(b"k", b"new", 2)
    storage.time.advance(2000)
    assert storage.sweeper.sweep(10).deleted == [b"k"]
    assert (storage.data(), storage.index()) == ({}, [])


def test_corrupt_record_does_not_stop_the_sweeper(storage: Storage) -> None:
    """A record that cannot be read is left for its readers; its entry and everything else expired goes."""
    storage.store.mset({b"a": b"", b"b": b"", b"c": b""}, 1)
    storage.engine.write([(DATA, b"b", b"\xff\x63")])
    storage.time.advance(1000)
    assert storage.sweeper.sweep(10).deleted == [b"a", b"c"]
    assert storage.data() == {b"b": b"\xff\x63"}
    assert storage.index() == []


def test_entry_below_the_floor_waits_for_the_full_sweep(storage: Storage) -> None:
    """An entry that appears below the floor is found within ten minutes."""
    storage.sweeper.sweep(10)
    storage.put_record(b"late", b"v", START_MS - 1)
    storage.time.advance(599_999)
    assert storage.sweeper.sweep(10).deleted == []
    storage.time.advance(1)
    assert storage.sweeper.sweep(10).deleted == [b"late"]
    assert (storage.data(), storage.index()) == ({}, [])


def test_full_sweeps_come_every_ten_minutes(storage: Storage) -> None:
    """The next full sweep is ten minutes after the last one."""
    for _ in range(2):
        storage.sweeper.sweep(10)
        storage.put_record(b"late", b"v", START_MS - 1)
        storage.time.advance(600_000)
        assert storage.sweeper.sweep(10).deleted == [b"late"]


@pytest.mark.parametrize("error", [WriteStalled("stalled"), StorageError("disk broke")])
def test_failed_sweep_loses_nothing(storage: Storage, error: StorageError) -> None:
    """What a sweep could not delete is deleted by the next one."""
    storage.store.mset({b"a": b"", b"b": b""}, 1)
    storage.time.advance(1000)
    storage.engine.fail("write", error, times=1)
    with pytest.raises(type(error)):
        storage.sweeper.sweep(10)
    assert len(storage.data()) == len(storage.index()) == 2
    assert storage.sweeper.sweep(10).deleted == [b"a", b"b"]


def test_key_set_before_it_is_read_survives(storage: Storage) -> None:
    """A Set after the sweeper chose the key from the index, and before it reads the record, wins."""
    storage.store.mset({b"k": b"old", b"l": b"old"}, 1)
    storage.time.advance(1000)
    storage.engine.before("get", lambda: storage.store.set(b"k", b"between"))
    assert storage.sweeper.sweep(10).deleted == [b"l"]
    assert storage.value(b"k") == b"between"


def test_key_set_after_it_was_judged_survives(storage: Storage) -> None:
    """A Set after the sweeper read the expired record, and before it deletes, wins; its neighbour goes."""
    storage.store.mset({b"k": b"old", b"l": b"old"}, 1)
    storage.time.advance(1000)
    storage.engine.after("get", lambda: storage.store.set(b"k", b"between", 50))
    assert storage.sweeper.sweep(10).deleted == [b"l"]
    assert storage.value(b"k") == b"between"


def test_key_whose_rewrite_failed_is_swept_later(storage: Storage) -> None:
    """A Set that came between and failed leaves key and index entry together, for the next full sweep."""
    storage.store.set(b"k", b"old", 1)
    storage.time.advance(1000)

    def failing_set() -> None:
        storage.engine.fail("write", StorageError("disk broke"), times=1)
        with pytest.raises(StorageError):
            storage.store.set(b"k", b"between")

    storage.engine.after("get", failing_set)
    assert storage.sweeper.sweep(10).deleted == []
    assert storage.index() == [(START_MS + 1000, b"k")]
    storage.time.advance(600_000)
    assert storage.sweeper.sweep(10).deleted == [b"k"]
    assert (storage.data(), storage.index()) == ({}, [])


def test_pending(storage: Storage) -> None:
    """True as long as some key has a deadline, expired or not."""
    assert not storage.sweeper.pending()
    storage.store.set(b"never", b"")
    assert not storage.sweeper.pending()
    storage.store.set(b"k", b"", 10)
    assert storage.sweeper.pending()
    storage.time.advance(10_000)
    storage.sweeper.sweep(10)
    assert not storage.sweeper.pending()


def test_sweeps_do_not_overlap(storage: Storage) -> None:
    """A second sweep waits for the first: what one deletes the other does not count again."""
    storage.store.mset({b"%03d" % n: b"" for n in range(200)}, 1)
    storage.time.advance(1000)
    deleted: list[bytes] = []

    def sweep() -> None:
        more = True
        while more:
            swept = storage.sweeper.sweep(7)
            deleted.extend(swept.deleted)
            more = swept.more

    threads = [threading.Thread(target=sweep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(deleted) == [b"%03d" % n for n in range(200)]
    assert (storage.data(), storage.index()) == ({}, [])
