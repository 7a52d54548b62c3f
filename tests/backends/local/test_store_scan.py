"""Scans: ranges, pages, budgets and deadlines."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local import pages as pages_module
from kvtwisted.commands.command import ENTRY_OVERHEAD
from kvtwisted.commands.ranges import prefix_end
from kvtwisted.core.errors import DeadlineExceeded, ResponseTooLarge

from ...support.clocks import ScriptedTime
from ...support.pages import page_of
from ...support.properties import repeatable
from ...support.storage import PLENTY, Storage

_keys = st.sets(st.text("abé\U0001f600/", min_size=1, max_size=4).map(str.encode), max_size=30)


def _filled(keys: set[bytes]) -> Storage:
    storage = Storage()
    storage.store.mset({key: b"v:" + key for key in keys})
    return storage


def test_prefix_scan_in_byte_order(each_storage: Storage) -> None:
    """Only keys with the prefix, in the order of their bytes; an empty prefix is everything."""
    keys = [b"user", b"user/", b"user/1", b"user/10", "user/é".encode(), "user/\U0001f600".encode(), b"user0", b"z"]
    each_storage.store.mset({key: key[-1:] for key in reversed(keys)})
    page = each_storage.store.scan(b"user/", budget=PLENTY)
    assert page == page_of([(key, key[-1:]) for key in keys[1:6]], b"")
    assert [key for key, _ in each_storage.store.scan(b"", budget=PLENTY).items] == keys
    assert each_storage.store.scan(b"nobody", budget=PLENTY) == page_of([], b"")


def test_keys_only(storage: Storage) -> None:
    """Values are left empty, and do not count towards the budget."""
    storage.store.mset({b"a": b"x" * 1000, b"b": b"x" * 1000})
    assert storage.store.scan(b"", keys_only=True, budget=100) == page_of([(b"a", b""), (b"b", b"")], b"")


def test_scan_gives_the_engine_both_bounds(storage: Storage) -> None:
    """A prefix scan never reads past its range; one over everything has no end."""
    storage.store.scan(b"p", budget=PLENTY)
    storage.store.scan(b"p", cursor=b"pq", budget=PLENTY)
    storage.store.scan(b"p", cursor=b"a", budget=PLENTY)
    storage.store.scan(b"", budget=PLENTY)
    ranges = [(start, end) for start, end, *_ in storage.engine.called("scan")]
    assert ranges == [(b"p", b"q"), (b"pq\0", b"q"), (b"p", b"q"), (b"", None)]


def test_cursor_past_the_prefix(storage: Storage) -> None:
    """A cursor behind the prefix's last possible key is the end, without a look."""
    storage.store.set(b"p1", b"")
    before = len(storage.engine.called("scan"))
    assert storage.store.scan(b"p", cursor=b"q", budget=PLENTY) == page_of([], b"")
    assert len(storage.engine.called("scan")) == before


@repeatable
@given(_keys, st.sampled_from(["", "a", "é", "/", "\U0001f600"]), st.integers(1, 8), st.booleans())
def test_pages_make_up_the_whole(keys: set[bytes], prefix: str, limit: int, keys_only: bool) -> None:
    """Paging with any limit gives what one scan gives; each page but the last is full, and says that more comes."""
    store = _filled(keys).store
    whole = store.scan(prefix.encode(), keys_only=keys_only, budget=PLENTY)
    assert [key for key, _ in whole.items] == sorted(key for key in keys if key.startswith(prefix.encode()))
    assert whole.next_cursor == b""
    paged: list[tuple[bytes, bytes]] = []
    cursor = b""
    while True:
        page = store.scan(prefix.encode(), cursor=cursor, limit=limit, keys_only=keys_only, budget=PLENTY)
        paged += page.items
        cursor = page.next_cursor
        if not cursor:
            break
        assert len(page.items) == limit
        assert cursor == page.items[-1][0]
    assert paged == whole.items


_values = st.one_of(st.binary(max_size=30), st.sampled_from([b"", b"\xff", b"text", b"a\xffb", bytes(1000)]))


@repeatable
@given(
    st.lists(st.tuples(_values, st.sampled_from([0, 0, 0, 1, 9])), max_size=80),
    st.integers(0, 90), st.integers(1, 2000), st.booleans(), st.sampled_from([b"", b"k005", b"k05"]),
)  # fmt: skip
def test_all_at_once_is_one_by_one(
    entries: list[tuple[bytes, int]], limit: int, budget: int, keys_only: bool, cursor: bytes
) -> None:
    """Pairs that a page takes in one go make the page, or the error, that each of them by itself would."""
    storage = Storage()
    for number, (value, ttl) in enumerate(entries):
        storage.store.set(b"k%03d" % number, value, ttl)
    storage.time.advance(5000)

    def outcome() -> object:
        try:
            return storage.store.scan(b"k", cursor=cursor, limit=limit, keys_only=keys_only, budget=budget)
        except ResponseTooLarge as error:
            return str(error)

    at_once = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages_module, "_SOME", len(entries))
        assert outcome() == at_once


