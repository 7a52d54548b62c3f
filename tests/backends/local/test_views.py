"""One view for a page whose engine took several, and text of a place between keys."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import islice, product
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local import views
from kvtwisted.backends.local.engines.engine import DATA, Crossed, Pairs, ScanUnfinished, ignored
from kvtwisted.backends.local.engines.scans import Scan
from kvtwisted.backends.local.views import WrittenRange, text_after, text_before
from kvtwisted.commands.scan import Page
from kvtwisted.core.errors import DeadlineExceeded

from ...support.engines import FaultyEngine, memory_engine
from ...support.pages import page_of
from ...support.properties import repeatable
from ...support.storage import PLENTY, Storage


class PiecewiseEngine(FaultyEngine):
    """An engine to which everything from `first` to `last` looks like deleted keys, read in pieces of a key each."""

    def __init__(self, first: bytes = b"b", last: bytes = b"f") -> None:
        super().__init__(memory_engine())
        self._places = [bytes([code]) for code in range(first[0], last[0] + 1)]
        #: Called before each piece, with where it begins.
        self.between: Callable[[bytes], object] = lambda place: None

    def scan(
        self, start: bytes, end: bytes | None, family: str = DATA, until: float = math.inf, crossed: Crossed = ignored,
        *, reverse: bool = False,
    ) -> Pairs:  # fmt: skip
        """See `Engine.scan`."""
        own = super().scan(start, end, family, reverse=reverse)
        pairs = self._pairs(own, start, end, family, until, crossed, reverse)
        return Scan(lambda most: list(islice(pairs, 1)), end, "", own.seek)

    def _pairs(
        self, own: Pairs, start: bytes, end: bytes | None, family: str, until: float, crossed: Crossed, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of the scan's own view, but in the pieces as they are now, and as whoever is told lets it be."""
        whole = list(own)
        edges = [start, *(place for place in self._places if start < place and (end is None or place < end)), end]
        pieces: list[tuple[Any, Any]] = list(zip(edges, edges[1:]))
        for low, high in reversed(pieces) if reverse else pieces:
            inside = [pair for pair in whole if pair[0] >= low and (high is None or pair[0] < high)]
            if low in self._places[:-1] and high in self._places:
                if time.monotonic() > until:
                    raise ScanUnfinished(high if reverse else low)
                self.between(low)
                now = list(super().scan(low, high, family, reverse=reverse))
                first = now[0][0] if now else None
                if first is None:
                    crossed(low, high)
                else:
                    crossed(first + b"\0" if reverse else low, high if reverse else first)
                    inside = [pair for pair in inside if (pair[0] <= first if reverse else pair[0] >= first)]
            yield from inside


class Scene(Storage):
    """A store over such an engine, with a key at either end, and two in what looks like deleted keys."""

    def __init__(self, reverse: bool) -> None:
        self.reverse = reverse
        self.pieces = PiecewiseEngine()
        super().__init__(self.pieces)
        self.store.mset({b"a": b"0", b"c1": b"0", b"d1": b"0", b"z": b"0"})
        self.writes = 0

    def write_between(self, times: float, *deleted: bytes) -> None:
        """Before the third piece of so many scans: set a and z to a new number, and delete these keys, as one."""

        def between(place: bytes) -> None:
            if place == (b"c" if self.reverse else b"d") and self.writes < times:
                self.writes += 1
                number = b"%d" % self.writes
                self.writer.write([*((key, number, 0) for key in (b"a", b"z")), *((key, None, 0) for key in deleted)])

        self.pieces.between = between

    def scan(self, limit: int = 0, cursor: bytes = b"", seconds: float = 60) -> Page:
        """A page of everything."""
        deadline = time.monotonic() + seconds
        return self.store.scan(b"", cursor=cursor, limit=limit, budget=PLENTY, deadline=deadline, reverse=self.reverse)

    def page(self, *items: tuple[bytes, bytes], cursor: bytes = b"") -> Page:
        """The page with these pairs, given forwards."""
        return page_of(items[::-1] if self.reverse else items, cursor)


@pytest.fixture(params=[False, True], ids=["forwards", "reverse"])
def scene(request: pytest.FixtureRequest) -> Scene:
    """One to which nobody writes, scanned either way."""
    return Scene(request.param)


