"""One view that lasts: all of a range, whatever is written meanwhile, and where to go on once it is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import DATA, CanReopen, Engine
from kvtwisted.backends.local.engines.pieces import SKIPS
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.backends.local.stream_views import StreamView
from kvtwisted.commands.command import ENTRY_OVERHEAD
from kvtwisted.commands.scan import Page
from kvtwisted.commands.scan_stream import ScanStream
from kvtwisted.core.errors import Unavailable
from kvtwisted.core.options import EngineOptions

from ...support.engines import FaultyEngine
from ...support.storage import Storage
from .engines.support import INSTALLED, PERSISTENT

PATIENCE = 30.0
Entry = tuple[bytes, bytes, int]


def view(storage: Storage, prefix: bytes = b"", *, budget: int = 4096, **options: Any) -> StreamView:
    """One of what a stream asks for."""
    command = ScanStream(prefix, budget=budget, **options)
    return StreamView(storage.engine, storage.writer, storage.clock, command)


def entries(page: Page) -> list[Entry]:
    """Key, value and deadline of each pair."""
    expiries = page.expiries or [0] * len(page.keys)
    assert len(page.keys) == len(page.values) == len(expiries)
    return list(zip(page.keys, page.values, expiries))


def rest(reading: StreamView) -> tuple[list[Entry], bytes]:
    """All further pairs, and the cursor of the last page."""
    found: list[Entry] = []
    while not reading.is_over:
        page = reading.page()
        found += entries(page)
        assert page.keys or reading.is_over
        assert not page.next_cursor or reading.is_over
    return found, page.next_cursor


@pytest.fixture(params=INSTALLED)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """A store over each engine, with large values in files."""
    engine: Engine = open_engine(request.param, str(tmp_path / "data"), EngineOptions())
    yield Storage(FaultyEngine(engine), files=ValueFiles(str(tmp_path / "values")), spill_threshold=10_000)
    engine.close()


def _released(storage: Storage) -> bool:
    return not storage.writer.commits.guards.registered and not storage.writer.files._readers


@given(
    st.dictionaries(
        st.text("ab/é", min_size=1, max_size=4), st.tuples(st.integers(0, 3000), st.sampled_from([0, 5, 50]))
    ),
    st.text("ab", max_size=1), st.text("ab/", max_size=2), st.text("ab/", max_size=2), st.text("ab/é", max_size=3),
    st.integers(0, 9), st.booleans(), st.sampled_from([1, 100, 4000]),
)  # fmt: skip
def test_all_that_is_asked_for(
    keys: dict[str, tuple[int, int]],
    prefix: str,
    start: str,
    end: str,
    cursor: str,
    limit: int,
    reverse: bool,
    budget: int,
) -> None:
    """Any range either way, as a sorted dict has it, in pages of some bytes; what has expired is left out."""
    storage = Storage()
    now = storage.clock.now_ms()
    for key, (size, ttl) in keys.items():
        storage.store.set(key.encode(), b"v" * size, ttl)
    storage.time.advance(10_000)
    asked = {
        "start": start.encode(),
        "end": end.encode(),
        "cursor": cursor.encode(),
        "reverse": reverse,
        "limit": limit,
    }
    expected = [
        (key.encode(), b"v" * size, now + ttl * 1000 if ttl else 0)
        for key, (size, ttl) in sorted(keys.items(), key=lambda pair: pair[0].encode(), reverse=reverse)
        if key.startswith(prefix) and key.encode() >= start.encode() and (not end or key.encode() < end.encode())
        if not cursor or (key.encode() < cursor.encode() if reverse else key.encode() > cursor.encode())
        if ttl != 5
    ]
    reading = view(storage, prefix.encode(), budget=budget, **asked)
    found: list[Entry] = []
    while not reading.is_over:
        page = reading.page()
        assert page.revision == reading.revision == storage.store.revision
        some = entries(page)
        assert len(some) < 2 or sum(len(key) + len(value) + ENTRY_OVERHEAD for key, value, _ in some) <= budget
        found += some
    assert found == (expected[:limit] if limit else expected)
    assert _released(storage)


@pytest.mark.parametrize("reverse", [False, True])
def test_one_view(storage: Storage, reverse: bool) -> None:
    """Writes and deletions after the first page do not show, nor does what goes meanwhile, files included."""
    keys = [b"%05d" % number for number in range(3000)]
    large = b"l" * 20_000
    storage.store.mset(dict.fromkeys(keys, b"old"))
    storage.store.mset({keys[number]: large for number in (10, 1500, 2990)})
    expected = [(key, storage.value(key), 0) for key in sorted(keys, reverse=reverse)]
    reading = view(storage, reverse=reverse)
    found = entries(reading.page())
    revision = reading.revision
    storage.store.mdelete(keys[::2])
    storage.store.mset(dict.fromkeys((*keys[1::2], b"00000+", b"zzz"), b"new"))
    storage.writer.commits.sync()
    more, cursor = rest(reading)
    assert (found + more, cursor) == (expected, b"")
    assert reading.revision == revision < storage.store.revision
    assert _released(storage)


@pytest.mark.parametrize("reverse", [False, True])
def test_over_deleted_keys(storage: Storage, reverse: bool) -> None:
    """Where there are very many the view is still one, unless one that it had was deleted."""
    keys = [b"k%05d" % number for number in range(20 * SKIPS)]
    for value in (b"v", None):
        storage.engine.write([(DATA, key, value) for key in (keys if value else keys[2:-2])])
    storage.store.mset({keys[9 * SKIPS]: b"v", keys[11 * SKIPS]: b"v"})
    living = sorted([*keys[:2], *keys[-2:], keys[9 * SKIPS], keys[11 * SKIPS]], reverse=reverse)
    reading = view(storage, budget=1, reverse=reverse)
    assert entries(reading.page()) == [(living[0], b"v", 0)]
    storage.store.set(b"z", b"new")
    storage.store.set(keys[3 * SKIPS], b"new")
    assert rest(reading) == ([(key, b"v", 0) for key in living[1:]], b"")

    storage.store.mdelete([keys[3 * SKIPS], b"z"])
    reading = view(storage, budget=1, reverse=reverse)
    reading.page()
    storage.store.delete(keys[11 * SKIPS])
    found, cursor = rest(reading)
    if cursor:  # an engine that can read on has no need to give up
        assert [key for key, _, _ in found] == living[1 : 3 if reverse else 4][: len(found)]
        again, cursor = rest(view(storage, reverse=reverse, cursor=cursor))
        assert cursor == b""
        assert [key for key, _, _ in found + again] == [key for key in living[1:] if key != keys[11 * SKIPS]]
    else:
        assert [key for key, _, _ in found] == living[1:]
    assert _released(storage)


@pytest.mark.parametrize("how", ["give_up", "close"])
@pytest.mark.parametrize("reverse", [False, True])
def test_given_up(storage: Storage, how: str, reverse: bool) -> None:
    """The next page is the last, and says where to go on; nothing is lost by that."""
    keys = [b"%05d" % number for number in range(3000)]
    storage.store.mset(dict.fromkeys(keys, b"v"))
    reading = view(storage, reverse=reverse)
    found = entries(reading.page())
    getattr(reading, how)()
    assert _released(storage) == (how == "close")
    more, cursor = rest(reading)
    assert cursor == (found + more)[-1][0]
    again, end = rest(view(storage, cursor=cursor, reverse=reverse))
    assert ([key for key, _, _ in found + more + again], end) == (sorted(keys, reverse=reverse), b"")
    assert _released(storage)


def test_given_up_before_the_first_page(storage: Storage) -> None:
    """There is no place to go on from."""
    reading = view(storage)
    reading.close()
    with pytest.raises(Unavailable):
        reading.page()
    assert reading.is_over
    assert _released(storage)


def test_given_up_amid_deleted_keys(tmp_path: Path) -> None:
    """A page that reads over them ends soon, with a cursor among them or at its last key."""
    engine = open_engine("rocksdict", str(tmp_path / "data"), EngineOptions())
    storage = Storage(FaultyEngine(engine))
    keys = [b"k%06d" % number for number in range(200 * SKIPS)]
    for value in (b"v", None):
        for first in range(0, len(keys), 10 * SKIPS):
            engine.write([(DATA, key, value) for key in keys[first : first + 10 * SKIPS]])
    storage.store.mset({b"a": b"v", b"z": b"v"})
    reading = view(storage)
    pages: list[Page] = []
    thread = threading.Thread(target=lambda: pages.append(reading.page()))
    thread.start()
    while not reading.revision:
        time.sleep(0.001)
    reading.close()
    thread.join(PATIENCE)
    assert reading.is_over
    if pages[0].next_cursor:
        assert b"a" <= pages[0].next_cursor < b"z"
    assert _released(storage)
    engine.close()


@pytest.mark.parametrize("name", PERSISTENT)
@pytest.mark.parametrize("how", ["reopen", "close"])
def test_it_ends_with_the_database(name: str, how: str, tmp_path: Path) -> None:
    """It keeps nothing of it; after some pages a cursor says where to go on."""
    engine = open_engine(name, str(tmp_path / "data"), EngineOptions())
    storage = Storage(FaultyEngine(engine))
    storage.store.mset({b"%05d" % number: b"v" for number in range(3000)})
    reading = view(storage)
    found = entries(reading.page())
    unopened = view(storage)
    assert isinstance(engine, CanReopen)
    getattr(engine, how)()
    more, cursor = rest(reading)
    assert cursor == (found + more)[-1][0]
    assert _released(storage)
    if how == "reopen":
        assert len(rest(unopened)[0]) == 3000
        engine.close()
    else:
        with pytest.raises(Unavailable):
            unopened.page()
    open_engine(name, str(tmp_path / "data"), EngineOptions()).close()


def test_expired_keys(storage: Storage) -> None:
    """They are left out, by the time at which their page is made; a page has deadlines."""
    storage.store.mset({b"%03d" % number: b"v" * 100 for number in range(100)}, 60)
    reading = view(storage)
    first = entries(reading.page())
    assert {deadline for _, _, deadline in first} == {storage.clock.now_ms() + 60_000}
    storage.time.advance(60_000)
    assert rest(reading) == ([], b"")
