"""Writes of one turn go in together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local.backend import INLINE_KEYS
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.commands.get import Found
from kvtwisted.core.errors import NearlyFull, Overloaded, StorageError, WriteStalled
from tests.sessions.support import EVERYTHING
from tests.support.doors import Outcome
from tests.support.storage import Storage

from .test_backend import Scene, outcome_of


@pytest.fixture
def quick() -> Scene:
    """A facade over an engine that never needs to wait."""
    return Scene(slow=False)


def writes(scene: Scene) -> list[int]:
    """How many mutations each batch had that the engine was given, but for the format mark."""
    return [len(mutations) for (mutations,) in scene.storage.engine.called("write")][1:]


def outcomes(deferreds: list[Outcome]) -> list[Any]:
    """What each Deferred fired with: its result, or the type of its error."""
    found = []
    for deferred in deferreds:
        try:
            found.append(outcome_of(deferred))
        except Exception as error:
            found.append(type(error))
    return found


def test_one_turn_is_one_batch(quick: Scene) -> None:
    """Sets, deletes and batches of one turn are one write of the engine, without a thread; the next turn is another."""
    first = [
        quick.facade.set(b"a", b"1"),
        quick.facade.mset({b"b": b"2", b"c": b"3"}),
        quick.facade.delete(b"a"),
        quick.facade.set(b"d", b"4", 10),
    ]
    assert quick.door.waiting == 4
    quick.reactor.turn()
    second = quick.facade.mdelete([b"b"])
    quick.reactor.turn()
    assert outcomes([*first, second]) == [None] * 5
    assert writes(quick) == [1 + 2 + 1 + 2, 1]
    assert set(quick.storage.data()) == {b"c", b"d"}
    assert quick.pool.waiting == 0
    assert (quick.admission.in_flight, quick.door.waiting) == (0, 0)
    assert [(name, keys) for name, keys, _ in quick.recorder.operations] == [
        ("set", 1), ("set", 2), ("delete", 1), ("set", 1), ("delete", 1),
    ]  # fmt: skip


def test_a_get_of_memory_needs_no_thread(quick: Scene) -> None:
    """The answer is there at once, and counted; a failure too."""
    quick.storage.store.set(b"k", b"v")
    assert outcome_of(quick.facade.get(b"k")) == Found(b"v", 0)
    assert outcome_of(quick.facade.get(b"none")) is None
    quick.storage.engine.fail("peek", StorageError("broke"), times=1)
    assert outcomes([quick.facade.get(b"k")]) == [StorageError]
    assert quick.pool.waiting == 0
    assert quick.admission.in_flight == 0
    assert [failed for _, _, failed in quick.recorder.operations] == [False, False, True]


def test_durable_writes_gather_while_one_group_waits() -> None:
    """With an fsync for each write, one group is in a thread and all that arrives meanwhile is the next one."""
    scene = Scene(slow=False)
    scene.storage.writer.durable = True
    first = [scene.facade.set(b"%d" % n, b"v") for n in range(3)]
    scene.reactor.turn()
    assert scene.pool.waiting == 1
    later = [scene.facade.set(b"later %d" % n, b"v") for n in range(5)]
    scene.reactor.turn()
    assert (scene.pool.waiting, scene.door.waiting) == (1, 6)
    scene.pool.run_one()
    assert outcomes(first) == [None] * 3
    assert (scene.pool.waiting, scene.door.waiting, scene.admission.in_flight) == (1, 1, 5)
    scene.pool.run_one()
    assert outcomes(later) == [None] * 5
    assert writes(scene) == [3, 5]
    assert len(scene.storage.engine.called("sync")) == 2


@pytest.mark.parametrize(
    "pairs",
    [{b"%d" % n: b"" for n in range(INLINE_KEYS + 1)}, {b"k": b"v" * 524_288, b"l": b"v" * 524_287}],
    ids=["keys", "bytes"],
)
def test_a_large_group_does_not_hold_the_reactor(quick: Scene, pairs: dict[bytes, bytes]) -> None:
    """Too many keys, or bytes, are a thread's work; a little less is not."""
    large = quick.facade.mset(pairs)
    quick.reactor.turn()
    assert quick.pool.waiting == 1
    quick.pool.run_all()
    pairs.pop(b"l" if b"l" in pairs else b"0")
    less = quick.facade.mset(pairs)
    quick.reactor.turn()
    assert quick.pool.waiting == 0
    assert outcomes([large, less]) == [None, None]


