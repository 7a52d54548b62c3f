"""Reading and writing single keys and batches."""

from __future__ import annotations

import time

import pytest

from kvtwisted.backends.local import records
from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, READ_AHEAD
from kvtwisted.commands.command import ENTRY_OVERHEAD
from kvtwisted.commands.get import Found
from kvtwisted.core.errors import (
    Corruption,
    InvalidKey,
    InvalidRequest,
    InvalidTtl,
    Overloaded,
    ResponseTooLarge,
    StorageError,
    TooLarge,
    WriteStalled,
)
from kvtwisted.core.limits import Limits
from tests.support.storage import BlockingStore as Store

from ...support.clocks import START_MS
from ...support.storage import PLENTY, Storage

BIG_KEY = b"k" * 1025
BIG_VALUE = bytes(1_048_577)


def test_set_get_delete(each_storage: Storage) -> None:
    """What was set is read, replaced and removed."""
    store = each_storage.store
    assert store.get(b"k") is None
    store.set(b"k", b"one")
    assert store.get(b"k") == Found(b"one", 0)
    store.set(b"k", b"")
    assert store.get(b"k") == Found(b"", 0)
    store.delete(b"k")
    assert store.get(b"k") is None
    store.delete(b"k")


def test_plain_value_is_stored_as_it_is(storage: Storage) -> None:
    """Key and value without a ttl are in the engine as they were sent, and nothing else is."""
    storage.store.set("ключ".encode(), "значение".encode())
    assert storage.data() == {"ключ".encode(): "значение".encode()}
    assert storage.index() == []


def test_largest_key_and_value(each_storage: Storage) -> None:
    """1,024 bytes of key and 1,048,576 bytes of value are kept."""
    key, value = b"k" * 1024, b"v" * 1_048_576
    each_storage.store.set(key, value, 60)
    assert each_storage.store.get(key) == Found(value, 60)


def test_ttl_is_stored_as_record_and_index_entry(storage: Storage) -> None:
    """One batch holds the envelope with the deadline, and the index entry."""
    storage.store.set(b"k", b"v", 10)
    deadline = START_MS + 10_000
    record, entry = storage.engine.called("write")[-1][0]
    assert record == (DATA, b"k", records.encode(b"v", deadline))
    assert entry == (EXPIRY, deadline.to_bytes(8, "big") + b"k", b"")


@pytest.mark.parametrize(
    ("passed_ms", "left"), [(0, 2), (1, 2), (999, 2), (1000, 1), (1001, 1), (1999, 1), (2000, None), (2001, None)]
)
def test_ttl_is_rounded_up(each_storage: Storage, passed_ms: int, left: int | None) -> None:
    """The last millisecond still counts as a second; at the deadline the key is gone for Get, MGet and scan."""
    store = each_storage.store
    store.set(b"k", b"v", 2)
    each_storage.time.advance(passed_ms)
    assert store.get(b"k") == (None if left is None else Found(b"v", left))
    assert store.mget([b"k"], budget=PLENTY) == ({} if left is None else {b"k": b"v"})
    assert store.scan(b"", budget=PLENTY).items == ([] if left is None else [(b"k", b"v")])


def test_set_without_ttl_clears_an_earlier_one(each_storage: Storage) -> None:
    """The key stays after the earlier deadline, also after a sweep."""
    store = each_storage.store
    store.set(b"k", b"old", 1)
    store.set(b"k", b"new")
    assert store.get(b"k") == Found(b"new", 0)
    each_storage.time.advance(5000)
    assert each_storage.sweeper.sweep(10).deleted == []
    assert store.get(b"k") == Found(b"new", 0)


def test_set_with_ttl_replaces_an_earlier_one(each_storage: Storage) -> None:
    """The later deadline counts, whether it is sooner or further away."""
    store = each_storage.store
    store.set(b"longer", b"v", 1)
    store.set(b"longer", b"v", 100)
    store.set(b"shorter", b"v", 100)
    store.set(b"shorter", b"v", 1)
    each_storage.time.advance(1000)
    each_storage.sweeper.sweep(10)
    assert store.get(b"longer") == Found(b"v", 99)
    assert store.get(b"shorter") is None


def test_mset_mget_mdelete(each_storage: Storage) -> None:
    """Batches write, read and remove; missing keys are left out and the order asked is kept."""
    store = each_storage.store
    store.mset({b"a": b"1", b"b": b"2", b"c": b"3"})
    assert list(store.mget([b"c", b"missing", b"a", b"c"], budget=PLENTY).items()) == [(b"c", b"3"), (b"a", b"1")]
    store.mdelete([b"a", b"missing", b"c"])
    assert store.mget([b"a", b"b", b"c"], budget=PLENTY) == {b"b": b"2"}


