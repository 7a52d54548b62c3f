"""ScanStreams of the local backend: all pairs from one view, no faster than they are taken, and ended in every way."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import DATA, CanReopen
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.backends.local.scan_streams import AHEAD, ScanStreams
from kvtwisted.commands.command import Command
from kvtwisted.commands.scan import Page
from kvtwisted.commands.scan_stream import ScanStream
from kvtwisted.core.errors import Corruption, Unavailable
from kvtwisted.core.options import EngineOptions
from kvtwisted.reactor.fair_pool import FairPool
from tests.support.engines import FaultyEngine
from tests.support.pools import ManualPool
from tests.support.storage import PLENTY, Storage

SECONDS = 100.0


class ThreadlessReactor(Clock):
    """A clock that delivers results of threads at once."""

    def callFromThread(self, func: Any, *args: Any, **kw: Any) -> None:
        """Call it here and now."""
        func(*args, **kw)


class Reader:
    """One stream, and whoever takes it."""

    def __init__(self, scene: Scene, command: ScanStream) -> None:
        self.parts: list[Any] = []
        self.command = command
        command.part = self.parts.append
        command.admission = self
        scene.streams.begin(command)

    @property
    def keys(self) -> list[bytes]:
        """All that it has been given."""
        return [key for page in self.parts for key in page.keys]


class Scene:
    """A store, and streams on a pool without threads."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.pool = ManualPool()
        self.reactor = ThreadlessReactor()
        self.streams = ScanStreams(
            self.reactor,
            FairPool(self.reactor, self.pool),
            storage.store.view,
            lambda: SECONDS,  # type: ignore[arg-type]
        )
        self.settled: list[Command] = []
        self.streams.settled = self.settled.extend

    def read(self, **options: Any) -> Reader:
        """A stream that nothing has been asked of."""
        return Reader(self, ScanStream(**{"budget": PLENTY, **options}))

    def all_of(self, reader: Reader) -> list[bytes]:
        """Take all, and give the keys."""
        while reader.command not in self.settled:
            reader.command.flow.more()
            self.pool.run_all()
            self.reactor.advance(0)
        return reader.keys

    def fill(self, count: int, value: bytes = b"value") -> list[bytes]:
        """Set so many keys."""
        keys = [b"k%05d" % number for number in range(count)]
        self.storage.store.mset(dict.fromkeys(keys, value))
        return keys


@pytest.fixture
def scene(each_storage: Storage) -> Scene:
    """Streams over a store in memory, and over one on a disk."""
    return Scene(each_storage)


def test_all_pairs_come_in_order(scene: Scene) -> None:
    """Those of the range, after the cursor, with values and deadlines, in parts within the budget."""
    keys = scene.fill(2000)
    scene.storage.store.set(b"k00700", b"\xff\x00", 60)
    ends = scene.storage.clock.now_ms() + 60_000
    reader = scene.read(prefix=b"k", start=b"k00500", end=b"k01500", cursor=b"k00600", budget=2_000)
    assert scene.all_of(reader) == keys[601:1500]
    pages: list[Page] = reader.parts
    assert all(sum(len(k) + len(v) + 16 for k, v in page.items) <= 2_000 for page in pages)
    assert len(pages) > 10
    values = {key: value for page in pages for key, value in page.items}
    assert values.pop(b"k00700") == b"\xff\x00"
    assert set(values.values()) == {b"value"}
    expiries = {key: at for page in pages for key, at in zip(page.keys, page.expiries) if at}
    assert expiries == {b"k00700": ends}
    assert not any(page.next_cursor for page in pages)
    assert reader.command.error is None
    assert reader.command.answered == sum(len(k) + len(v) for page in pages for k, v in page.items)


def test_a_value_over_the_budget_is_a_part_of_its_own(scene: Scene) -> None:
    """No value is ever cut short."""
    keys = scene.fill(3, b"x" * 5_000)
    reader = scene.read(budget=100)
    assert scene.all_of(reader) == keys
    assert [len(page.keys) for page in reader.parts if page.keys] == [1, 1, 1]


@pytest.mark.parametrize("limit", [1, 511, 512, 513, 700])
def test_a_limit_ends_it(scene: Scene, limit: int) -> None:
    """As many pairs as were asked for, in all, and no cursor."""
    keys = scene.fill(700)
    reader = scene.read(limit=limit, budget=3_000)
    assert scene.all_of(reader) == keys[:limit]
    assert not any(page.next_cursor for page in reader.parts)


@pytest.mark.parametrize("options", [{"prefix": b"nothing"}, {"start": b"b", "end": b"a"}])
def test_an_empty_range_ends_at_once(scene: Scene, options: dict[str, bytes]) -> None:
    """With an empty part, or none."""
    scene.fill(3)
    assert scene.all_of(scene.read(**options)) == []


def test_it_is_one_view(scene: Scene) -> None:
    """What is written once it has begun is not shown, and what is deleted is; the revision is from before."""
    keys = scene.fill(3_000)
    reader = scene.read(budget=2_000)
    revision = scene.storage.store.revision
    reader.command.flow.more()
    scene.pool.run_all()
    scene.storage.store.delete(keys[2_000])
    scene.storage.store.set(keys[2_500] + b"-new", b"new")
    scene.storage.store.set(keys[2_501], b"changed")
    assert scene.all_of(reader) == keys
    assert {page.revision for page in reader.parts} == {revision}
    assert dict(pair for page in reader.parts for pair in page.items)[keys[2_501]] == b"value"


def test_expired_keys_are_left_out(scene: Scene) -> None:
    """Also when they are not swept yet."""
    store = scene.storage.store
    store.set(b"a", b"1", 10)
    store.set(b"b", b"2")
    store.set(b"c", b"3", 30)
    scene.storage.time.advance(20_000)
    assert scene.all_of(scene.read()) == [b"b", b"c"]


