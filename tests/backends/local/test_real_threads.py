"""The facade on a real thread pool and the real reactor."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import pytest_twisted
from kvtwisted.core.operations import Operations
from kvtwisted.threaded.facade import AsyncOperations
from kvtwisted.threaded.work import UNTAKEN_RESULTS, Work
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.python.threadpool import ThreadPool

from kvtwisted.core.admission import Admission
from kvtwisted.core.errors import InvalidKey, Overloaded
from kvtwisted.core.health import Health
from kvtwisted.core.records import Found

from ..support.configuration import FakeConfiguration
from ..support.recorders import CountingRecorder
from ..support.storage import Storage


class Scene:
    """The facade on a pool of two threads, with room for four calls."""

    def __init__(self) -> None:
        self.pool = ThreadPool(0, 2, "kvtwisted-test")
        self.storage = Storage()
        self.storage.engine.slow = True
        self.admission = Admission(4)
        operations = Operations(self.storage.store, FakeConfiguration({}), CountingRecorder(), Health())
        self.work = Work(reactor, self.pool, operations)
        self.facade = AsyncOperations(operations, self.work, self.admission)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """One with a running pool, stopped afterwards unless the test did."""
    scene = Scene()
    scene.pool.start()
    yield scene
    if not scene.pool.joined:
        scene.pool.stop()


class _Gate:
    """Holds a thread up inside the engine until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.thread = ""

    def pass_through(self) -> None:
        self.thread = threading.current_thread().name
        self.reached.set()
        assert self.opened.wait(60)


def _turn() -> Deferred[None]:
    """Fires when the reactor has had its turn."""
    return deferLater(reactor, 0)


@pytest_twisted.ensureDeferred
async def test_work_is_done_in_the_pool(scene: Scene) -> None:
    """Storage is read in the pool's threads; results come back to the reactor's thread."""
    gate = _Gate()
    gate.opened.set()
    await scene.facade.set(b"k", b"v")
    scene.storage.engine.before("get", gate.pass_through)
    assert await scene.facade.get(b"k") == Found(b"v", 0)
    assert "kvtwisted-test" in gate.thread
    assert threading.current_thread() is threading.main_thread()


@pytest_twisted.ensureDeferred
async def test_failures_cross_the_threads(scene: Scene) -> None:
    """The caller catches what the operation raised."""
    with pytest.raises(InvalidKey, match="must not be empty"):
        await scene.facade.get(b"")
    assert scene.admission.in_flight == 0


@pytest_twisted.ensureDeferred
async def test_cancelled_call_counts_until_its_thread_has_finished(scene: Scene) -> None:
    """The Deferred of a call that is under way fails at once; the call goes on, and counts."""
    gate = _Gate()
    scene.storage.engine.before("write", gate.pass_through)
    cancelled = scene.facade.set(b"k", b"v")
    await _turn()
    assert gate.reached.wait(60)
    cancelled.cancel()
    with pytest.raises(CancelledError):
        await cancelled
    assert scene.admission.in_flight == 1
    gate.opened.set()
    scene.pool.stop()  # waits for the thread
    assert scene.admission.in_flight == 0
    assert scene.storage.data() == {b"k": b"v"}


@pytest_twisted.ensureDeferred
async def test_queue_depth_counts_those_without_a_thread(scene: Scene) -> None:
    """With both threads busy the others wait in the queue, and one more is refused."""
    gates = [_Gate(), _Gate()]
    scene.storage.engine.before("write", gates[0].pass_through)
    scene.storage.engine.before("get", gates[1].pass_through)
    busy = [scene.facade.set(b"a", b""), scene.facade.get(b"a")]
    await _turn()
    assert all(gate.reached.wait(60) for gate in gates)

    waiting = [scene.facade.get(b"b"), scene.facade.get(b"c")]
    assert (scene.work.queue_depth, scene.admission.in_flight) == (2, 4)
    with pytest.raises(Overloaded):
        await scene.facade.get(b"d")
    for gate in gates:
        gate.opened.set()
    await gatherResults([*busy, *waiting])
    assert (scene.work.queue_depth, scene.admission.in_flight) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_many_calls(scene: Scene) -> None:
    """Hundreds of calls, four at a time, all do their work."""
    for n in range(0, 400, 4):
        await gatherResults([scene.facade.set(b"%03d" % k, b"v") for k in range(n, n + 4)])
    assert len(scene.storage.data()) == 400
    assert (scene.work.queue_depth, scene.admission.in_flight) == (0, 0)


@pytest_twisted.inlineCallbacks
def test_large_results_wait_for_the_reactor_in_their_threads(scene: Scene) -> Generator[Any, Any, None]:
    """Of many scans only so many results are there while the reactor does something else; the others come after."""
    made: list[None] = []

    def make() -> bytes:
        made.append(None)
        return b"large"

    waiting = [scene.work.run_large(make) for _ in range(20)]
    # Somebody who goes away takes nobody's place.
    for given_up in waiting[:6]:
        given_up.addErrback(lambda failure: failure.trap(CancelledError)).cancel()
    # The reactor does nothing else meanwhile: as many as may wait, and one in each of the two threads.
    most = UNTAKEN_RESULTS + 2
    deadline = time.monotonic() + 60
    while len(made) < most:
        assert time.monotonic() < deadline
    time.sleep(0.2)
    assert len(made) == most
    results = yield gatherResults(waiting)
    assert results[6:] == [b"large"] * 14
    assert len(made) == 20


@pytest_twisted.inlineCallbacks
def test_threads_do_not_wait_for_a_reactor_that_waits_for_them(scene: Scene) -> Generator[Any, Any, None]:
    """Whoever stops the pool does it on the reactor's thread, so that nothing is taken any more."""
    waiting = [scene.work.run_large(lambda: b"large") for _ in range(20)]
    scene.work.stop()
    scene.pool.stop()
    results = yield gatherResults(waiting)
    assert results == [b"large"] * 20


@pytest_twisted.ensureDeferred
async def test_scans_leave_a_thread(scene: Scene) -> None:
    """Also where nobody shows who they are: scans that come together wait for each other, and nobody else for them."""
    gate = _Gate()
    await scene.facade.set(b"k", b"v")
    scene.storage.engine.before("scan", gate.pass_through)
    scans = [scene.facade.scan(b"", budget=1000) for _ in range(2)]
    try:
        assert await scene.facade.mget([b"k"], budget=1000) == {b"k": b"v"}
        assert scene.work.queue_depth == 1
    finally:
        gate.opened.set()
    for page in await gatherResults(scans):
        assert page.items == [(b"k", b"v")]
