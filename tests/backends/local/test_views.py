"""One view for a page whose engine took several, and text of a place between keys."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import islice
from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.engines.engine import DATA, Pairs, ScanUnfinished, ignored
from kvtwisted.backends.local.engines.scans import Scan
from kvtwisted.backends.local.views import WrittenRange, text_before
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
        #: Called before each new view, with its place.
        self.between: Callable[[bytes], object] = ignored

    def scan(
        self,
        start: bytes,
        end: bytes | None,
        family: str = DATA,
        until: float = math.inf,
        renewed: Callable[[bytes], object] = ignored,
    ) -> Pairs:
        """See `Engine.scan`."""
        pairs = self._pairs(start, end, family, until, renewed)
        return Scan(lambda most: list(islice(pairs, 1)), end, "")

    def _pairs(
        self, start: bytes, end: bytes | None, family: str, until: float, renewed: Callable[[bytes], object]
    ) -> Iterator[tuple[bytes, bytes]]:
        low = start
        for place in self._places:
            if low < place and (end is None or place < end):
                yield from super().scan(low, place, family)
                if time.monotonic() > until:
                    raise ScanUnfinished(place)
                self.between(place)
                renewed(place)
                low = place
        yield from super().scan(low, end, family)


class Scene(Storage):
    """A store over such an engine, with a key at either end."""

    def __init__(self) -> None:
        self.pieces = PiecewiseEngine()
        super().__init__(self.pieces)
        self.store.mset({b"a": b"0", b"z": b"0"})
        self.writes = 0

    def write_between(self, times: float, *keys: bytes) -> None:
        """Write these keys as one, each time a new number, before the third view of so many scans."""

        def between(place: bytes) -> None:
            if place == b"d" and self.writes < times:
                self.writes += 1
                self.store.mset(dict.fromkeys(keys, b"%d" % self.writes))

        self.pieces.between = between

    def scan(self, limit: int = 0, cursor: bytes = b"", seconds: float = 60) -> Page:
        """A page of everything."""
        deadline = time.monotonic() + seconds
        return self.store.scan(b"", cursor=cursor, limit=limit, budget=PLENTY, deadline=deadline)


@pytest.fixture
def scene() -> Scene:
    """One to which nobody writes."""
    return Scene()


def test_without_writes_all_is_there(scene: Scene) -> None:
    """Several views of what does not change are one; so with a limit."""
    assert scene.scan() == page_of([(b"a", b"0"), (b"z", b"0")], b"")
    assert scene.scan(limit=5) == page_of([(b"a", b"0"), (b"z", b"0")], b"")
    assert scene.scan(limit=1) == page_of([(b"a", b"0")], b"a")


def test_batch_is_not_seen_half_done(scene: Scene) -> None:
    """What was written in between is there with all of its batch: the scan began again."""
    scene.write_between(3, b"a", b"b", b"z")
    assert scene.scan() == page_of([(b"a", b"3"), (b"b", b"3"), (b"z", b"3")], b"")


def test_page_is_cut(scene: Scene) -> None:
    """With a limit the page ends where its view did, or before what was written; the next one goes on there."""
    scene.write_between(math.inf, b"b1", b"z")
    page = scene.scan(limit=5)
    assert page.items == [(b"a", b"0")]
    assert b"a" <= page.next_cursor < b"b1"
    scene.write_between(0)
    rest = scene.scan(limit=5, cursor=page.next_cursor)
    assert rest.items[0] == (b"b1", b"%d" % scene.writes)
    assert rest.items[-1] == (b"z", b"%d" % scene.writes)


def test_writes_behind_the_page_do_not_matter(scene: Scene) -> None:
    """What the page does not reach may be written all the time."""
    scene.store.set(b"e", b"0")
    scene.write_between(math.inf, b"x", b"z")
    assert scene.scan(limit=2) == page_of([(b"a", b"0"), (b"e", b"0")], b"e")


def test_deletes_by_eviction_are_noticed(scene: Scene) -> None:
    """A key that was read and then evicted is not in a page with what was written after."""

    def between(place: bytes) -> None:
        if place == b"c" and scene.value(b"a") is not None:
            with scene.writer.commits.guards.keys([b"a"]) as guard:
                assert scene.writer.commits.delete_guarded(guard, {b"a": []}) == [b"a"]
            scene.store.set(b"z", b"after")

    scene.pieces.between = between
    assert scene.scan() == page_of([(b"z", b"after")], b"")


def test_who_wants_everything_is_told(scene: Scene) -> None:
    """Without a limit there is no part of a page: at the deadline the scan gives up, and says what to do."""
    scene.write_between(math.inf, b"a")
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
        assert page.next_cursor > cursors[-1]
        cursors.append(page.next_cursor)
    assert found == [b"a", b"z"]
    assert len(cursors) > 2


def test_written_range() -> None:
    """The lowest key within is known; others are not looked at."""
    guard = WrittenRange(b"b", b"m")
    guard.difference_update([b"a", b"m", b"z"])
    assert guard.lowest is None
    guard.difference_update([b"k", b"d", b"e"])
    guard.difference_update([b"f"])
    assert guard.lowest == b"d"
    guard.difference_update([b"b"])
    assert guard.lowest == b"b"
    endless = WrittenRange(b"", None)
    endless.difference_update([b"\xff"])
    assert endless.lowest == b"\xff"


@repeatable
@given(st.binary(min_size=1, max_size=6) | st.text(min_size=1, max_size=3).map(str.encode))
def test_text_before(position: bytes) -> None:
    """It is text, short enough for a key, and before the place."""
    text = text_before(position)
    text.decode()
    assert text < position


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