def test_without_writes_all_is_there(scene: Scene) -> None:
    """What does not change is in one view; so with a limit."""
    everything = scene.page(*((key, b"0") for key in (b"a", b"c1", b"d1", b"z")))
    assert scene.scan() == everything
    assert scene.scan(limit=5) == everything
    key = b"z" if scene.reverse else b"a"
    assert scene.scan(limit=1) == page_of([(key, b"0")], key)


def test_batch_is_not_seen_half_done(scene: Scene) -> None:
    """A key that was deleted from what was passed over has the scan begin again: it goes with all of its batch."""
    scene.write_between(3, b"c1", b"d1")
    assert scene.scan() == scene.page((b"a", b"3"), (b"z", b"3"))


def test_batch_behind_is_not_seen_at_all(scene: Scene) -> None:
    """What is written where nothing was passed over is not of the view, and does no harm to it."""
    scene.write_between(3, b"d1" if scene.reverse else b"c1")
    assert scene.scan() == scene.page(*((key, b"0") for key in (b"a", b"c1", b"d1", b"z")))
    assert scene.writes == 1


def test_new_keys_are_not_seen(scene: Scene) -> None:
    """Among deleted ones neither, where they are met first."""

    def between(place: bytes) -> None:
        scene.store.set(place + b"0", b"new")

    scene.pieces.between = between
    assert scene.scan() == scene.page(*((key, b"0") for key in (b"a", b"c1", b"d1", b"z")))


def test_page_is_cut(scene: Scene) -> None:
    """With a limit the page ends before what was deleted in what it passed over; the next one goes on there."""
    scene.write_between(math.inf, b"c1", b"d1")
    page = scene.scan(limit=5)
    if scene.reverse:
        assert page.items == [(b"z", b"0"), (b"d1", b"0")]
        assert b"c1" < page.next_cursor <= b"d1"
    else:
        assert page.items == [(b"a", b"0"), (b"c1", b"0")]
        assert b"c1" <= page.next_cursor < b"d1"
    scene.write_between(0)
    rest = scene.scan(limit=5, cursor=page.next_cursor)
    assert rest.items == [(b"a" if scene.reverse else b"z", b"1")]


def test_deletes_by_eviction_are_noticed(scene: Scene) -> None:
    """A key that was evicted from what was passed over is not missing in a page that lacks what was written after."""
    gone = b"c1" if scene.reverse else b"d1"

    def between(place: bytes) -> None:
        if place == gone[:1] and scene.value(gone) is not None:
            with scene.writer.commits.guards.keys([gone]) as guard:
                assert scene.writer.commits.delete_guarded(guard, {gone: []}) == [gone]
            scene.store.set(b"z", b"after")

    scene.pieces.between = between
    other = b"d1" if scene.reverse else b"c1"
    assert scene.scan() == scene.page((b"a", b"0"), (other, b"0"), (b"z", b"after"))


def test_who_wants_everything_is_told(scene: Scene) -> None:
    """Without a limit there is no part of a page: at the deadline the scan gives up, and says what to do."""
    scene.write_between(math.inf, b"c1", b"d1")
    with pytest.raises(DeadlineExceeded, match="ask for less with limit and cursor"):
        scene.scan(seconds=0.2)


def test_page_ends_with_its_time(scene: Scene) -> None:
    """Among deleted keys too; pages that hold nothing lead on all the same."""
    scene.pieces.between = lambda place: time.sleep(0.05)
    found: list[bytes] = []
    cursors = [b""]
    while True:
        page = scene.scan(limit=5, cursor=cursors[-1], seconds=0.06)
        found += [key for key, _ in page.items]
        if not page.next_cursor:
            break
        assert page.next_cursor not in cursors
        cursors.append(page.next_cursor)
    assert sorted(found) == [b"a", b"c1", b"d1", b"z"]
    assert cursors[1:] == sorted(cursors[1:], reverse=scene.reverse)
    assert len(cursors) > 2


