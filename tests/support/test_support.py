"""The fakes keep their word."""

from __future__ import annotations

import inspect
import math

import pytest
from twisted.internet.threads import deferToThreadPool

from kvtwisted.backends.local.engines.engine import DATA, META, Engine, Statistics, everything, ignored
from kvtwisted.backends.server import Configuration
from kvtwisted.core.errors import InvalidConfig, StorageError, WriteStalled
from kvtwisted.sessions.door import Recorder

from .clocks import START_MS, ManualClock, ScriptedTime
from .configuration import FakeConfiguration
from .engines import Call, FaultyEngine, memory_engine
from .pools import ImmediateReactor, ManualPool
from .recorders import CountingRecorder, Recorded
from .storage import Storage


def _shape(function: object) -> list[tuple[str, object, object]]:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]


@pytest.mark.parametrize(
    ("protocol", "fake"), [(Engine, FaultyEngine), (Recorder, CountingRecorder), (Configuration, FakeConfiguration)]
)
def test_fakes_have_the_methods_of_their_protocol(protocol: type, fake: type) -> None:
    """Each fake has every public method of its Protocol, with the same parameters."""
    public = [name for name in vars(protocol) if not name.startswith("_")]
    assert public
    for name in public:
        theirs, ours = getattr(protocol, name), getattr(fake, name)
        assert isinstance(theirs, property) == isinstance(ours, property)
        if not isinstance(theirs, property):
            assert _shape(ours) == _shape(theirs), name


def test_manual_clock_moves_both_clocks() -> None:
    """`advance` moves the wall clock and the monotonic one by the same."""
    time = ManualClock()
    wall, monotonic = time.wall_ns(), time.monotonic_ns()
    assert wall == START_MS * 1_000_000
    time.advance(1500)
    assert (time.wall_ns() - wall, time.monotonic_ns() - monotonic) == (1_500_000_000, 1_500_000_000)
    assert time.wall_ms == START_MS + 1500


def test_manual_clock_steps_the_wall_alone() -> None:
    """`step_wall` leaves the monotonic clock where it is."""
    time = ManualClock()
    monotonic = time.monotonic_ns()
    time.step_wall(-1500)
    assert (time.wall_ms, time.monotonic_ns()) == (START_MS - 1500, monotonic)


def test_scripted_time_gives_its_readings() -> None:
    """One after the other, and no more; the performance counter goes on by itself."""
    time = ScriptedTime(1.0, 5.0)
    assert [time.monotonic(), time.perf_counter(), time.monotonic(), time.perf_counter()] == [1.0, 0.25, 5.0, 0.5]
    with pytest.raises(StopIteration):
        time.monotonic()


def test_faulty_engine_passes_everything_on() -> None:
    """Without a fault every call reaches the engine, is answered by it and recorded."""
    engine = memory_engine()
    engine.write([(DATA, b"a", b"1"), (META, b"m", b"2")])
    assert engine.get(b"a") == b"1"
    assert engine.get(b"m", META) == b"2"
    assert engine.multi_get([b"a", b"b"], 10) == [b"1", None]
    assert list(engine.scan(b"", None)) == [(b"a", b"1")]
    engine.sync()
    engine.compact(b"a", b"b")
    assert engine.statistics() == Statistics()
    assert engine.effective_options() == {}
    assert engine.name == engine.version == "memory"
    engine.close()
    assert engine.calls == [
        Call("write", ([(DATA, b"a", b"1"), (META, b"m", b"2")],)),
        Call("get", (b"a", DATA)),
        Call("get", (b"m", META)),
        Call("multi_get", ([b"a", b"b"], 10, everything)),
        Call("scan", (b"", None, DATA, math.inf, ignored)),
        Call("sync", ()),
        Call("compact", (b"a", b"b")),
        Call("statistics", ()),
        Call("effective_options", ()),
        Call("close", ()),
    ]


def test_faulty_engine_fails_so_many_times() -> None:
    """A fault raises its error, leaves the engine alone, and ends after the times asked."""
    engine = memory_engine()
    engine.fail("write", WriteStalled("later"), times=2)
    for _ in range(2):
        with pytest.raises(WriteStalled, match="later"):
            engine.write([(DATA, b"a", b"1")])
    assert engine.get(b"a") is None
    engine.write([(DATA, b"a", b"1")])
    assert engine.get(b"a") == b"1"
    assert len(engine.called("write")) == 3


def test_faulty_engine_fails_until_healed() -> None:
    """A fault without a count lasts until `heal`."""
    engine = memory_engine()
    engine.fail("sync", StorageError("broken"))
    for _ in range(3):
        with pytest.raises(StorageError, match="broken"):
            engine.sync()
    engine.heal("sync")
    engine.sync()


def test_faulty_engine_acts_before_a_call_once() -> None:
    """The next call sees the effect; later calls are left alone."""
    engine = memory_engine()
    engine.before("get", lambda: engine.write([(DATA, b"a", b"between")]))
    assert engine.get(b"a") == b"between"
    engine.write([(DATA, b"a", None)])
    assert engine.get(b"a") is None


def test_faulty_engine_acts_after_a_call_once() -> None:
    """The next call has its answer already; the one after it sees the effect."""
    engine = memory_engine()
    engine.after("get", lambda: engine.write([(DATA, b"a", b"between")]))
    assert engine.get(b"a") is None
    assert engine.get(b"a") == b"between"
    assert len(engine.called("write")) == 1


def test_counting_recorder_keeps_everything() -> None:
    """Operations are kept in order, the other two are counted, durations are kept of all."""
    recorder = CountingRecorder()
    recorder.operation("set", 2, 0.5, True)
    recorder.config_update()
    recorder.health_check(0.1)
    assert recorder.operations == [Recorded("set", 2, True)]
    assert (recorder.config_updates, recorder.health_checks) == (1, 1)
    assert recorder.seconds == [0.5, 0.1]


def test_fake_configuration_takes_known_keys() -> None:
    """Updates show, name what needs a restart, and an unknown key changes nothing."""
    configuration = FakeConfiguration({"a": 1, "b": 2}, restart=("b",))
    assert configuration.update({"a": 3}) == []
    assert configuration.update('{"b": 4}') == ["b"]
    with pytest.raises(InvalidConfig, match="c: unknown key"):
        configuration.update({"a": 5, "c": 6})
    with pytest.raises(InvalidConfig, match="must be an object"):
        configuration.update("[]")
    assert configuration.show() == '{"a": 3, "b": 4}'


def test_manual_pool_runs_when_told() -> None:
    """Work waits for `run_one`; results and failures arrive through the reactor."""
    pool, results = ManualPool(), []
    deferToThreadPool(ImmediateReactor(), pool, lambda a, b: a + b, 1, b=2).addCallback(results.append)
    deferToThreadPool(ImmediateReactor(), pool, lambda: 1 / 0).addErrback(lambda failure: results.append(failure.type))
    assert (pool.waiting, results) == (2, [])
    pool.run_one()
    assert (pool.waiting, results) == (1, [3])
    pool.run_all()
    assert (pool.waiting, results) == (0, [3, ZeroDivisionError])


def test_storage_restart_keeps_what_the_engine_kept() -> None:
    """`restart` makes new parts over the same records; the helpers show them."""
    storage = Storage()
    storage.store.set(b"k", b"v", 5)
    storage.restart()
    assert storage.value(b"k") == b"v"
    assert storage.value(b"missing") is None
    assert storage.index() == [(START_MS + 5000, b"k")]
    storage.put_record(b"r", b"w", 7)
    assert storage.index()[0] == (7, b"r")
    assert set(storage.data()) == {b"k", b"r"}
