"""The hot cache: what it keeps, what it lets go, and that it never shows what the engine does not."""

from __future__ import annotations

import math
import random
import sys
import threading
import tracemalloc

import pytest

from kvtwisted.backends.local.cache import ENTRY_COST, HotCache
from kvtwisted.backends.local.maintenance.eviction import Disk, EvictionRules, Evictor
from kvtwisted.backends.local.maintenance.holdings import Holdings
from kvtwisted.backends.local.write_sequence import WriteSequence
from kvtwisted.core.disk import DiskUsage
from kvtwisted.core.errors import ResponseTooLarge, StorageError

from ...support.storage import Storage

ROOM = 1 << 20


def warm(storage: Storage, *keys: bytes) -> None:
    """Read each key twice, which lets it in."""
    for key in keys + keys:
        storage.store.get(key)
    assert all(key in storage.cache.entries for key in keys)


def _disk(used: int, free: int) -> Disk:
    return Disk("rocksdb.path", measure=lambda: DiskUsage(used, free), holdings=lambda: Holdings(1 << 30))


@pytest.fixture
def storage() -> Storage:
    """A store with a cache and the keys a, b and c."""
    storage = Storage(cache_bytes=ROOM)
    storage.store.mset({b"a": b"1", b"b": b"2", b"c": b"3"})
    storage.restart()
    return storage


def test_hot_key_is_read_from_memory(storage: Storage) -> None:
    """Once a key is in, the engine is not asked for it; hits and misses are counted."""
    warm(storage, b"a")
    before = len(storage.engine.called("get"))
    assert storage.value(b"a") == b"1"
    assert len(storage.engine.called("get")) == before
    assert (storage.store.cache_hits, storage.store.cache_misses) == (1, 2)


def test_one_read_lets_nothing_in(storage: Storage) -> None:
    """A pass over many keys leaves the cache as it was: a key comes in at its second miss."""
    warm(storage, b"a")
    for key in (b"b", b"c"):
        storage.store.get(key)
    assert list(storage.cache.entries) == [b"a"]


def test_scans_and_batches_let_nothing_in(storage: Storage) -> None:
    """No scan changes what is hot, and a key that was never read or written before needs two MGets."""
    for _ in range(3):
        storage.store.scan(b"", budget=ROOM)
    storage.store.mget([b"a", b"b"], budget=ROOM)
    assert not storage.cache.entries


def test_batch_of_hot_keys_is_read_from_memory(storage: Storage) -> None:
    """The second MGet lets its keys in, the third does not ask the engine; one key that is not there, and it does."""
    for _ in range(3):
        assert storage.store.mget([b"a", b"b", b"a"], budget=ROOM) == {b"a": b"1", b"b": b"2"}
    assert len(storage.engine.called("multi_get")) == 2
    assert (storage.store.cache_hits, storage.store.cache_misses) == (2, 4)
    assert storage.store.mget([b"a", b"none"], budget=ROOM) == {b"a": b"1"}
    with pytest.raises(ResponseTooLarge, match="exceed 33 bytes"):
        storage.store.mget([b"a", b"b"], budget=33)


def test_batch_from_memory_is_one_view(storage: Storage) -> None:
    """A write that comes between the looks at two keys sends the batch to the engine."""
    warm(storage, b"a", b"b")
    meddle = [lambda: storage.store.mset({b"a": b"new", b"b": b"new"})]

    class Meddling(bytes):
        """A key that is written when it is looked up."""

        def __hash__(self) -> int:
            if meddle:
                meddle.pop()()
            return hash(bytes(self))

    assert storage.store.mget([b"a", Meddling(b"b")], budget=ROOM) == {b"a": b"new", b"b": b"new"}
    assert len(storage.engine.called("multi_get")) == 1


def test_expiring_keys_of_a_batch_are_read_from_the_engine(storage: Storage) -> None:
    """A key with a deadline in memory does not hide the deadline."""
    storage.store.set(b"a", b"1", 10)
    warm(storage, b"a", b"b")
    assert storage.store.mget([b"a", b"b"], budget=ROOM) == {b"a": b"1", b"b": b"2"}
    storage.time.advance(10_000)
    assert storage.store.mget([b"a", b"b"], budget=ROOM) == {b"b": b"2"}


