"""The local backend behind a door, without threads: a test decides when queued work runs."""

from __future__ import annotations

import json
import time
from typing import Any, Callable

import pytest

from kvtwisted.backends.local import backend as backend_module
from kvtwisted.backends.local.backend import GETS_IN_A_JOB
from kvtwisted.backends.local.engines.engine import DATA
from kvtwisted.commands.get import Found, Get
from kvtwisted.commands.mget import MGet
from kvtwisted.commands.scan import Scan
from kvtwisted.core.errors import (
    Corruption,
    DeadlineExceeded,
    InvalidConfig,
    InvalidKey,
    KvError,
    Overloaded,
    Unavailable,
)
from kvtwisted.sessions.admission import Admission
from tests.sessions.support import EVERYTHING
from tests.support.configuration import FakeConfiguration
from tests.support.doors import Asking, Doorway, Outcome
from tests.support.pages import page_of
from tests.support.recorders import Recorded
from tests.support.storage import PLENTY, Storage

#: Bytes that requests may have together.
BYTES = 100


class Scene(Doorway):
    """A backend over a real store in memory, on a pool without threads."""

    def __init__(self, capacity: int = 10, *, slow: bool = True, storage: Storage | None = None) -> None:
        """`slow` makes every call need a thread."""
        super().__init__(storage, slow=slow, configuration=FakeConfiguration({"a": 1}, restart=("a",)))
        self.admission = Admission(capacity, BYTES)
        self.session = self.make_session(EVERYTHING)
        self.facade = self.asking()

    @staticmethod
    def now() -> float:
        """The time that deadlines are of."""
        return time.monotonic()

    def result(self, outcome: Outcome) -> Any:
        """Run what waits, and give what came of it."""
        self.run()
        return outcome.result()


def outcome_of(asked: Outcome) -> Any:
    """Its result; its error is raised."""
    return asked.result()


@pytest.fixture
def scene() -> Scene:
    """An empty one."""
    return Scene()


def test_every_operation_does_its_work(scene: Scene) -> None:
    """All methods pass all their arguments on and give back what the operation returned."""
    facade, result = scene.facade, scene.result
    assert result(facade.set(b"k", b"v", 7)) is None
    assert result(facade.get(b"k")) == Found(b"v", 7)
    assert result(facade.mset({b"m1": b"1", b"m2": b"2"}, 9)) is None
    assert result(facade.get(b"m2")) == Found(b"2", 9)
    assert result(facade.mget([b"m1", b"missing"], budget=PLENTY)) == {b"m1": b"1"}
    page = facade.scan(b"m", cursor=b"m", limit=1, keys_only=True, budget=PLENTY)
    assert result(page) == page_of([(b"m1", b"")], b"m1")
    assert result(facade.delete(b"k")) is None
    assert result(facade.mdelete([b"m1"])) is None
    assert set(scene.storage.data()) == {b"m2"}
    assert json.loads(result(facade.get_config())) == {"a": 1}
    assert result(facade.update_config({"a": 2})) == ["a"]
    assert result(facade.update_config('{"a": 3}')) == ["a"]
    assert json.loads(result(facade.get_config())) == {"a": 3}


@pytest.mark.parametrize(
    "call",
    [
        lambda facade, deadline: facade.set(b"k", b"v", deadline=deadline),
        lambda facade, deadline: facade.get(b"k", deadline=deadline),
        lambda facade, deadline: facade.delete(b"k", deadline=deadline),
        lambda facade, deadline: facade.scan(b"", budget=1, deadline=deadline),
        lambda facade, deadline: facade.mset({b"k": b"v"}, deadline=deadline),
        lambda facade, deadline: facade.mget([b"k"], budget=1, deadline=deadline),
        lambda facade, deadline: facade.mdelete([b"k"], deadline=deadline),
    ],
)
def test_work_that_waited_too_long_is_not_done(scene: Scene, call: Callable[[Asking, float], Outcome]) -> None:
    """The deadline is looked at when a thread takes the call up."""
    with pytest.raises(DeadlineExceeded):
        scene.result(call(scene.facade, time.monotonic() - 1))
    assert scene.storage.data() == {}


