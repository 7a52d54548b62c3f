"""The operations as Deferreds, without threads: a test decides when queued work runs."""

from __future__ import annotations

import inspect
import json
import time
from typing import Any, Callable

import pytest
from kvtwisted.core.operations import Operations
from kvtwisted.threaded.facade import AsyncOperations
from kvtwisted.threaded.work import Work
from twisted.internet.defer import CancelledError, Deferred

from kvtwisted.commands.scan import Page
from kvtwisted.core.admission import Admission
from kvtwisted.core.errors import DeadlineExceeded, InvalidConfig, InvalidKey, KvError, Overloaded, Unavailable
from kvtwisted.core.health import Health
from kvtwisted.core.records import Found

from ..support.configuration import FakeConfiguration
from ..support.pools import ImmediateReactor, ManualPool
from ..support.recorders import CountingRecorder, Recorded
from ..support.storage import PLENTY, Storage

#: Bytes that requests may have together.
BYTES = 100


class Scene:
    """The facade over a real store in memory, on a pool without threads."""

    def __init__(self, capacity: int = 10, *, slow: bool = True) -> None:
        """`slow` makes every call need a thread."""
        self.storage = Storage()
        self.storage.engine.slow = slow
        self.pool = ManualPool()
        self.recorder = CountingRecorder()
        self.health = Health()
        configuration = FakeConfiguration({"a": 1}, restart=("a",))
        self.operations = Operations(self.storage.store, configuration, self.recorder, self.health)
        self.admission = Admission(capacity, BYTES)
        self.reactor = ImmediateReactor()
        self.work = Work(self.reactor, self.pool, self.operations)
        self.facade = AsyncOperations(self.operations, self.work, self.admission)

    @staticmethod
    def now() -> float:
        """The time that deadlines are of."""
        return time.monotonic()

    def run(self) -> None:
        """Let the reactor have its turn, and the threads their work, until nothing waits."""
        while self.work.queue_depth:
            self.reactor.turn()
            self.pool.run_all()

    def result(self, deferred: Deferred[Any]) -> Any:
        """Run what waits, and give what came of `deferred`."""
        self.run()
        self.pool.run_all()
        return _outcome(deferred)


def _outcome(deferred: Deferred[Any]) -> Any:
    """What a fired Deferred holds; its exception is raised."""
    outcomes: list[Any] = []
    failures: list[Any] = []
    deferred.addCallbacks(outcomes.append, failures.append)
    assert len(outcomes) + len(failures) == 1, "the Deferred has not fired"
    if failures:
        failures[0].raiseException()
    return outcomes[0]


@pytest.fixture
def scene() -> Scene:
    """An empty one."""
    return Scene()


def _public(of: type) -> dict[str, Callable[..., Any]]:
    return {name: method for name, method in inspect.getmembers(of, inspect.isfunction) if not name.startswith("_")}


def test_covers_every_operation() -> None:
    """Each public method of Operations is there with the same parameters, but those that the facade is made of.

    The health check has a way of its own, `HealthChecks`. Work of a transport's own (`reckon`) is no operation.
    The author of a change is no transport's to name: what the facade is made over does.
    """
    operations, facade = _public(Operations), _public(AsyncOperations)
    del facade["reckon"]
    steps = {name for name in operations if name.startswith(("begin_", "settle"))} | {"get_now", "needs_files"}
    assert set(operations) - set(facade) == steps | {"health"}
    assert set(facade) <= set(operations)
    for name in facade:
        theirs = [one for one in inspect.signature(operations[name]).parameters.values() if one.name != "author"]
        assert list(inspect.signature(facade[name]).parameters.values()) == theirs, name


def test_results_are_deferred_of_the_same() -> None:
    """Each method's annotation is a Deferred of what the operation returns."""
    operations, facade = _public(Operations), _public(AsyncOperations)
    del facade["reckon"]
    for name in facade:
        theirs = inspect.signature(operations[name]).return_annotation
        assert inspect.signature(facade[name]).return_annotation == f"Deferred[{theirs}]", name


