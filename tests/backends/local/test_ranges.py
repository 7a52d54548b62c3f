"""Scans with all that they may ask for, against a sorted dict; paging either way loses nothing and repeats nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import DATA, Engine
from kvtwisted.backends.local.engines.pieces import SKIPS
from kvtwisted.backends.local.pages import folder_of
from kvtwisted.commands.command import ENTRY_OVERHEAD
from kvtwisted.commands.scan import Page
from kvtwisted.core.errors import DeadlineExceeded, ResponseTooLarge
from kvtwisted.core.options import EngineOptions

from ...support.engines import FaultyEngine
from ...support.storage import PLENTY, Storage
from .engines.support import INSTALLED

_text = st.text("ab/é", max_size=5)
_asked = st.fixed_dictionaries(
    {"prefix": st.sampled_from(["", "", "a", "a/", "b"])},
    optional={
        "start": _text, "end": _text, "reverse": st.booleans(), "count_only": st.booleans(),
        "delimiter": st.sampled_from(["/", "/", "b", "é", "//"]), "with_expiries": st.booleans(),
        "keys_only": st.booleans(),
    },
)  # fmt: skip


def _arguments(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: value.encode() if isinstance(value, str) else value for name, value in asked.items()}


def _expected(pairs: dict[bytes, tuple[bytes, int]], asked: dict[str, Any]) -> list[tuple[bytes, bytes | None, int]]:
    """The entries in order: key, value and deadline; of a folder its name and None."""
    prefix, start, end = asked["prefix"], asked.get("start", b""), asked.get("end", b"")
    delimiter = asked.get("delimiter", b"")
    inside = [
        (folder_of(key, len(prefix), delimiter) if delimiter else b"", key)
        for key in sorted(pairs, reverse=asked.get("reverse", False))
        if key.startswith(prefix) and key >= start and (not end or key < end)
    ]
    entries: list[tuple[bytes, bytes | None, int]] = []
    for folder, keys in groupby(inside, lambda pair: pair[0]):
        if folder:
            entries.append((folder, None, 0))
        else:
            entries += [(key, b"" if asked.get("keys_only") else pairs[key][0], pairs[key][1]) for _, key in keys]
    return entries


def _entries(page: Page, asked: dict[str, Any]) -> list[tuple[bytes, bytes | None, int]]:
    """Those of a page, as `_expected` has them, each list of it being in order."""
    reverse = asked.get("reverse", False)
    expiries = page.expiries or [0] * len(page.keys)
    assert len(page.keys) == len(page.values) == len(expiries)
    keys: list[tuple[bytes, bytes | None, int]] = list(zip(page.keys, page.values, expiries))
    folders: list[tuple[bytes, bytes | None, int]] = [(folder, None, 0) for folder in page.prefixes]
    assert keys == sorted(keys, reverse=reverse, key=lambda entry: entry[0])
    assert folders == sorted(folders, reverse=reverse, key=lambda entry: entry[0])
    return sorted(keys + folders, reverse=reverse, key=lambda entry: entry[0])


def _paged(storage: Storage, asked: dict[str, Any], **bounds: Any) -> Iterator[Page]:
    cursor = b""
    while True:
        page = storage.store.scan(**{"budget": PLENTY, **asked, **bounds}, cursor=cursor)
        yield page
        if not page.next_cursor:
            return
        assert cursor == b"" or (page.next_cursor < cursor if asked.get("reverse") else page.next_cursor > cursor)
        cursor = page.next_cursor


@example({"a/": 0, "a/a": 0, "a": 5, "b": 0}, {"prefix": "", "delimiter": "/"}, 1)
@example({"a/a": 5, "a/b": 0, "b/": 0}, {"prefix": "", "delimiter": "/", "reverse": True}, 1)
@given(
    st.dictionaries(st.text("ab/é", min_size=1, max_size=5), st.sampled_from([0, 0, 5, 50]), max_size=30),
    _asked,
    st.integers(1, 7),
)
def test_all_arguments(keys: dict[str, int], asked: dict[str, Any], limit: int) -> None:
    """All at once, and in pages by limit and by budget: the same entries, in order, as a sorted dict has."""
    storage = Storage()
    for key, ttl in keys.items():
        storage.store.set(key.encode(), b"value of " + key.encode(), ttl)
    now = storage.clock.now_ms()
    storage.time.advance(10_000)
    asked = _arguments(asked)
    dates = asked.get("with_expiries", False)
    alive = {
        key.encode(): (b"value of " + key.encode(), now + ttl * 1000 if ttl and dates else 0)
        for key, ttl in keys.items()
        if ttl != 5
    }
    expected = _expected(alive, asked)
    if asked.get("count_only"):
        whole = storage.store.scan(**asked, budget=PLENTY)
        assert (whole.keys, whole.next_cursor, whole.counted) == ([], b"", len(expected))
        assert [page.counted for page in _paged(storage, asked, limit=limit)][:-1] == [limit] * (
            max(len(expected) - 1, 0) // limit
        )
        assert sum(page.counted for page in _paged(storage, asked, limit=limit)) == len(expected)
        return
    whole = storage.store.scan(**asked, budget=PLENTY)
    assert _entries(whole, asked) == expected
    assert whole.next_cursor == b""
    for bounds in ({"limit": limit}, {"limit": 1000, "budget": limit * (ENTRY_OVERHEAD + 8)}):
        found = []
        for page in _paged(storage, asked, **bounds):
            entries = _entries(page, asked)
            assert len(entries) <= bounds["limit"]
            found += entries
        assert found == expected


def _engines() -> list[Any]:
    return [pytest.param(name, id=name) for name in INSTALLED]


@pytest.fixture(params=_engines())
def many(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """A store, over each engine, with keys in folders, of which most are deleted, and one has very many."""
    engine: Engine = open_engine(request.param, str(tmp_path / "data"), EngineOptions())
    storage = Storage(FaultyEngine(engine))
    for first in range(0, 12 * SKIPS, SKIPS):
        keys = [b"f%02d/%06d" % (first // SKIPS, number) for number in range(first, first + SKIPS)]
        for value in (b"v", None):
            engine.write([(DATA, key, value) for key in (keys if value else keys[5:-5])])
    engine.write([(DATA, b"g/%06d" % number, b"v") for number in range(20_000)])
    engine.write([(DATA, b"plain%d" % number, b"v") for number in range(3)])
    yield storage
    engine.close()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [0, 3, 5])
def test_over_deleted_keys(many: Storage, reverse: bool, limit: int) -> None:
    """Every engine, either way: pairs, counts and folders, also where each is behind many deleted keys."""
    living = sorted(many.data(), reverse=reverse)
    assert len(living) == 20_000 + 12 * 10 + 3
    asked = {"prefix": b"f", "reverse": reverse}
    found = [key for page in _paged(many, asked, limit=17 * limit) for key in page.keys]
    assert found == [key for key in living if key.startswith(b"f")]
    counted = [page.counted for page in _paged(many, {**asked, "count_only": True}, limit=17 * limit)]
    assert sum(counted) == len(found)
    folders = [
        (page.keys, page.prefixes)
        for page in _paged(many, {"prefix": b"", "reverse": reverse, "delimiter": b"/"}, limit=limit)
    ]
    expected = sorted([*(b"f%02d/" % number for number in range(12)), b"g/"], reverse=reverse)
    assert [folder for _, some in folders for folder in some] == expected
    assert [key for keys, _ in folders for key in keys] == sorted([b"plain0", b"plain1", b"plain2"], reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
def test_folders_are_sought_over(reverse: bool) -> None:
    """However many keys one has, few of them are read."""
    storage = Storage()
    storage.engine.write([(DATA, b"%c/%05d" % (65 + number % 3, number), b"v") for number in range(9000)])
    read = [0]
    plain = storage.engine.scan

    def counting(*arguments: Any, **options: Any) -> Any:
        scan = plain(*arguments, **options)
        take = scan.take

        def counted(most: int) -> Any:
            pairs = take(most)
            read[0] += len(pairs)
            return pairs

        return type("", (), {"take": staticmethod(counted), "seek": staticmethod(scan.seek)})

    storage.engine.scan = counting  # type: ignore[method-assign]
    page = storage.store.scan(b"", delimiter=b"/", reverse=reverse, budget=PLENTY)
    assert list(page.prefixes) == sorted([b"A/", b"B/", b"C/"], reverse=reverse)
    assert read[0] < 100


def test_cursors_and_folders(storage: Storage) -> None:
    """A cursor that is a folder leaves out all of it; one inside does not; in reverse either is where to go on."""
    storage.store.mset(dict.fromkeys((b"a/", b"a/1", b"a/2", b"b", b"c/1", b"c/1/x"), b""))

    def listed(cursor: bytes, **options: Any) -> list[bytes]:
        page = storage.store.scan(b"", cursor=cursor, delimiter=b"/", budget=PLENTY, **options)
        return sorted([*page.keys, *page.prefixes])

    assert listed(b"") == [b"a/", b"b", b"c/"]
    assert listed(b"a/") == [b"b", b"c/"]
    assert listed(b"a/1") == [b"a/", b"b", b"c/"]
    assert listed(b"a/2") == [b"b", b"c/"]
    assert listed(b"c/", reverse=True) == [b"a/", b"b"]
    assert listed(b"c/1", reverse=True) == [b"a/", b"b"]
    assert listed(b"c/1/x", reverse=True) == [b"a/", b"b", b"c/"]
    inside = storage.store.scan(b"c/", delimiter=b"/", budget=PLENTY)
    assert (inside.keys, inside.prefixes) == ([b"c/1"], [b"c/1/"])
    assert storage.store.scan(b"c/", cursor=b"a/", delimiter=b"/", budget=PLENTY) == inside


def test_expired_keys_make_no_folder(storage: Storage) -> None:
    """Nor do they keep one from being seen, or from being left."""
    storage.store.mset({b"a/%03d" % number: b"" for number in range(50)}, 1)
    storage.store.mset({b"b/%03d" % number: b"" for number in range(50)}, 1)
    storage.store.mset({b"a/020": b"", b"c": b""})
    storage.store.mset({b"b1/%03d" % number: b"" for number in range(50)}, 1)
    storage.time.advance(1000)
    for reverse in (False, True):
        page = storage.store.scan(b"", delimiter=b"/", reverse=reverse, budget=PLENTY)
        assert (page.keys, list(page.prefixes)) == ([b"c"], [b"a/"])


@settings(deadline=None)
@given(st.integers(0, 60), st.booleans(), st.sampled_from([b"", b"/"]), st.integers(1, 60), st.integers(0, 20))
def test_a_page_that_ends_early_loses_nothing(
    alive: int, reverse: bool, delimiter: bytes, limit: int, place: int
) -> None:
    """Wherever its time ran out among deleted keys, paging gives each entry once."""
    storage = Storage()
    keys = [b"%c%s/%02d" % (97 + number // 20, b"" if number % 7 else b"\0", number) for number in range(60)]
    living = set(keys[alive % 7 :: alive or 1])
    engine = _Halting(storage, sorted(living), place)
    asked = {"prefix": b"", "reverse": reverse, "delimiter": delimiter}
    expected = _expected(dict.fromkeys(living, (b"v", 0)), asked)
    found = []
    for page in _paged(storage, asked, limit=limit, deadline=time.monotonic() + 600):
        found += _entries(page, asked)
    assert found == expected
    assert engine.halts > 0


class _Halting:
    """Makes every scan of a storage come to the end of its time after a few living keys, at any place behind them."""

    def __init__(self, storage: Storage, living: list[bytes], place: int) -> None:
        storage.engine.write([(DATA, key, b"v") for key in living])
        self._scan = storage.engine.scan
        self.halts = 0
        self.place = place
        storage.engine.scan = self.scan  # type: ignore[method-assign,assignment]

    def scan(self, start: bytes, end: bytes | None, family: str = DATA, until: float = math.inf, **options: Any) -> Any:
        """See `Engine.scan`."""
        from kvtwisted.backends.local.engines.engine import ScanUnfinished

        own = self._scan(start, end, family, **options)
        reverse = options.get("reverse", False)
        halting = self

        class Scan:
            taken = b""
            left = 3

            def seek(self, place: bytes) -> None:
                own.seek(place)
                self.taken = place

            def take(self, most: int) -> Any:
                if until == -math.inf:
                    raise ScanUnfinished(end or b"\xff" if reverse else start)
                pairs = own.take(1)
                if self.left and pairs:
                    self.left -= 1
                    self.taken = pairs[0][0]
                    return pairs
                halting.halts += 1
                if not pairs:
                    return pairs
                # Anywhere between what was taken and what comes next.
                key = pairs[0][0]
                if reverse:
                    places = [key + b"\0", *(key + more for more in (b"\0\0", b"/", b"1", b"\xc3", b"\xff"))]
                    places = [place for place in places if not self.taken or place <= self.taken]
                else:
                    places = [key, *(key[:size] + more for size in range(1, len(key)) for more in (b"", b"\0"))]
                    places = [place for place in places if place > self.taken]
                raise ScanUnfinished(places[(halting.halts + halting.place) % len(places)])

        return Scan()


def test_counting_everything_fails_rather_than_part(storage: Storage) -> None:
    """Without a limit a count is whole, or an error."""
    storage.store.mset({b"%d" % number: b"" for number in range(10)})
    assert storage.store.scan(b"", count_only=True, budget=1).counted == 10
    with pytest.raises(DeadlineExceeded):
        storage.store.scan(b"", count_only=True, budget=1, deadline=time.monotonic() - 1)


def test_folders_take_room(storage: Storage) -> None:
    """They count towards the budget by their names."""
    storage.store.mset({b"%d/key" % number: b"v" * 100 for number in range(5)})
    size = 5 * (2 + ENTRY_OVERHEAD)
    assert len(storage.store.scan(b"", delimiter=b"/", budget=size).prefixes) == 5
    with pytest.raises(ResponseTooLarge):
        storage.store.scan(b"", delimiter=b"/", budget=size - 1)


def test_revision(storage: Storage) -> None:
    """A page has that of its view: of all that was written before, and of nothing later."""
    store = storage.store
    store.set(b"a", b"1")
    command = _scan()
    for read in (store.read, store.read_now):
        page: Any = read(command)
        assert page.revision == store.revision
    storage.engine.after("scan", lambda: store.set(b"b", b"2"))
    page = store.read(command)
    assert page.revision == store.revision - 1
    assert page.keys == [b"a"]
    empty: Any = store.read(_scan(start=b"x", end=b"b"))
    assert (empty.keys, empty.revision) == ([], store.revision)


def _scan(**options: Any) -> Any:
    from kvtwisted.commands.scan import Scan

    return Scan(b"", budget=PLENTY, **options)