def test_failures_are_those_of_the_operation(scene: Scene) -> None:
    """The Deferred fails with what the operation raised, and the call has left."""
    with pytest.raises(InvalidKey, match="must not be empty"):
        scene.result(scene.facade.set(b"", b""))
    with pytest.raises(InvalidConfig, match="b: unknown key"):
        scene.result(scene.facade.update_config({"b": 1}))
    assert scene.admission.in_flight == 0


def test_nothing_runs_before_a_thread_takes_it_up(scene: Scene) -> None:
    """A call is in flight and queued, then done."""
    deferred = scene.facade.set(b"k", b"v")
    assert (scene.admission.in_flight, scene.door.waiting, scene.pool.waiting) == (1, 1, 0)
    scene.reactor.turn()
    assert (scene.admission.in_flight, scene.pool.waiting) == (1, 1)
    assert scene.storage.data() == {}
    assert scene.result(deferred) is None
    assert (scene.admission.in_flight, scene.door.waiting) == (0, 0)
    assert scene.storage.data() == {b"k": b"v"}


def test_overload_is_refused_before_it_is_queued() -> None:
    """The call over the capacity fails at once and never reaches the pool; after one has left there is room."""
    scene = Scene(capacity=2)
    admitted = [scene.facade.set(b"a", b""), scene.facade.get(b"a")]
    with pytest.raises(Overloaded, match=r"limits\.max_in_flight is 2"):
        outcome_of(scene.facade.set(b"b", b""))
    assert (scene.pool.waiting, scene.door.waiting) == (0, 2)
    scene.reactor.turn()
    assert (scene.pool.waiting, scene.door.waiting) == (2, 2)
    scene.pool.run_one()
    assert scene.door.waiting == 1
    admitted.append(scene.facade.set(b"c", b""))
    scene.run()
    assert [outcome_of(asked) for asked in admitted] == [None, Found(b"", 0), None]
    assert set(scene.storage.data()) == {b"a", b"c"}
    assert scene.recorder.operations == [
        Recorded("set", 1, False),
        Recorded("get", 1, False),
        Recorded("set", 1, False),
    ]


@pytest.mark.parametrize(
    "call",
    [
        lambda facade: facade.set(b"k", b"v"),
        lambda facade: facade.get(b"k"),
        lambda facade: facade.delete(b"k"),
        lambda facade: facade.scan(b"", budget=1),
        lambda facade: facade.mset({}),
        lambda facade: facade.mget([], budget=1),
        lambda facade: facade.mdelete([]),
        lambda facade: facade.get_config(),
        lambda facade: facade.update_config({}),
        lambda facade: facade.update_config("{}"),
    ],
)
@pytest.mark.parametrize(("closed", "error"), [(False, Overloaded), (True, Unavailable)])
def test_every_call_is_admitted_first(call: Callable[[Asking], Outcome], closed: bool, error: type[KvError]) -> None:
    """Without room, and while stopping, each call fails at once."""
    scene = Scene(capacity=0)
    if closed:
        scene.admission.close()
    with pytest.raises(error):
        outcome_of(call(scene.facade))
    assert scene.pool.waiting == 0


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(
    ("size", "call"),
    [
        (4, lambda facade: facade.set(b"k", b"abc")),
        (5, lambda facade: facade.mset({b"k": b"abc", b"l": b""})),
        (1, lambda facade: facade.delete(b"k")),
        (3, lambda facade: facade.mdelete([b"k", b"lm"])),
        (3, lambda facade: facade.mget([b"k", b"lm"], budget=PLENTY)),
        (2, lambda facade: facade.scan(b"kl", budget=PLENTY)),
        (8, lambda facade: facade.update_config('{"a": 2}')),
    ],
    ids=["set", "mset", "delete", "mdelete", "mget", "scan", "update_config"],
)
def test_the_bytes_of_requests(size: int, call: Callable[[Asking], Outcome], slow: bool) -> None:
    """Each counts with its keys and values while it is under way, and one that has no room is refused."""
    scene = Scene(slow=slow)
    waiting = call(scene.facade)
    assert (scene.admission.in_flight, scene.admission.bytes) == (1, size)
    scene.result(waiting)
    assert (scene.admission.in_flight, scene.admission.bytes) == (0, 0)
    scene.admission.enter(BYTES)
    with pytest.raises(Overloaded, match=f"limits.max_bytes_in_flight is {BYTES}"):
        outcome_of(call(scene.facade))
    assert (scene.admission.in_flight, scene.admission.bytes) == (1, BYTES)


