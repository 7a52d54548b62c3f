"""The door: everything is counted once, and failing writes show in the health."""

from __future__ import annotations

import json
import time
from typing import Any, Callable

import pytest

from kvtwisted.backends.local import backend as backend_module
from kvtwisted.backends.local import pages as pages_module
from kvtwisted.backends.local import writer as writer_module
from kvtwisted.backends.local.engines.engine import META
from kvtwisted.commands.command import DELETE, GET, OPERATIONS, SCAN, SET, Command
from kvtwisted.commands.conditional import ConditionalSet, Increment
from kvtwisted.commands.conditions import Condition
from kvtwisted.commands.conditions import Test as Asked
from kvtwisted.commands.delete_range import DeleteRange
from kvtwisted.commands.get import Found
from kvtwisted.commands.mutations import AddNumber, SetValue
from kvtwisted.commands.scan import Scan
from kvtwisted.commands.set import Set
from kvtwisted.commands.watch import Watch
from kvtwisted.core.errors import (
    DeadlineExceeded,
    InvalidConfig,
    InvalidKey,
    NearlyFull,
    Overloaded,
    ResponseTooLarge,
    StorageError,
    StorageFull,
    Unavailable,
    Unsupported,
    WriteStalled,
)
from kvtwisted.core.limits import Limits
from kvtwisted.sessions import door as door_module
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.door import Door

from ..support.clocks import ScriptedTime
from ..support.configuration import FakeConfiguration
from ..support.doors import Blocking, Doorway
from ..support.pages import page_of
from ..support.recorders import CountingRecorder, Recorded
from ..support.storage import PLENTY, Storage
from .support import EVERYTHING


class Scene(Doorway):
    """A door over a store in memory, and all that it reports to."""

    def __init__(self, storage: Storage | None = None) -> None:
        super().__init__(storage, configuration=FakeConfiguration({"a": 1, "b": 2}, restart=("b",)))
        self.operations: Blocking = self.blocking()


@pytest.fixture
def scene() -> Scene:
    """An empty one."""
    return Scene()


def test_every_operation_reaches_the_store(scene: Scene) -> None:
    """All seven storage operations do what the store does, with all their arguments."""
    operations = scene.operations
    operations.set(b"k", b"v")
    operations.set(b"t", b"w", 7)
    assert operations.get(b"k") == Found(b"v", 0)
    assert operations.get(b"t") == Found(b"w", 7)
    assert operations.get(b"missing") is None
    operations.mset({b"m1": b"1", b"m2": b"2"}, 9)
    assert operations.get(b"m1") == Found(b"1", 9)
    assert operations.mget([b"m2", b"k", b"missing"], budget=PLENTY) == {b"m2": b"2", b"k": b"v"}
    assert operations.scan(b"m", budget=PLENTY) == page_of([(b"m1", b"1"), (b"m2", b"2")], b"")
    page = operations.scan(b"m", cursor=b"m", limit=1, keys_only=True, budget=PLENTY)
    assert page == page_of([(b"m1", b"")], b"m1")
    operations.delete(b"k")
    operations.mset({b"m3": b"3"})
    assert operations.get(b"m3") == Found(b"3", 0)
    operations.mdelete([b"m1", b"m3", b"missing"])
    assert set(scene.storage.data()) == {b"t", b"m2"}


def test_budgets_reach_the_store(scene: Scene) -> None:
    """Scan and MGet hold to the budget they are given."""
    scene.operations.set(b"k", b"v" * 100)
    with pytest.raises(ResponseTooLarge):
        scene.operations.scan(b"", budget=10)
    with pytest.raises(ResponseTooLarge):
        scene.operations.mget([b"k"], budget=10)