def test_missing_key_is_not_cached(storage: Storage) -> None:
    """What is not there is asked for every time."""
    for _ in range(3):
        assert storage.store.get(b"none") is None
    assert not storage.cache.entries


def test_writes_change_the_cache(storage: Storage) -> None:
    """Set, MSet, Delete and MDelete are seen by the next Get of a hot key."""
    warm(storage, b"a", b"b", b"c")
    storage.store.set(b"a", b"new")
    assert storage.value(b"a") == b"new"
    storage.store.mset({b"a": b"newer", b"b": b"too"})
    assert (storage.value(b"a"), storage.value(b"b")) == (b"newer", b"too")
    storage.store.delete(b"a")
    storage.store.mdelete([b"b", b"c"])
    assert [storage.value(key) for key in (b"a", b"b", b"c")] == [None, None, None]
    assert storage.cache.size == 0


def test_hot_key_expires(storage: Storage) -> None:
    """A cached key is gone at its deadline, tells its ttl until then, and leaves when it is swept."""
    storage.store.set(b"a", b"1", 10)
    warm(storage, b"a")
    storage.time.advance(9_500)
    found = storage.store.get(b"a")
    assert found is not None
    assert found.ttl == 1
    storage.time.advance(500)
    assert storage.store.get(b"a") is None
    storage.sweeper.sweep(10)
    assert b"a" not in storage.cache.entries


def test_evicted_key_leaves(storage: Storage) -> None:
    """Eviction takes a hot key only when it must, and then from the cache too."""
    warm(storage, b"a")
    batches: list[bytes] = []
    evictor = Evictor(
        storage.engine,
        storage.writer.commits,
        storage.clock,
        lambda key: key in storage.cache.entries,
        WriteSequence(1),
        lambda batch: batches.extend([b""] * batch.keys),
    )
    evictor.run(_disk(used=80, free=20), EvictionRules(80, 1, "lru"))
    assert b"a" in storage.cache.entries
    evictor.run(_disk(used=1000, free=0), EvictionRules(50, 10, "lru"))
    assert len(batches) == 3
    assert [storage.value(key) for key in (b"a", b"b", b"c")] == [None, None, None]


def test_a_write_during_the_read_wins(storage: Storage) -> None:
    """What a reader brings from the engine is not let in when the key was written meanwhile."""
    storage.store.get(b"a")
    storage.engine.after("get", lambda: storage.store.set(b"a", b"new"))
    assert storage.value(b"a") == b"1"
    assert storage.value(b"a") == b"new"


def test_a_deletion_during_the_read_wins(storage: Storage) -> None:
    """The same when expiry or eviction deletes the key meanwhile."""
    storage.store.get(b"a")

    def delete() -> None:
        with storage.writer.commits.guards.keys([b"a"]) as guard:
            storage.writer.commits.delete_guarded(guard, {b"a": ()})

    storage.engine.after("get", delete)
    assert storage.value(b"a") == b"1"
    assert storage.value(b"a") is None


def test_failed_write_forgets_the_key(storage: Storage) -> None:
    """When it is not known what the engine holds, the engine is asked."""
    warm(storage, b"a")
    storage.engine.fail("write", StorageError("broken"))
    with pytest.raises(StorageError):
        storage.store.set(b"a", b"new")
    assert b"a" not in storage.cache.entries
    assert storage.value(b"a") == b"1"


def test_failed_batch_forgets_its_keys(storage: Storage) -> None:
    """The same for all keys of a batch: none shows what the engine did not take."""
    warm(storage, b"a", b"b")
    storage.engine.fail("write", StorageError("broken"))
    with pytest.raises(StorageError):
        storage.store.mset({b"a": b"new", b"b": b"new"})
    assert not storage.cache.entries
    assert storage.store.mget([b"a", b"b"], budget=ROOM) == {b"a": b"1", b"b": b"2"}