def test_a_value_of_many_bytes_and_a_get(scene: Scene) -> None:
    """A Get has none to speak of, and is not kept out by others'."""
    scene.admission.enter(BYTES)
    assert scene.result(scene.facade.get(b"k")) is None


def test_overdue_requests_are_counted(scene: Scene) -> None:
    """Those that were not begun in time; not those that failed otherwise."""
    late, bad = scene.facade.get(b"k", deadline=scene.now() - 1), scene.facade.set(b"", b"")
    for waiting in (late, bad):
        with pytest.raises(KvError):
            scene.result(waiting)
    assert scene.door.overdue.value == 1


def test_what_no_thread_took_up_in_time_is_not_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reads: it fails as if it had come too late, and is counted so."""
    until = time.monotonic() + 60
    reads = [Get(b"k", until), MGet([b"k"], budget=PLENTY, deadline=until), Scan(b"", budget=PLENTY, deadline=until)]
    outcomes = [scene.submit(read) for read in reads]
    scene.reactor.turn()
    before = len(scene.storage.engine.calls)
    monkeypatch.setattr(backend_module, "monotonic", lambda: until + 1)
    scene.run()
    for outcome in outcomes:
        with pytest.raises(DeadlineExceeded, match="before it was started"):
            outcome.result()
    assert len(scene.storage.engine.calls) == before
    assert (scene.door.overdue.value, scene.admission.in_flight) == (3, 0)


def test_what_nobody_waits_for_is_not_read(scene: Scene) -> None:
    """It is settled without a result; the others of its job are read."""
    gone, stays = Get(b"a"), Get(b"b")
    waiting = [True]
    gone.awaited, stays.awaited = (lambda: waiting[0]), (lambda: True)
    outcomes = [scene.submit(gone), scene.submit(stays)]
    scene.reactor.turn()
    waiting[0] = False
    scene.run()
    assert [outcome.result() for outcome in outcomes] == [None, None]
    assert [key for key, family in scene.storage.engine.called("get") if family == DATA] == [b"b"]
    assert scene.admission.in_flight == 0


def test_a_job_that_breaks_fails_all_that_is_in_it(scene: Scene) -> None:
    """Each is told once, and has left."""
    broken, other = Get(b"a"), Get(b"b")
    broken.awaited = lambda: 1 // 0 > 0
    outcomes = [scene.submit(broken), scene.submit(other)]
    scene.run()
    for outcome in outcomes:
        with pytest.raises(ZeroDivisionError):
            outcome.result()
    assert scene.admission.in_flight == 0


def test_a_result_that_cannot_be_encoded_fails_alone(scene: Scene) -> None:
    """By what the encoding raised: what is stored may not be text."""

    def refuse(_: object) -> object:
        raise Corruption("no text")

    bad, good = scene.submit(Get(b"a", encode=refuse)), scene.submit(Get(b"b", encode=lambda found: b"encoded"))
    scene.run()
    with pytest.raises(Corruption):
        bad.result()
    assert good.result() == b"encoded"


def test_gets_of_one_turn_share_jobs() -> None:
    """So many in each; an MGet and a scan have one of their own."""
    scene = Scene(capacity=100)
    for number in range(GETS_IN_A_JOB + 1):
        scene.submit(Get(b"%d" % number))
    scene.reactor.turn()
    assert scene.pool.waiting == 2
    for read in (MGet([b"k"], budget=PLENTY), Scan(b"", budget=PLENTY)):
        scene.submit(read)
    scene.reactor.turn()
    assert scene.pool.waiting == 4
    scene.run()
    assert (scene.admission.in_flight, scene.door.waiting) == (0, 0)


def test_the_order_of_a_turns_writes_is_kept(scene: Scene) -> None:
    """The last write of a key in one turn is what is there."""
    scene.facade.set(b"k", b"1")
    scene.facade.mset({b"k": b"2", b"l": b"2"})
    scene.facade.delete(b"k")
    scene.facade.set(b"k", b"3")
    scene.run()
    assert scene.storage.data() == {b"k": b"3", b"l": b"2"}