def test_large_scan_is_taken_all_at_once(each_storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked at by itself, unless it expires."""
    pairs = {b"%05d" % number: b"v" for number in range(1000)}
    each_storage.store.mset(pairs)
    alone: list[bytes] = []
    plain = pages_module.Gathered._add_one

    def noting(self: pages_module.Gathered, key: bytes, stored: bytes) -> None:
        alone.append(key)
        plain(self, key, stored)

    monkeypatch.setattr(pages_module.Gathered, "_add_one", noting)
    assert dict(each_storage.store.scan(b"", budget=PLENTY).items) == pairs
    assert alone == []
    page = each_storage.store.scan(b"", limit=900, budget=PLENTY)
    assert (len(page.items), page.next_cursor, alone) == (900, b"00899", [b"00900"])


@pytest.mark.parametrize("limit", [2, 3])
def test_next_cursor_only_when_there_is_more(storage: Storage, limit: int) -> None:
    """A page that ends with the last live key is the end, even when it is full or expired keys follow."""
    storage.store.mset({b"a": b"", b"b": b""})
    storage.store.mset({b"c": b"", b"d": b""}, 1)
    storage.time.advance(1000)
    assert storage.store.scan(b"", limit=limit, budget=PLENTY) == page_of([(b"a", b""), (b"b", b"")], b"")


def test_pages_by_budget(each_storage: Storage) -> None:
    """With a limit or a cursor a page ends before the budget; pages make up the whole."""
    store = each_storage.store
    store.mset({b"k%02d" % n: b"v" * n for n in range(20)})
    budget = 3 * (3 + 19 + ENTRY_OVERHEAD)
    items: list[tuple[bytes, bytes]] = []
    page = store.scan(b"", limit=1000, budget=budget)
    pages = 0
    while page.items:
        pages += 1
        items += page.items
        assert sum(len(key) + len(value) + ENTRY_OVERHEAD for key, value in page.items) <= budget
        if not page.next_cursor:
            break
        page = store.scan(b"", cursor=page.next_cursor, budget=budget)
    assert items == [(b"k%02d" % n, b"v" * n) for n in range(20)]
    assert 3 < pages < 20


def test_budget_to_the_byte(storage: Storage) -> None:
    """An answer of exactly the budget fits; with one byte less the last entry is left for the next page."""
    storage.store.mset({b"a": b"12", b"b": b"34"})
    size = 2 * (1 + 2 + ENTRY_OVERHEAD)
    everything = [(b"a", b"12"), (b"b", b"34")]
    assert storage.store.scan(b"", limit=5, budget=size) == page_of(everything, b"")
    assert storage.store.scan(b"", budget=size) == page_of(everything, b"")
    assert storage.store.scan(b"", limit=5, budget=size - 1) == page_of(everything[:1], b"a")
    assert storage.store.scan(b"", cursor=b"\0", budget=size - 1) == page_of(everything[:1], b"a")


def test_whole_scan_over_the_budget(storage: Storage) -> None:
    """Without limit and cursor an answer over the budget is refused, never cut; the message says to page."""
    storage.store.mset({b"a": b"12", b"b": b"34"})
    size = 2 * (1 + 2 + ENTRY_OVERHEAD)
    with pytest.raises(ResponseTooLarge) as caught:
        storage.store.scan(b"", budget=size - 1)
    assert str(caught.value) == (
        f"prefix: the answer exceeds {size - 1} bytes, the limit of one answer; page with limit and cursor"
    )


def test_entry_over_the_budget_is_not_cut(storage: Storage) -> None:
    """A page holds at least one entry, so that paging always gets on."""
    storage.store.mset({b"a": b"x" * 100, b"b": b"y" * 100})
    assert storage.store.scan(b"", limit=9, budget=10) == page_of([(b"a", b"x" * 100)], b"a")
    assert storage.store.scan(b"", cursor=b"a", limit=9, budget=10) == page_of([(b"b", b"y" * 100)], b"")


def test_expired_keys_do_not_count(storage: Storage) -> None:
    """Expired keys use up neither limit nor budget."""
    storage.store.mset({b"a%d" % n: b"x" * 100 for n in range(9)}, 1)
    storage.store.mset({b"b": b"1", b"c": b"2"})
    storage.time.advance(1000)
    budget = 2 * (1 + 1 + ENTRY_OVERHEAD)
    assert storage.store.scan(b"", limit=2, budget=budget) == page_of([(b"b", b"1"), (b"c", b"2")], b"")


def test_scan_past_its_deadline(storage: Storage) -> None:
    """A scan gives up at its deadline, with a sentence that says how to ask for less."""
    storage.store.set(b"a", b"")
    with pytest.raises(DeadlineExceeded, match="ask for less with limit and cursor"):
        storage.store.scan(b"", budget=PLENTY, deadline=time.monotonic() - 1)
    assert storage.store.scan(b"", budget=PLENTY, deadline=time.monotonic() + 60).items == [(b"a", b"")]


def test_long_scan_looks_at_the_time(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is looked at now and then on the way, also over keys that have expired."""
    storage.store.mset({b"%05d" % n: b"" for n in range(3000)}, 1)
    storage.time.advance(1000)
    looks = ScriptedTime(1.0, 2.0, 3.5)
    monkeypatch.setattr(pages_module, "time", looks)
    with pytest.raises(DeadlineExceeded):
        storage.store.scan(b"", budget=PLENTY, deadline=3.0)
    with pytest.raises(StopIteration):
        looks.monotonic()


@repeatable
@given(st.binary(max_size=3), st.binary(max_size=5))
def test_prefix_end(prefix: bytes, key: bytes) -> None:
    """A key starts with the prefix exactly when it lies from the prefix up to its end."""
    end = prefix_end(prefix)
    assert key.startswith(prefix) == (prefix <= key and (end is None or key < end))


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"", None), (b"a", b"b"), (b"a\xff", b"b"), (b"\xff\xff", None), (b"a\xfe", b"a\xff")]
)
def test_prefix_end_by_example(prefix: bytes, end: bytes | None) -> None:
    """Bytes of 0xFF carry over to the one before."""
    assert prefix_end(prefix) == end