_CALLS: list[tuple[Callable[..., Any], Recorded]] = [
    (lambda operations, **deadline: operations.set(b"k", b"v", **deadline), Recorded(SET, 1, False)),
    (lambda operations, **deadline: operations.get(b"missing", **deadline), Recorded(GET, 1, False)),
    (lambda operations, **deadline: operations.delete(b"missing", **deadline), Recorded(DELETE, 1, False)),
    (lambda operations, **deadline: operations.scan(b"none", budget=1, **deadline), Recorded(SCAN, 1, False)),
    (lambda operations, **deadline: operations.mset({b"a": b"", b"b": b""}, **deadline), Recorded(SET, 2, False)),
    (lambda operations, **deadline: operations.mget([b"a", b"b", b"c"], budget=9, **deadline), Recorded(GET, 3, False)),
    (lambda operations, **deadline: operations.mdelete([b"a", b"b"], **deadline), Recorded(DELETE, 2, False)),
]


@pytest.mark.parametrize(("call", "recorded"), _CALLS)
def test_each_call_is_counted_once(scene: Scene, call: Callable[..., Any], recorded: Recorded) -> None:
    """A call counts once, a batch its keys; a missing key is no error."""
    call(scene.operations)
    assert scene.recorded == [recorded]


@pytest.mark.parametrize(("call", "recorded"), _CALLS)
def test_overdue_call_is_not_started(scene: Scene, call: Callable[..., Any], recorded: Recorded) -> None:
    """A call whose time has run out does not touch the store and counts as failed."""
    before = len(scene.storage.engine.calls)
    with pytest.raises(DeadlineExceeded, match="before it was started"):
        call(scene.operations, deadline=time.monotonic() - 1)
    assert len(scene.storage.engine.calls) == before
    assert scene.recorded == [recorded._replace(failed=True)]


@pytest.mark.parametrize(("call", "recorded"), _CALLS)
def test_call_in_time_is_done(scene: Scene, call: Callable[..., Any], recorded: Recorded) -> None:
    """A deadline in the future changes nothing."""
    call(scene.operations, deadline=time.monotonic() + 60)
    assert scene.recorded == [recorded]


