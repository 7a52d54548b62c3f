"""Decisions about large values: which files there are afterwards, whatever comes in between."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from kvtwisted.backends.local import apart, records
from kvtwisted.backends.local.engines.engine import FILES
from kvtwisted.backends.local.write import Write
from kvtwisted.commands import conditions
from kvtwisted.commands.conditional import ConditionalDelete, ConditionalSet, Increment, Touch
from kvtwisted.commands.conditions import Condition, etag_of
from kvtwisted.commands.mutations import AddNumber, DeleteKey, SetValue, TouchKey
from kvtwisted.commands.transact import Transact
from kvtwisted.core.errors import (
    DeadlineExceeded,
    NotANumber,
    Overloaded,
    StorageError,
    StorageFull,
    Unavailable,
    WriteStalled,
)

from ...support.doors import Doorway
from .engines.support import PERSISTENT, opened, python
from .large_values import BIG, OTHER, Scene

ABSENT, PRESENT = Condition(conditions.Test.ABSENT), Condition(conditions.Test.PRESENT)
IS_BIG = Condition(conditions.Test.ETAG, etag_of(BIG).encode())
KEY = b"k"


@pytest.fixture(params=[0, 1 << 20], ids=["", "cached"])
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    """An empty one, with a hot cache and without."""
    return Scene(tmp_path / "values", cache_bytes=request.param)


def only_file(scene: Scene) -> Path:
    """The file that there is, and that the index names."""
    (file,) = scene.files()
    ((_, stored),) = scene.engine.scan(b"", None, FILES)
    pointer = records.unpack_pointer(stored)
    assert pointer.name.hex() == file.name
    assert scene.writer.commits.file_index.pointers == {KEY: pointer}
    assert records.decode(scene.data()[KEY]).pointer == pointer
    return file


def test_every_mutation(scene: Scene) -> None:
    """A file for each large value that is there, and for no other."""
    run = scene.store.run
    assert run(ConditionalSet(SetValue(KEY, BIG), ABSENT)).revision
    first = only_file(scene)
    failed = run(ConditionalSet(SetValue(KEY, OTHER), ABSENT))
    assert (failed.failed_check, failed.etag) == (1, etag_of(BIG))
    assert only_file(scene) == first
    assert run(ConditionalSet(SetValue(KEY, OTHER), IS_BIG)).revision
    assert only_file(scene) != first
    with pytest.raises(NotANumber):
        run(Increment(AddNumber(KEY, 1)))
    assert run(ConditionalSet(SetValue(KEY, b"1"), PRESENT)).revision
    assert scene.files() == []
    assert run(Transact([(KEY, PRESENT)], [AddNumber(KEY, 1), SetValue(KEY, BIG), TouchKey(KEY, 9)])).revision
    only_file(scene)
    assert scene.index() == [(scene.time.wall_ms + 9000, KEY)]
    assert run(ConditionalDelete(DeleteKey(KEY), IS_BIG)).revision
    assert scene.files() == scene.index() == []
    assert scene.writer.commits.file_index.pointers == scene.data() == {}


def test_touching_keeps_the_file(scene: Scene) -> None:
    """Alone, with others, again and again, and for ever; also after a restart."""
    scene.store.set(KEY, BIG)
    file = only_file(scene)
    for ttl in (10, 20, 0, 5):
        assert scene.store.run(Touch(TouchKey(KEY, ttl), IS_BIG)).only.found
        assert only_file(scene) == file
        assert scene.index() == ([(scene.time.wall_ms + 1000 * ttl, KEY)] if ttl else [])
        assert scene.value(KEY) == BIG
        scene.restart_files()
    assert scene.store.run(Transact([], [TouchKey(KEY, 7), TouchKey(KEY, 8)])).revision
    assert only_file(scene) == file
    scene.time.advance(8000)
    assert scene.store.run(Touch(TouchKey(KEY, 7))).only.found is False
    scene.sweeper.sweep(10)
    assert scene.files() == []


def test_touching_what_the_same_transaction_stored(scene: Scene) -> None:
    """It has the file of that, and not of what was there before."""
    scene.store.set(KEY, OTHER)
    scene.store.run(Transact([], [SetValue(KEY, BIG), TouchKey(KEY, 9)]))
    assert only_file(scene).read_bytes() == BIG
    scene.store.run(Transact([], [SetValue(KEY, b"small"), TouchKey(KEY, 9)]))
    assert scene.files() == []
    assert scene.value(KEY) == b"small"


def test_touching_what_the_same_batch_stores(scene: Scene) -> None:
    """Another thread's write that it shares a batch with stores a file: that one it has."""
    scene.store.set(KEY, OTHER)
    stores = Write([(KEY, BIG, 0)])
    scene.writer._prepared(stores)
    touches = scene.store.prepare(Touch(TouchKey(KEY, 9)))
    with scene.writer.commits.lock:
        scene.writer._commit([stores, touches])
    scene.writer.make_last([stores, touches])
    assert only_file(scene).read_bytes() == BIG
    assert records.decode(scene.data()[KEY]).expires_at_ms == scene.time.wall_ms + 9000