def test_no_more_is_read_than_is_taken(scene: Scene) -> None:
    """Before anything is asked for nothing is read; then AHEAD parts wait, whatever there is."""
    scene.fill(1_000)
    reader = scene.read(budget=1_000)
    scene.pool.run_all()
    assert not reader.parts
    reader.command.flow.more()
    scene.pool.run_all()
    assert len(reader.parts) == 1
    assert not scene.pool.waiting
    read = reader.command.answered
    for _ in range(AHEAD):
        reader.command.flow.more()
    assert len(reader.parts) == 1 + AHEAD
    assert reader.command.answered > read


def test_parts_are_encoded(scene: Scene) -> None:
    """By the command's own function, in the thread that read them."""
    keys = scene.fill(3)
    reader = scene.read(encode=lambda page: b",".join(page.keys))
    while reader.command not in scene.settled:
        reader.command.flow.more()
        scene.pool.run_all()
    assert b"".join(reader.parts) == b",".join(keys)


def test_cancelling_ends_it(scene: Scene) -> None:
    """No part comes any more; it is settled once, without an error, and the view goes."""
    scene.fill(1_000)
    reader = scene.read(budget=1_000)
    reader.command.flow.more()
    scene.pool.run_all()
    reader.command.flow.cancel()
    reader.command.flow.cancel()
    reader.command.flow.more()
    assert not scene.settled
    scene.reactor.advance(0)
    scene.pool.run_all()
    assert scene.settled == [reader.command]
    assert reader.command.error is None
    assert len(reader.parts) == 1
    assert not scene.streams.open
    assert not scene.reactor.getDelayedCalls()


def test_cancelling_while_a_part_is_read(scene: Scene) -> None:
    """The part that comes then is given to nobody."""
    scene.fill(10)
    reader = scene.read()
    reader.command.flow.more()
    reader.command.flow.cancel()
    scene.reactor.advance(0)
    scene.pool.run_all()
    assert scene.settled == [reader.command]
    assert not reader.parts


def test_the_time_of_a_view_is_bounded(scene: Scene) -> None:
    """What was read is still given; then it ends with a cursor, from which a later one has the rest."""
    keys = scene.fill(1_000)
    reader = scene.read(budget=1_000)
    reader.command.flow.more()
    scene.pool.run_all()
    scene.reactor.advance(SECONDS)
    scene.pool.run_all()
    first = scene.all_of(reader)
    assert 0 < len(first) < len(keys)
    cursor = reader.parts[-1].next_cursor
    assert cursor == first[-1]
    assert reader.command.error is None
    assert first + scene.all_of(scene.read(cursor=cursor)) == keys


def test_files_stay_for_the_view_and_go_with_it(tmp_path: Path) -> None:
    """A large value that is replaced during the stream is still shown; its file goes with the view."""
    files = ValueFiles(str(tmp_path))
    files.prepare()
    scene = Scene(Storage(files=files, spill_threshold=100))
    scene.fill(20, b"v" * 200)
    reader = scene.read(budget=1)
    reader.command.flow.more()
    scene.pool.run_all()
    scene.storage.store.set(b"k00019", b"new" * 100)
    before = files.taken
    scene.reactor.advance(SECONDS)
    scene.pool.run_all()
    assert files.taken < before
    other = scene.read(budget=1)
    other.command.flow.more()
    scene.pool.run_all()
    scene.storage.store.set(b"k00018", b"new" * 100)
    assert scene.all_of(other)[18:] == [b"k00018", b"k00019"]
    assert [page.values[0] for page in other.parts if page.keys == [b"k00018"]] == [b"v" * 200]
    assert files.taken < before + 4096


def test_stopping_ends_all(scene: Scene) -> None:
    """With an error that says so, whether a thread is at it or not; and the view goes."""
    scene.fill(1_000)
    resting, reading = scene.read(budget=1_000), scene.read(budget=1_000)
    resting.command.flow.more()
    scene.pool.run_all()
    reading.command.flow.more()
    scene.streams.stop()
    assert set(scene.settled) == {resting.command, reading.command}
    assert all(isinstance(command.error, Unavailable) for command in scene.settled)
    scene.pool.run_all()
    gc.collect()
    assert len(scene.settled) == 2
    assert not reading.parts


def test_a_database_that_is_opened_anew_ends_it(tmp_path: Path) -> None:
    """With a cursor, as the end of its time."""
    engine = open_engine("rocksdict", str(tmp_path), EngineOptions())
    assert isinstance(engine, CanReopen)
    scene = Scene(Storage(FaultyEngine(engine)))
    keys = scene.fill(2_000)
    reader = scene.read(budget=1_000)
    reader.command.flow.more()
    scene.pool.run_all()
    engine.reopen()
    first = scene.all_of(reader)
    assert 0 < len(first) < len(keys)
    assert reader.parts[-1].next_cursor == first[-1]
    engine.close()


def test_a_view_that_shows_nothing_is_no_end(storage: Storage) -> None:
    """Without a key there is no cursor to go on from: that is an error, never an empty range."""
    scene = Scene(storage)
    scene.fill(2)
    storage.engine.fail("scan", Unavailable("opened anew"))
    reader = scene.read()
    assert scene.all_of(reader) == []
    assert isinstance(reader.command.error, Unavailable)


def test_what_fails_is_told_after_what_was_read(storage: Storage) -> None:
    """The command has the error."""
    scene = Scene(storage)
    keys = scene.fill(2_000)
    scene.storage.engine.write([(DATA, keys[1_000], b"\xff\x63")])
    reader = scene.read(budget=1_000)
    assert 0 < len(scene.all_of(reader)) <= 1_000
    assert isinstance(reader.command.error, Corruption)