def test_mset_with_ttl(each_storage: Storage) -> None:
    """All keys of an MSet share its ttl."""
    store = each_storage.store
    store.mset({b"a": b"1", b"b": b"2"}, 3)
    assert store.get(b"a") == store.get(b"b")._replace(value=b"1") == Found(b"1", 3)  # type: ignore[union-attr]
    each_storage.time.advance(3000)
    assert store.mget([b"a", b"b"], budget=PLENTY) == {}


def test_batches_are_one_write(storage: Storage) -> None:
    """MSet and MDelete reach the engine as one batch each, which is atomic there, index entries included."""
    before = len(storage.engine.called("write"))
    storage.store.mset({b"a": b"1", b"b": b"2"}, 5)
    storage.store.mdelete([b"a", b"b"])
    assert [len(mutations) for (mutations,) in storage.engine.called("write")[before:]] == [4, 4]


def test_empty_batches_touch_nothing(storage: Storage) -> None:
    """An empty MSet, MGet or MDelete succeeds without a write."""
    before = len(storage.engine.called("write"))
    storage.store.mset({})
    storage.store.mdelete([])
    assert storage.store.mget([], budget=0) == {}
    assert len(storage.engine.called("write")) == before


def test_mget_reads_one_view(storage: Storage) -> None:
    """MGet asks the engine once for all keys, each once."""
    storage.store.mset({b"a": b"1", b"b": b"2"})
    storage.store.mget([b"a", b"b", b"a"], budget=PLENTY)
    assert [call[:2] for call in storage.engine.called("multi_get")] == [([b"a", b"b"], PLENTY)]


def test_large_mget_is_from_one_view(storage: Storage) -> None:
    """A write that comes in while more keys are read than the engine takes at once is seen at all of them."""
    keys = [b"%03d" % number for number in range(READ_AHEAD + 1)]
    storage.store.mset(dict.fromkeys(keys, b"old"))
    storage.engine.after("multi_get", lambda: storage.store.mset(dict.fromkeys(keys, b"new")))
    assert set(storage.store.mget(keys, budget=PLENTY).values()) == {b"new"}


def test_mget_does_not_count_what_has_expired(each_storage: Storage) -> None:
    """Expired values that are not swept yet take nothing of the budget."""
    store = each_storage.store
    store.mset({b"%d" % number: bytes(1000) for number in range(10)}, 1)
    store.set(b"live", b"v")
    each_storage.time.advance(1000)
    assert store.mget([*(b"%d" % number for number in range(10)), b"live"], budget=100) == {b"live": b"v"}


def test_mget_budget(each_storage: Storage) -> None:
    """An answer of exactly the budget passes, keys, values and overhead counted; one byte less is refused."""
    store = each_storage.store
    store.mset({b"aa": b"123", b"b": b""})
    size = (2 + 3 + ENTRY_OVERHEAD) + (1 + 0 + ENTRY_OVERHEAD)
    assert store.mget([b"aa", b"b", b"missing"], budget=size) == {b"aa": b"123", b"b": b""}
    with pytest.raises(ResponseTooLarge, match=f"^keys: the values exceed {size - 1} bytes.*ask for fewer"):
        store.mget([b"aa", b"b"], budget=size - 1)


def test_mget_of_more_than_memory_may_hold(each_storage: Storage) -> None:
    """Values over the budget are refused while they are read."""
    each_storage.store.mset({b"a": b"x" * 600, b"b": b"x" * 600})
    with pytest.raises(ResponseTooLarge, match="exceed 1000 bytes"):
        each_storage.store.mget([b"a", b"b"], budget=1000)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda store: store.set(b"", b"v"), InvalidKey),
        (lambda store: store.set(BIG_KEY, b"v"), InvalidKey),
        (lambda store: store.set(b"k", BIG_VALUE), TooLarge),
        (lambda store: store.set(b"k", b"v", -1), InvalidTtl),
        (lambda store: store.get(b""), InvalidKey),
        (lambda store: store.delete(b""), InvalidKey),
        (lambda store: store.mset({b"k": b"v", b"": b"v"}), InvalidKey),
        (lambda store: store.mset({b"k": b"v", b"l": BIG_VALUE}), TooLarge),
        (lambda store: store.mset({b"k": b"v"}, -1), InvalidTtl),
        (lambda store: store.mset({b"%d" % n: b"" for n in range(5)}), TooLarge),
        (lambda store: store.mget([b"k", b""], budget=PLENTY), InvalidKey),
        (lambda store: store.mget([b"k"] * 5, budget=PLENTY), TooLarge),
        (lambda store: store.mdelete([b"k", b""]), InvalidKey),
        (lambda store: store.mdelete([b"k"] * 5), TooLarge),
        (lambda store: store.scan(BIG_KEY, budget=PLENTY), InvalidKey),
        (lambda store: store.scan(b"", cursor=BIG_KEY, budget=PLENTY), InvalidKey),
        (lambda store: store.scan(b"", limit=-1, budget=PLENTY), InvalidRequest),
    ],
)
def test_bad_input_touches_nothing(call, error: type[InvalidRequest]) -> None:  # type: ignore[no-untyped-def]
    """A refused request does not reach the engine at all."""
    storage = Storage(limits=Limits(max_batch_keys=4))
    before = len(storage.engine.calls)
    with pytest.raises(error):
        call(storage.store)
    assert len(storage.engine.calls) == before
    assert storage.data() == {}


