"""Entries of the expiry index go with what replaces their keys."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtwisted.backends.local import records
from kvtwisted.backends.local.engines.engine import EXPIRY, Mutation
from kvtwisted.backends.local.index_entries import IndexEntries
from kvtwisted.backends.local.records import index_key
from kvtwisted.backends.local.write import Write
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.set import Set
from kvtwisted.core.errors import Overloaded, StorageError, WriteStalled

from ...support.storage import Storage


def _current(storage: Storage) -> list[tuple[int, bytes]]:
    """The entries that the records ask for."""
    decoded = {key: records.decode(stored) for key, stored in storage.data().items()}
    return sorted((record.expires_at_ms, key) for key, record in decoded.items() if record.expires_at_ms)


def test_refreshing_leaves_nothing_behind(each_storage: Storage) -> None:
    """However often keys get a new deadline, by Set or MSet, the index has one entry for each."""
    keys = [b"%03d" % number for number in range(100)]
    for ttl in range(1000, 1020):
        each_storage.store.mset(dict.fromkeys(keys, b"v"), ttl)
        each_storage.store.set(keys[0], b"v", 2 * ttl)
    assert each_storage.index() == _current(each_storage)
    assert len(each_storage.index()) == 100
    assert each_storage.writer.commits.index_entries.taken == 20 + 19 * 100


def test_deleting_takes_the_entry_along(each_storage: Storage) -> None:
    """In the same batch."""
    for number in range(100):
        each_storage.store.set(b"%03d" % number, b"v", 86_400)
        each_storage.store.delete(b"%03d" % number)
    each_storage.store.mset({b"a": b"", b"b": b""}, 10)
    each_storage.store.mdelete([b"a", b"b"])
    assert each_storage.index() == []


def test_the_deadline_that_it_has_already(storage: Storage) -> None:
    """A key that is set again within the same millisecond keeps its entry."""
    for _ in range(3):
        storage.store.set(b"k", b"v", 60)
    assert storage.index() == _current(storage) != []


def test_a_write_without_a_ttl_leaves_one_entry_for_the_next(storage: Storage) -> None:
    """It does not look, so as to cost nothing; one entry for a key is all that can come of that."""
    for ttl in range(1, 20):
        storage.store.set(b"k", b"v", 1000 * ttl)
        storage.store.set(b"k", b"v")
        assert len(storage.index()) == 1
    storage.store.delete(b"k")
    assert storage.index() == []


def test_twice_in_one_batch(storage: Storage) -> None:
    """Writes of one key that share a batch: the last one's entry is there, and no other."""
    storage.store.set(b"k", b"v", 5)
    changes = [storage.store.prepare(Set(b"k", b"v", ttl)).changes for ttl in (10, 20)]
    storage.writer.write_all([Write(change) for change in changes])
    assert storage.index() == _current(storage)
    assert len(storage.index()) == 1
    gone = [storage.store.prepare(command).changes for command in (Set(b"k", b"v", 30), Delete(b"k"))]
    storage.writer.write_all([Write(change) for change in gone])
    assert storage.index() == []


@pytest.mark.parametrize("error", [StorageError("broken"), WriteStalled("stalled")])
def test_a_write_that_fails(storage: Storage, error: StorageError) -> None:
    """What is remembered is what the engine has."""
    storage.store.set(b"k", b"v", 10)
    storage.engine.fail("write", error, 1)
    with pytest.raises((StorageError, Overloaded)):
        storage.writer.write(storage.store.prepare(Set(b"k", b"v", 20)).changes, deadline=0)
    storage.store.set(b"k", b"v", 30)
    assert storage.index() == _current(storage)
    assert len(storage.index()) == 1


def test_swept_keys_are_forgotten(storage: Storage) -> None:
    """A key that comes back after its end removes no entry that is gone."""
    storage.store.set(b"k", b"v", 1)
    storage.time.advance(1000)
    storage.sweeper.sweep(10)
    assert storage.index() == []
    storage.store.set(b"k", b"v", 1)
    assert storage.writer.commits.index_entries.taken == 0


def test_keys_that_never_expire_cost_nothing(storage: Storage) -> None:
    """Neither a table nor a mutation more."""
    storage.store.mset({b"a": b"1", b"b": b"2"})
    storage.store.set(b"c", b"3")
    storage.store.delete(b"c")
    assert not storage.writer.commits.index_entries._known
    assert all(family != EXPIRY for (batch,) in storage.engine.called("write") for family, _, _ in batch)


def test_what_is_forgotten_is_in_doubt() -> None:
    """Keys that share a place forget one another, which is counted; each removes its own entries alone."""
    entries = IndexEntries(1)
    gone: list[Mutation] = []
    for key, deadline in ((b"a", 1), (b"a", 2), (b"b", 3), (b"a", 4)):
        gone += entries.replace([(key, b"v", deadline)])
    assert gone == [(EXPIRY, index_key(1, b"a"), None)]
    entries.keep()
    assert entries.doubts == 3
    gone = entries.replace([(b"a", None, 0), (b"b", None, 0)])
    assert gone == [(EXPIRY, index_key(4, b"a"), None)]
    entries.keep()
    assert (entries.doubts, entries.written, entries.taken) == (4, 4, 2)


_KEYS = st.sampled_from([b"%d" % number for number in range(8)])
_STEPS = st.lists(
    st.tuples(_KEYS, st.sampled_from(["ttl", "plain", "delete", "fail", "sweep", "scrub"]), st.integers(1, 9))
)


@settings(deadline=None)  # the machine may be busy
@given(_STEPS, st.sampled_from([1, 4, 1 << 10]))
def test_no_record_loses_its_entry(steps: list[tuple[bytes, str, int]], slots: int) -> None:
    """Whatever is forgotten, and whatever fails: an entry that a record needs is there."""
    storage = Storage()
    storage.writer.commits.index_entries = IndexEntries(slots)
    for key, step, ttl in steps:
        if step == "ttl":
            storage.store.set(key, b"v", ttl)
        elif step == "plain":
            storage.store.set(key, b"v")
        elif step == "delete":
            storage.store.delete(key)
        elif step == "fail":
            storage.engine.fail("write", StorageError("broken"), 1)
            with pytest.raises(StorageError):
                storage.store.set(key, b"v", ttl)
        elif step == "sweep":
            storage.time.advance(1000 * ttl // 2)
            storage.sweeper.sweep(3)
        else:
            storage.scrub.turn()
        assert set(_current(storage)) <= set(storage.index())