def test_a_stall_stores_no_other_file(tmp_path: Path) -> None:
    """What was decided at once, and could not go in, is decided again: what it keeps needs no file but its own."""
    scene = Scene(tmp_path / "values", cache_bytes=1 << 20)
    scene.store.set(KEY, BIG)
    for _ in range(2):
        assert scene.store.get(KEY)
    assert scene.store.hot(KEY) is not None
    file = only_file(scene)
    doorway = Doorway(scene)
    scene.engine.fail("write", WriteStalled("stalled"), times=1)
    outcome = doorway.submit(Touch(TouchKey(KEY, 9)))
    doorway.run()
    assert outcome.result().only.found
    assert only_file(scene) == file


def test_a_small_value_stays_in_its_record(scene: Scene) -> None:
    """Whatever the threshold has become."""
    scene.store.set(KEY, b"x" * 500)
    scene.writer.spill_threshold = 100
    scene.store.run(Touch(TouchKey(KEY, 9)))
    assert scene.files() == []
    assert scene.value(KEY) == b"x" * 500


@pytest.mark.parametrize(
    ("error", "left"), [(StorageError("broke"), 2), (Unavailable("it is being reopened"), 1), (None, 1)]
)
def test_a_write_that_is_not_done(scene: Scene, error: StorageError | None, left: int) -> None:
    """Its files go, unless a record may name them: then at the next reopening. A file that is kept stays."""
    scene.store.mset({KEY: BIG, b"l": b"1"})
    if error is None:
        scene.engine.fail("write", WriteStalled("stalled"))
    else:
        scene.engine.fail("write", error)
    commands = [
        ConditionalSet(SetValue(KEY, OTHER), PRESENT, time.monotonic() + 0.1),
        Transact([], [TouchKey(KEY, 9), AddNumber(b"l", 1)], time.monotonic() + 0.1),
    ]
    for command in commands:
        with pytest.raises((Overloaded, DeadlineExceeded) if error is None else type(error)):
            scene.store.run(command)
    scene.engine.heal("write")
    scene.writer.commits.sync()
    assert len(scene.files()) == left
    scene.writer.commits.reopen()
    scene.writer.commits.sync()
    scene.store.set(b"other", b"")
    scene.writer.commits.file_index.retire(scene.writer.commits.file_index.replaced())
    assert only_file(scene).read_bytes() == BIG
    assert scene.value(KEY) == BIG
    assert scene.writer.files._unsettled == set()


def test_no_room_for_a_file(scene: Scene) -> None:
    """It is refused, nothing stays, and the server's writes are thought to fail as with every file."""
    doorway = Doorway(scene)

    def refuse() -> None:
        raise StorageFull("no room")

    scene.writer._admit_file = refuse
    outcome = doorway.submit(Transact([], [SetValue(b"a", BIG), SetValue(b"b", b"")]))
    doorway.run()
    with pytest.raises(StorageFull):
        outcome.result()
    assert (scene.files(), scene.data()) == ([], {})