def test_a_stall_is_waited_out_in_a_thread(quick: Scene) -> None:
    """A stalled group leaves the reactor, and goes in when RocksDB lets it."""
    quick.storage.engine.fail("write", WriteStalled("stalled"), times=1)
    waiting = quick.facade.set(b"k", b"v")
    quick.reactor.turn()
    assert quick.pool.waiting == 1
    assert quick.storage.data() == {}
    quick.pool.run_all()
    assert outcomes([waiting]) == [None]
    assert quick.storage.data() == {b"k": b"v"}


def test_each_write_of_a_stalled_group_has_its_deadline(quick: Scene) -> None:
    """Those whose time runs out are refused, the others go in."""
    quick.storage.engine.fail("write", WriteStalled("stalled"), times=12)  # some 300 ms
    impatient = quick.facade.set(b"a", b"1", deadline=quick.now() + 0.1)
    patient = quick.facade.set(b"b", b"2", deadline=quick.now() + 60)
    quick.reactor.turn()
    quick.pool.run_all()
    assert outcomes([impatient, patient]) == [Overloaded, None]
    assert quick.storage.data() == {b"b": b"2"}


def test_a_failed_batch_fails_each_of_its_writes(quick: Scene) -> None:
    """All are told, all have left, and the next turn is tried anew."""
    quick.storage.engine.fail("write", StorageError("broke"), times=1)
    failed = [quick.facade.set(b"a", b"1"), quick.facade.delete(b"b")]
    quick.reactor.turn()
    assert outcomes(failed) == [StorageError, StorageError]
    assert quick.admission.in_flight == 0
    assert quick.health.reason() == "writes fail: broke"
    again = quick.facade.set(b"a", b"1")
    quick.reactor.turn()
    assert outcomes([again]) == [None]


def test_a_bug_fails_each_write_and_lets_them_leave(quick: Scene) -> None:
    """Nobody waits for ever when the writing itself breaks, on the reactor or in a thread."""
    for slow in (False, True):
        quick.storage.engine.slow = slow
        quick.storage.engine.before("write", lambda: 1 / 0)
        broken = [quick.facade.set(b"a", b"1"), quick.facade.set(b"b", b"2")]
        quick.reactor.turn()
        quick.pool.run_all()
        assert outcomes(broken) == [ZeroDivisionError] * 2
        assert quick.admission.in_flight == 0
    quick.storage.engine.slow = False
    again = quick.facade.set(b"a", b"1")
    quick.reactor.turn()
    assert outcomes([again]) == [None]


def test_each_write_leaves_where_it_entered(quick: Scene) -> None:
    """With its bytes, though those of several principals are one batch, here or in a thread, good or broken."""
    shares = [quick.admission.share() for _ in range(2)]
    facades = []
    for share in shares:
        session = quick.make_session(EVERYTHING)
        session.admission = share
        facades.append(quick.asking(session))
    for durable, cause in ((False, None), (True, None), (False, StorageError("broke"))):
        quick.storage.writer.durable = durable
        if cause is not None:
            quick.storage.engine.fail("write", cause, times=1)
        waiting = [facades[0].set(b"a", b"123"), facades[1].mset({b"b": b"", b"c": b"45"}), facades[0].delete(b"d")]
        assert [(share.in_flight, share.bytes) for share in (*shares, quick.admission)] == [(2, 5), (1, 4), (3, 9)]
        quick.run()
        assert outcomes(waiting) == [None if cause is None else StorageError] * 3
        assert [(share.in_flight, share.bytes) for share in (*shares, quick.admission)] == [(0, 0)] * 3