def test_limits_may_be_replaced(storage: Storage) -> None:
    """New limits hold for the next request."""
    storage.store.mset({b"a": b"", b"b": b""})
    storage.store.limits = Limits(max_batch_keys=1)
    with pytest.raises(TooLarge, match=r"limits\.max_batch_keys is 1$"):
        storage.store.mset({b"a": b"", b"b": b""})


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.set(b"k", b"v"),
        lambda store: store.delete(b"k"),
        lambda store: store.mset({b"k": b"v"}),
        lambda store: store.mdelete([b"k"]),
    ],
)
def test_writes_pass_the_deadline_on(storage: Storage, call) -> None:  # type: ignore[no-untyped-def]
    """Every write gives up at its deadline while RocksDB stalls."""
    storage.engine.fail("write", WriteStalled("stalled"))
    overdue = time.monotonic()

    class Late:
        def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
            return lambda *args: getattr(storage.store, name)(*args, deadline=overdue)

    with pytest.raises(Overloaded):
        call(Late())
    storage.engine.heal("write")
    assert storage.data() == {}


def test_engine_failures_are_raised(storage: Storage) -> None:
    """What the engine raises reaches the caller as it is."""
    for method in ("write", "get", "multi_get", "scan"):
        storage.engine.fail(method, StorageError(f"{method} broke"))
    with pytest.raises(StorageError, match="write broke"):
        storage.store.set(b"k", b"v")
    with pytest.raises(StorageError, match="get broke"):
        storage.store.get(b"k")
    with pytest.raises(StorageError, match="multi_get broke"):
        storage.store.mget([b"k"], budget=PLENTY)
    with pytest.raises(StorageError, match="scan broke"):
        storage.store.scan(b"", budget=PLENTY)


def test_corrupt_records_are_never_values(storage: Storage) -> None:
    """Get, MGet and scan refuse a record that cannot be read; Set replaces it."""
    storage.engine.write([(DATA, b"k", b"\xff\x09")])
    for read in (
        lambda: storage.store.get(b"k"),
        lambda: storage.store.mget([b"k"], budget=PLENTY),
        lambda: storage.store.scan(b"", budget=PLENTY),
    ):
        with pytest.raises(Corruption):
            read()
    storage.store.set(b"k", b"fine")
    assert storage.value(b"k") == b"fine"


def test_recency_is_told_of_reads_and_writes(storage: Storage) -> None:
    """Keys that were set, found or deleted count as used; those missing or expired do not."""
    store = storage.store
    store.mset({b"a": b"", b"b": b"", b"c": b"", b"d": b""})
    store.set(b"expired", b"", 1)
    storage.time.advance(1000)
    storage.restart()
    store = storage.store
    store.get(b"a")
    store.get(b"missing")
    store.get(b"expired")
    store.mget([b"b", b"gone", b"expired"], budget=PLENTY)
    store.set(b"new", b"")
    store.mset({b"batch": b""})
    keys = [b"a", b"b", b"c", b"new", b"batch", b"missing", b"gone", b"expired"]
    assert [key for key in keys if key in storage.recency] == [b"a", b"b", b"new", b"batch"]


def test_store_works_without_recency(storage: Storage) -> None:
    """One of its own will do."""
    store = Store(storage.engine, storage.writer, storage.clock, limits=Limits())
    store.set(b"a", b"1")
    assert store.get(b"a") == Found(b"1", 0)
    assert store.mget([b"a"], budget=PLENTY) == {b"a": b"1"}