def test_a_file_is_written_once(scene: Scene) -> None:
    """However often it is decided; and one that is not needed in the end goes."""
    scene.engine.slow = True
    scene.store.set(KEY, b"0")
    stored: list[bytes] = []
    store = scene.writer.files.store
    scene.writer.files.store = lambda value: (stored.append(value), store(value))[1]  # type: ignore[method-assign]

    def write() -> None:
        if not scene.writer.commits.lock.locked():
            scene.store.set(KEY, b"%d" % len(stored))
            scene.engine.after("get", write)

    scene.engine.after("get", write)
    assert scene.store.run(ConditionalSet(SetValue(KEY, BIG), PRESENT)).revision
    assert stored == [BIG]
    only_file(scene)
    scene.store.set(KEY, b"0")
    scene.engine.after("get", lambda: scene.store.delete(KEY))
    assert scene.store.run(ConditionalSet(SetValue(KEY, BIG), PRESENT)).failed_check == 1
    assert stored == [BIG, BIG]
    assert scene.files() == []


def test_in_turn_no_file_is_written(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody else may write a large value goes into its record, if it has no file yet."""
    monkeypatch.setattr(apart, "TIMES", 0)
    assert scene.store.run(ConditionalSet(SetValue(KEY, BIG), ABSENT)).revision
    assert scene.files() == []
    assert scene.value(KEY) == BIG
    assert scene.store.run(ConditionalDelete(DeleteKey(KEY), IS_BIG)).revision
    assert scene.data() == {}


def test_a_write_in_between_takes_its_file_along(scene: Scene) -> None:
    """What replaces a large value while a decision about it is made, and the other way round."""
    scene.store.set(KEY, BIG)
    scene.engine.slow = True
    scene.engine.after("get", lambda: scene.store.set(KEY, OTHER))
    assert scene.store.run(Touch(TouchKey(KEY, 9), IS_BIG)).failed_check == 1
    assert only_file(scene).read_bytes() == OTHER
    scene.engine.after("get", lambda: scene.store.set(KEY, BIG))
    assert scene.store.run(Touch(TouchKey(KEY, 9))).only.found
    assert only_file(scene).read_bytes() == BIG


TOUCHES = """
import sys
from kvtwisted.backends.local.apart import Apart
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.backends.local.store import Store
from kvtwisted.backends.local.writer import Writer
from kvtwisted.commands.conditional import Touch
from kvtwisted.commands.mutations import TouchKey
from kvtwisted.commands.set import Set
from kvtwisted.core.clock import Clock
from kvtwisted.core.options import EngineOptions

engine = open_engine(sys.argv[1], sys.argv[2], EngineOptions())
files = ValueFiles(sys.argv[3])
files.prepare()
writer = Writer(engine, files=files, spill_threshold=1000)
store = Store(engine, writer, Clock())
if not writer.commits.file_index.pointers:
    writer.write_all([store.prepare(Set(b"k", b"x" * 1000))])
for ttl in range(1000, 100_000):
    write = store.prepare(Touch(TouchKey(b"k", ttl)))
    Apart(writer, write).settle()
    write.check()
    print(write.outcome.only.found, flush=True)
"""


@pytest.mark.parametrize("name", PERSISTENT)
def test_kill_9_while_it_is_touched(name: str, tmp_path: Path) -> None:
    """The record that is found names the file that is there, with one entry of its deadline."""
    for _ in range(2):
        with python(TOUCHES, name, str(tmp_path / "data"), str(tmp_path / "values")) as child:
            assert child.stdout is not None
            assert [next(child.stdout) for _ in range(20)] == ["True\n"] * 20
            child.send_signal(signal.SIGKILL)
    engine = opened(name, tmp_path / "data")
    try:
        record = records.decode(engine.get(KEY) or b"")
        assert record.pointer is not None
        files = [path for path in (tmp_path / "values").rglob("*") if path.is_file()]
        assert [path.name for path in files] == [record.pointer.name.hex()]
        assert engine.get(KEY, FILES) == record.pointer.pack()
        ((entry, _),) = engine.scan(b"", None, "expiry")
        assert records.split_index_key(entry) == (record.expires_at_ms, KEY)
    finally:
        engine.close()