def test_deadline_is_passed_to_the_scan(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that starts in time still gives up at the deadline, in a thread."""
    scene.operations.set(b"k", b"v")
    scene.storage.engine.slow = True
    now = ScriptedTime(1.0, *[3.0] * 6)
    monkeypatch.setattr(door_module, "monotonic", now.monotonic)
    monkeypatch.setattr(backend_module, "monotonic", lambda: 1.0)
    monkeypatch.setattr(pages_module, "time", now)
    with pytest.raises(DeadlineExceeded, match="the scan took longer"):
        scene.operations.scan(b"", budget=PLENTY, deadline=2.0)


@pytest.mark.parametrize("call", [_CALLS[0][0], _CALLS[2][0], _CALLS[4][0], _CALLS[6][0]])
def test_deadline_is_passed_to_writes(scene: Scene, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that starts in time waits for a stall no longer than the deadline; being refused is no illness."""
    now = ScriptedTime(1.0, *[3.0] * 6)
    monkeypatch.setattr(door_module, "monotonic", now.monotonic)
    monkeypatch.setattr(writer_module, "time", now)
    scene.storage.engine.fail("write", WriteStalled("stalled"))
    with pytest.raises(Overloaded):
        call(scene.operations, deadline=2.0)
    assert [recorded.failed for recorded in scene.recorded] == [True]
    assert scene.health.reason() is None


def test_failures_are_counted(scene: Scene) -> None:
    """Bad input and storage failures both count, batches with their keys; also failures nobody foresaw."""
    with pytest.raises(InvalidKey):
        scene.operations.set(b"", b"")
    with pytest.raises(InvalidKey):
        scene.operations.mget([b"a", b""], budget=1)
    scene.storage.engine.fail("get", StorageError("read broke"))
    with pytest.raises(StorageError):
        scene.operations.get(b"k")
    scene.storage.engine.before("scan", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scene.operations.scan(b"", budget=1)
    assert scene.recorded == [
        Recorded(SET, 1, True), Recorded(GET, 2, True), Recorded(GET, 1, True), Recorded(SCAN, 1, True)
    ]  # fmt: skip


def test_calls_are_timed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder gets the seconds from start to end, of calls that fail too, and of health checks."""
    readings = ScriptedTime(1.0, 1.25, 2.0, 2.5, 3.0, 3.75)
    monkeypatch.setattr(door_module, "monotonic", readings.monotonic)
    scene.operations.set(b"k", b"v", deadline=1.0)
    with pytest.raises(InvalidKey):
        scene.operations.get(b"")
    scene.door.health()
    assert scene.recorder.seconds == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    "command",
    [
        Increment(AddNumber(b"k", 1)),
        ConditionalSet(SetValue(b"k", b"v"), Condition(Asked.ABSENT)),
        DeleteRange(b"k"),
        Scan(b"", reverse=True, budget=PLENTY),
        Watch(budget=PLENTY),
    ],
    ids=lambda command: command.name,
)
def test_what_the_backend_cannot_do_is_refused(scene: Scene, command: Command) -> None:
    """With a sentence that names the capability; the backend is not asked. It counts as a failure, but for a Watch."""
    scene.door._capabilities = frozenset({""})
    with pytest.raises(Unsupported, match=repr(command.capability)):
        scene.submit(command)
    counted = [Recorded(command.metric, 1, True)] if command.metric else []
    assert scene.recorder.operations == counted
    assert scene.storage.data() == {}


def test_empty_batch_counts_no_key(scene: Scene) -> None:
    """It is a call of no keys."""
    scene.operations.mset({})
    assert scene.recorded == [Recorded(SET, 0, False)]


def test_operation_words() -> None:
    """The words that the metrics' names are made of."""
    assert OPERATIONS == ("set", "get", "delete", "scan")


# Configuration.


def test_configuration(scene: Scene) -> None:
    """Shown, changed by document and by text; both name what needs a restart; each change counts once."""
    assert json.loads(scene.operations.get_config()) == {"a": 1, "b": 2}
    assert scene.operations.update_config({"a": 3}) == []
    assert scene.operations.update_config('{"b": 4}') == ["b"]
    assert json.loads(scene.operations.get_config()) == {"a": 3, "b": 4}
    assert scene.recorder.config_updates == 2
    assert scene.recorded == []


def test_refused_configuration_does_not_count(scene: Scene) -> None:
    """Only accepted changes count."""
    with pytest.raises(InvalidConfig):
        scene.operations.update_config({"c": 1})
    with pytest.raises(InvalidConfig):
        scene.operations.update_config('{"c": 1}')
    assert scene.recorder.config_updates == 0


# Health.


def test_healthy(scene: Scene) -> None:
    """With no condition and a readable storage there is no reason; each check counts."""
    assert scene.door.health() is None
    assert scene.door.health() is None
    assert scene.recorder.health_checks == 2


def test_condition_is_the_reason(scene: Scene) -> None:
    """A known condition is told without asking the storage."""
    scene.health.fail("server", "the server is stopping")
    before = len(scene.storage.engine.calls)
    assert scene.door.health() == "the server is stopping"
    assert len(scene.storage.engine.calls) == before
    assert scene.recorder.health_checks == 1


@pytest.mark.parametrize("error", [StorageError("read broke"), Unavailable("the storage is closed")])
def test_unreadable_storage_is_the_reason(scene: Scene, error: StorageError) -> None:
    """The check really reads, and what fails is the reason; it counts like any other."""
    scene.storage.engine.fail("get", error, times=1)
    assert scene.door.health() == str(error)
    assert scene.door.health() is None
    assert scene.recorder.health_checks == 2


def test_damaged_mark_is_the_reason(scene: Scene) -> None:
    """A storage that gives back something else than was written is not healthy."""
    scene.storage.engine.write([(META, b"format", b"?")])
    assert scene.door.health() == "the data folder's format mark cannot be read back"


@pytest.mark.parametrize("call", [_CALLS[0][0], _CALLS[2][0], _CALLS[4][0], _CALLS[6][0]])
def test_failed_write_shows_and_recovers(scene: Scene, call: Callable[..., Any]) -> None:
    """A failed write is raised and becomes the reason; `recover` clears it once writes work, and not before."""
    engine = scene.storage.engine
    engine.fail("write", StorageFull("no space left"))
    with pytest.raises(StorageFull):
        call(scene.operations)
    assert scene.door.health() == "writes fail: no space left"
    with pytest.raises(StorageFull):
        scene.recovery.attempt()
    assert scene.door.health() == "writes fail: no space left"
    engine.heal("write")
    scene.recovery.attempt()
    assert scene.door.health() is None
    call(scene.operations)


def test_reads_go_on_while_writes_fail(scene: Scene) -> None:
    """Failing writes do not stop reads."""
    scene.operations.set(b"k", b"v")
    scene.storage.engine.fail("write", StorageFull("no space left"))
    with pytest.raises(StorageFull):
        scene.operations.set(b"k", b"new")
    assert scene.operations.get(b"k") == Found(b"v", 0)
    assert scene.operations.scan(b"", budget=PLENTY).items == [(b"k", b"v")]


def test_failed_read_is_not_a_failed_write(scene: Scene) -> None:
    """Reads that fail set no condition: the health check reads for itself."""
    scene.storage.engine.fail("get", StorageError("read broke"), times=1)
    with pytest.raises(StorageError):
        scene.operations.get(b"k")
    assert scene.health.reason() is None


def test_refused_write_is_no_illness(scene: Scene) -> None:
    """Bad input sets no condition."""
    with pytest.raises(InvalidKey):
        scene.operations.set(b"", b"")
    assert scene.door.health() is None


def test_write_refused_for_the_disk_is_no_illness(scene: Scene) -> None:
    """A disk that is nearly full sets its own condition, when it likes; what is refused for it sets none."""
    scene.storage.engine.fail("write", NearlyFull("nearly full"))
    with pytest.raises(NearlyFull):
        scene.operations.set(b"k", b"v")
    assert scene.door.health() is None


def test_recover_leaves_a_healthy_storage_alone(scene: Scene) -> None:
    """Without failing writes nothing is tried."""
    scene.health.fail("server", "the server is stopping")
    before = len(scene.storage.engine.calls)
    scene.recovery.attempt()
    assert len(scene.storage.engine.calls) == before
    assert scene.health.reason() == "the server is stopping"


def test_recover_from_a_failed_fsync() -> None:
    """Where writes wait for an fsync, health returns only when the fsync works again."""
    scene = Scene(Storage(durable=True))
    scene.storage.engine.fail("sync", StorageError("fsync broke"))
    with pytest.raises(StorageError):
        scene.operations.set(b"k", b"v")
    with pytest.raises(StorageError, match="fsync broke"):
        scene.recovery.attempt()
    assert scene.door.health() == "writes fail: fsync broke"
    scene.storage.engine.heal("sync")
    scene.recovery.attempt()
    assert scene.door.health() is None


def test_no_deadline_by_default(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a deadline there is none."""
    monkeypatch.setattr(door_module, "monotonic", lambda: 1e300)
    scene.operations.set(b"k", b"v")
    assert scene.operations.get(b"k") == Found(b"v", 0)


# What a hot Get costs.


class Sampling(CountingRecorder):
    """Keeps for how many calls each stands."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, int]] = []

    def operation(self, name: str, keys: int, seconds: float, failed: bool, calls: int = 1) -> None:
        """Keep it."""
        super().operation(name, keys, seconds, failed, calls)
        self.calls.append((keys, calls))


def hot_door(scene: Scene) -> tuple[Door, Sampling]:
    """A door with a recorder of its own, over the scene's backend."""
    recorder = Sampling()
    reactor: Any = scene.reactor
    server: Any = None
    return Door(reactor, scene.backend, server, recorder, Limits(), scene.health), recorder


def test_hot_gets_are_counted_and_sampled() -> None:
    """Each by an integer; one of HOT_SAMPLE is timed, and stands for that many, and for no key."""
    scene = Scene(Storage(cache_bytes=1 << 20))
    scene.operations.set(b"k", b"v")
    for _ in range(3):
        # Used before it is cached.
        assert scene.operations.get(b"k") == Found(b"v", 0)
    door, recorder = hot_door(scene)
    entry = scene.storage.cache.entries[b"k"]
    entry.used = False
    for _ in range(2 * door_module.HOT_SAMPLE):
        assert door.get_now(b"k") == (True, Found(b"v", 0))
    # Also for the cache, from which what was not used goes first.
    assert entry.used
    assert door.hot_gets.value == 2 * door_module.HOT_SAMPLE
    assert recorder.calls == [(0, door_module.HOT_SAMPLE)] * 2


def test_what_memory_finds_slower_is_told_one_by_one() -> None:
    """A key that does not exist, for example; what needs a thread is nothing yet."""
    scene = Scene(Storage(cache_bytes=1 << 20))
    door, recorder = hot_door(scene)
    assert door.get_now(b"missing") == (True, None)
    scene.storage.engine.slow = True
    assert door.get_now(b"missing") == (False, None)
    assert (door.hot_gets.value, recorder.operations) == (0, [Recorded(GET, 1, False)])


@pytest.mark.parametrize("command", [SET, GET])
def test_durations_are_folded_when_enough_have_gathered(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that their list does not grow without end."""
    monkeypatch.setattr(door_module, "FOLD", 3)
    scene = Scene()
    durations: dict[str, list[float]] = {SET: [], GET: []}
    folded: list[int] = []
    recorder = Sampling()
    monkeypatch.setattr(recorder, "durations", durations.__getitem__)
    monkeypatch.setattr(recorder, "fold", lambda: folded.append(len(durations[command])))
    reactor: Any = scene.reactor
    server: Any = None
    door = Door(reactor, scene.backend, server, recorder, Limits(), scene.health)
    for _ in range(3):
        if command == GET:
            door.get_now(b"missing")
        else:
            door.submit(Set(b"k", b"v"), scene.admission, lambda command: None)
            scene.run()
    assert folded == [3]


# What is done when a command is.


def test_who_is_told_finds_room(scene: Scene) -> None:
    """Its command has left: the next one goes in where there is room for one alone."""
    scene.admission = Admission(1, 4)
    scene.session = scene.make_session(EVERYTHING)
    outcomes: list[int] = []

    def again(command: Command) -> None:
        outcomes.append(scene.admission.in_flight)
        if len(outcomes) < 3:
            scene.session.submit(Set(b"k", b"abc"), again)

    scene.session.submit(Set(b"k", b"abc"), again)
    for _ in range(3):
        scene.run()
    assert outcomes == [0, 0, 0]


def test_who_flushes_is_told_last(scene: Scene) -> None:
    """Once for each group, when all of it have their results."""
    told: list[str] = []
    scene.door.on_settled(lambda: told.append("flush"))
    for key in (b"a", b"b"):
        scene.session.submit(Set(key, b""), lambda command: told.append("done"))
    scene.run()
    assert told == ["done", "done", "flush"]


def test_what_is_refused_has_not_entered(scene: Scene) -> None:
    """Neither for its time nor for what it asks; nobody is told that it is done."""
    for command in (Set(b"", b""), Set(b"k", b"v", deadline=time.monotonic() - 1)):
        with pytest.raises((InvalidKey, DeadlineExceeded)):
            scene.door.submit(command, scene.admission, lambda command: pytest.fail("it was refused"))
    scene.run()
    assert (scene.admission.in_flight, scene.admission.bytes, scene.door.waiting) == (0, 0, 0)
    assert scene.door.overdue.value == 1