def test_written_range() -> None:
    """Up to where, and from where on, nothing was written; what lies outside of the range is not looked at."""
    guard = WrittenRange(b"b", b"m")
    guard.difference_update([b"a", b"m", b"z"])
    assert guard.untouched(b"b", b"m", reverse=False) is None
    guard.difference_update([b"k", b"d", b"e"])
    guard.difference_update([b"f"])
    assert guard.untouched(b"b", b"m", reverse=False) == b"d"
    assert guard.untouched(b"b", b"m", reverse=True) == b"k\0"
    assert guard.untouched(b"g", b"k", reverse=False) is None
    assert guard.untouched(b"g", b"k\0", reverse=False) == b"k"
    assert guard.untouched(b"b", b"d", reverse=True) is None
    guard.range_update(b"g", b"i")
    assert guard.untouched(b"h", b"k", reverse=False) == b"h"
    assert guard.untouched(b"f\0", b"h", reverse=True) == b"h"
    endless = WrittenRange(b"", None)
    endless.difference_update([b"\xff"])
    assert endless.untouched(b"a", None, reverse=False) == b"\xff"
    endless.clear()
    assert endless.untouched(b"x", None, reverse=False) == b"x"


@repeatable
@given(
    st.lists(st.lists(st.binary(max_size=2), max_size=9) | st.tuples(st.binary(max_size=2), st.binary(max_size=2))),
    st.binary(max_size=2), st.binary(max_size=2), st.sampled_from([2, 4096]),
)  # fmt: skip
def test_nothing_that_was_written_is_missed(written: list[Any], low: bytes, high: bytes, most: int) -> None:
    """However many keys and ranges: what is said to be untouched was not written; and with few, no less is said."""
    keys: set[bytes] = set()
    guard = WrittenRange(b"", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "MOST_SPANS", most)
        for some in written:
            if isinstance(some, tuple):
                guard.range_update(*some)
                keys |= {bytes(key) for key in product(range(256), repeat=1) if some[0] <= bytes(key) < some[1]}
                keys |= {some[0]} if some[0] < some[1] else set()
            else:
                guard.difference_update(some)
                keys |= set(some)
        inside = sorted(key for key in keys if low <= key < high)
        first, last = guard.untouched(low, high, reverse=False), guard.untouched(low, high, reverse=True)
    if inside:
        assert first is not None
        assert first <= inside[0]
        assert last is not None
        assert last > inside[-1]
    if most > 2 and not any(isinstance(some, tuple) for some in written):
        assert (first, last) == ((inside[0], min(inside[-1] + b"\0", high)) if inside else (None, None))


@repeatable
@given(st.binary(min_size=1, max_size=6) | st.text(min_size=1, max_size=3).map(str.encode))
def test_text_before(position: bytes) -> None:
    """It is text, short enough for a key, and before the place."""
    text = text_before(position)
    text.decode()
    assert text < position


@repeatable
@given(st.binary(min_size=1, max_size=6) | st.text(min_size=1, max_size=3).map(str.encode))
def test_text_after(position: bytes) -> None:
    """It is text, short enough for a key, and not before the place; none where nothing could be."""
    text = text_after(position)
    text.decode()
    assert text >= position or (text == b"" and position > "\U0010ffff".encode())


@pytest.mark.parametrize(
    ("position", "after"),
    [
        (b"t/5", b"t/5"), (b"t/5\xc3", "t/5\u00c0".encode()), (b"a\xff", b"b"), (b"\xff", b""),
        ("a\U0010ffff".encode() + b"\xff", b"b"), (b"\xed\xa0", "\ue000".encode()),
    ],
)  # fmt: skip
def test_text_after_by_example(position: bytes, after: bytes) -> None:
    """What is text is there already; else the next character, or one more than the last that is right."""
    assert text_after(position) == after


@pytest.mark.parametrize(
    ("position", "before"),
    [
        (b"t/5", b"t/4\xf4\x8f\xbf\xbf"), (b"t/5\xc3", b"t/5\xc2\xbf\xf4\x8f\xbf\xbf"), (b"a\0", b"a"), (b"\0", b""),
        ("\ue000".encode(), "\ud7ff\U0010ffff".encode()), (b"\xff", "\U0010ffff\U0010ffff".encode()),
    ],
)  # fmt: skip
def test_text_before_by_example(position: bytes, before: bytes) -> None:
    """The character before the last, and then the highest; surrogates, which no text has, are left out."""
    assert text_before(position) == before


def test_text_before_a_long_place() -> None:
    """There is room for what a cursor may have."""
    assert text_before("é".encode() * 600) == "é".encode() * 508
    after = text_after("é".encode() * 600)
    assert after > "é".encode() * 600
    assert len(after.decode().encode()) < 1024