def test_every_operation_does_its_work(scene: Scene) -> None:
    """All methods pass all their arguments on and give back what the operation returned."""
    facade, result = scene.facade, scene.result
    assert result(facade.set(b"k", b"v", 7)) is None
    assert result(facade.get(b"k")) == Found(b"v", 7)
    assert result(facade.mset({b"m1": b"1", b"m2": b"2"}, 9)) is None
    assert result(facade.get(b"m2")) == Found(b"2", 9)
    assert result(facade.mget([b"m1", b"missing"], budget=PLENTY)) == {b"m1": b"1"}
    page = facade.scan(b"m", cursor=b"m", limit=1, keys_only=True, budget=PLENTY)
    assert result(page) == Page([(b"m1", b"")], b"m1")
    assert result(facade.delete(b"k")) is None
    assert result(facade.mdelete([b"m1"])) is None
    assert set(scene.storage.data()) == {b"m2"}
    assert json.loads(result(facade.get_config())) == {"a": 1}
    assert result(facade.update_config({"a": 2})) == ["a"]
    assert result(facade.update_config_text('{"a": 3}')) == ["a"]
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
def test_work_that_waited_too_long_is_not_done(
    scene: Scene, call: Callable[[AsyncOperations, float], Deferred[Any]]
) -> None:
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
    assert (scene.admission.in_flight, scene.work.queue_depth, scene.pool.waiting) == (1, 1, 0)
    scene.reactor.turn()
    assert (scene.admission.in_flight, scene.pool.waiting) == (1, 1)
    assert scene.storage.data() == {}
    assert scene.result(deferred) is None
    assert (scene.admission.in_flight, scene.work.queue_depth) == (0, 0)
    assert scene.storage.data() == {b"k": b"v"}


def test_overload_is_refused_before_it_is_queued() -> None:
    """The call over the capacity fails at once and never reaches the pool; after one has left there is room."""
    scene = Scene(capacity=2)
    admitted = [scene.facade.set(b"a", b""), scene.facade.get(b"a")]
    with pytest.raises(Overloaded, match=r"limits\.max_in_flight is 2"):
        _outcome(scene.facade.set(b"b", b""))
    assert (scene.pool.waiting, scene.work.queue_depth) == (1, 2)
    scene.pool.run_one()
    assert scene.work.queue_depth == 1
    admitted.append(scene.facade.set(b"c", b""))
    scene.run()
    assert [_outcome(deferred) for deferred in admitted] == [None, None, None]
    assert set(scene.storage.data()) == {b"a", b"c"}
    assert scene.recorder.operations == [
        Recorded("get", 1, False),
        Recorded("set", 1, False),
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
        lambda facade: facade.update_config_text("{}"),
    ],
)
@pytest.mark.parametrize(("closed", "error"), [(False, Overloaded), (True, Unavailable)])
def test_every_call_is_admitted_first(
    call: Callable[[AsyncOperations], Deferred[Any]], closed: bool, error: type[KvError]
) -> None:
    """Without room, and while stopping, each call fails at once."""
    scene = Scene(capacity=0)
    if closed:
        scene.admission.close()
    with pytest.raises(error):
        _outcome(call(scene.facade))
    assert scene.pool.waiting == 0


def test_cancelled_call_counts_until_it_is_done(scene: Scene) -> None:
    """The client that went away gets nothing, but its write runs, and counts as in flight until it has."""
    deferred = scene.facade.set(b"k", b"v")
    deferred.cancel()
    with pytest.raises(CancelledError):
        _outcome(deferred)
    assert (scene.admission.in_flight, scene.work.queue_depth) == (1, 1)
    scene.run()
    assert (scene.admission.in_flight, scene.work.queue_depth) == (0, 0)
    assert scene.storage.data() == {b"k": b"v"}


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
        (8, lambda facade: facade.update_config_text('{"a": 2}')),
    ],
    ids=["set", "mset", "delete", "mdelete", "mget", "scan", "update_config_text"],
)
def test_the_bytes_of_requests(size: int, call: Callable[[AsyncOperations], Deferred[Any]], slow: bool) -> None:
    """Each counts with its keys and values while it is under way, and one that has no room is refused."""
    scene = Scene(slow=slow)
    waiting = call(scene.facade)
    assert (scene.admission.in_flight, scene.admission.bytes) == (1, size)
    scene.result(waiting)
    assert (scene.admission.in_flight, scene.admission.bytes) == (0, 0)
    scene.admission.enter(BYTES)
    with pytest.raises(Overloaded, match=f"limits.max_bytes_in_flight is {BYTES}"):
        _outcome(call(scene.facade))
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
    assert scene.operations.overdue == 1