def test_what_needs_a_file_goes_by_itself(tmp_path: Path) -> None:
    """It takes long: the others of its turn are written at once, and it does not wait for them."""
    files = ValueFiles(str(tmp_path / "values"))
    quick = Scene(slow=False, storage=Storage(files=files, spill_threshold=50))
    large, small = quick.facade.set(b"large", b"v" * 60), quick.facade.set(b"small", b"v")
    quick.reactor.turn()
    assert outcomes([small]) == [None]
    assert (quick.pool.waiting, quick.admission.in_flight) == (1, 1)
    later = quick.facade.set(b"later", b"v")
    quick.reactor.turn()
    assert outcomes([later]) == [None]
    quick.pool.run_all()
    assert outcomes([large]) == [None]
    assert quick.storage.value(b"large") == b"v" * 60
    assert quick.admission.in_flight == 0


def test_plain_commands_are_one_write_with_a_revision_each(quick: Scene) -> None:
    """Sets and batches without a ttl, some of them on one key: the last one counts."""
    store, before = quick.storage.store, quick.storage.store.revision
    asked = [quick.facade.set(b"a", b"1"), quick.facade.mset({b"a": b"2", b"b": b"2"}), quick.facade.set(b"b", b"3")]
    quick.reactor.turn()
    assert outcomes(asked) == [None] * 3
    assert writes(quick) == [4]
    assert store.revision == before + 3
    assert quick.storage.data() == {b"a": b"2", b"b": b"3"}
    assert (store.get(b"a"), store.get(b"b")) == (Found(b"2", 0), Found(b"3", 0))


def test_one_that_is_refused_for_its_size_keeps_no_other_out() -> None:
    """Of plain commands that go in together each is asked about by itself, when all together are refused."""
    scene = Scene(slow=False)
    scene.storage.writer._admit = _no_more_than_five
    asked = [scene.facade.set(b"a", b"1234"), scene.facade.set(b"b", b"12345"), scene.facade.set(b"c", b"1")]
    scene.reactor.turn()
    assert outcomes(asked) == [None, NearlyFull, None]
    assert set(scene.storage.data()) == {b"a", b"c"}
    assert scene.pool.waiting == 0
    assert scene.health.reason() is None


def _no_more_than_five(size: int) -> None:
    if size > 5:
        raise NearlyFull("too full")


def test_a_failure_of_plain_commands_is_told_to_all(quick: Scene) -> None:
    """And shows in the health; nothing of them is cached."""
    quick.storage.store.set(b"a", b"old")
    quick.storage.engine.fail("write", StorageError("broke"), times=1)
    asked = [quick.facade.set(b"a", b"1"), quick.facade.set(b"b", b"2")]
    quick.reactor.turn()
    assert outcomes(asked) == [StorageError] * 2
    assert quick.health.reason() == "writes fail: broke"
    assert quick.storage.data() == {b"a": b"old"}
    assert quick.storage.store.get(b"a") == Found(b"old", 0)


def test_small_sets_beside_files(tmp_path: Path) -> None:
    """Where some keys have files, Sets of other keys go in together all the same; one that replaces a file does not."""
    files = ValueFiles(str(tmp_path))
    files.prepare()
    scene = Scene(slow=False, storage=Storage(files=files, spill_threshold=100))
    large = scene.facade.set(b"large", b"v" * 100)
    scene.run()
    asked = [scene.facade.set(b"a", b"1"), scene.facade.set(b"large", b"2"), scene.facade.set(b"b", b"3")]
    scene.reactor.turn()
    assert scene.pool.waiting == 1
    assert set(scene.storage.data()) == {b"a", b"b", b"large"}
    scene.run()
    assert outcomes([large, *asked]) == [None] * 4
    assert scene.storage.data() == {b"a": b"1", b"b": b"3", b"large": b"2"}
    assert list(tmp_path.glob("*/*")) == []