def test_nobody_sees_the_old_value_after_the_new_one(storage: Storage) -> None:
    """Before the engine has a batch, none of its keys is in the cache; afterwards all are, with the new value."""
    warm(storage, b"a", b"b")
    seen: list[list[bytes]] = []
    look = lambda: seen.append([key for key, entry in storage.cache.entries.items() if entry.answer])  # noqa: E731
    storage.engine.before("write", look)
    storage.engine.after("write", look)
    storage.store.mset({b"a": b"new", b"b": b"new"})
    assert seen == [[], []]
    assert list(storage.cache.entries) == [b"a", b"b"]
    assert (storage.value(b"a"), storage.value(b"b")) == (b"new", b"new")


def test_limit_holds_and_the_unused_go_first() -> None:
    """Past its limit the cache lets go of what was not used since its last turn, and keeps the rest."""
    cache = HotCache(10 * (ENTRY_COST + 2))
    for number in range(10):
        cache.put(b"%d" % number, b"v", 0)
    for number in (0, 1, 2):
        cache.entries[b"%d" % number].used = True
    for letter in (b"x", b"y"):
        cache.put(letter, b"v", 0)
    assert set(cache.entries) == {b"0", b"1", b"2", b"5", b"6", b"7", b"8", b"9", b"x", b"y"}
    assert cache.size == 10 * (ENTRY_COST + 2)


def test_value_too_large_for_the_cache() -> None:
    """A value of more than an eighth of the limit would push out too much."""
    cache = HotCache(8 * (ENTRY_COST + 101))
    cache.put(b"k", b"v" * 100, 0)
    assert b"k" in cache.entries
    cache.put(b"k", b"v" * 101, 0)
    assert b"k" not in cache.entries


def test_switched_off_and_resized() -> None:
    """With 0 nothing is kept, also when that comes later."""
    cache = HotCache(0)
    cache.put(b"k", b"v", 0)
    assert not cache.entries
    cache.resize(ROOM)
    cache.put(b"k", b"v", 0)
    cache.resize(0)
    assert not cache.entries
    assert cache.size == 0


def test_entry_cost_is_what_python_takes() -> None:
    """The size reckoned is near the memory really taken (from below by at most a tenth)."""
    cache = HotCache(1 << 30)
    pairs = [(b"key:%08d" % number, b"x" * 100) for number in range(20_000)]
    tracemalloc.start()
    for key, value in pairs:
        cache.put(bytes(bytearray(key)), bytes(bytearray(value)), 0)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sys.getsizeof(cache.entries) > 0
    assert 0.9 * taken < cache.size < 1.5 * taken


def test_readers_never_go_back_under_concurrent_writes(storage: Storage) -> None:
    """While one thread writes rising numbers, no reader sees a number fall; at the end all see the last."""
    storage.store.set(b"n", b"0")
    last, failures = 3000, []
    done = threading.Event()

    def read() -> None:
        seen = 0
        while not done.is_set():
            number = int(storage.value(b"n") or -1)
            if number < seen:
                failures.append((seen, number))
            seen = number

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    chance = random.Random(1)
    for number in range(1, last + 1):
        storage.store.set(b"n", b"%d" % number)
        if chance.random() < 0.1:
            storage.cache.drop(b"n")
    done.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert storage.value(b"n") == b"%d" % last


def test_one_fsync_serves_all_who_wait(storage: Storage) -> None:
    """Writes that come in while an fsync runs share the next one."""
    writer = storage.writer
    writer.durable = True
    entered, release = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert release.wait(10)

    storage.engine.before("sync", hold)
    threads = [threading.Thread(target=writer.write, args=([(b"t%d" % n, b"v", 0)], math.inf)) for n in range(10)]
    threads[0].start()
    assert entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(storage.engine.called("write")) < 2 + len(threads):  # the format mark, the fixture's, and theirs
        assert any(thread.is_alive() for thread in threads)
    release.set()
    for thread in threads:
        thread.join(10)
    assert len(storage.engine.called("sync")) == 2
