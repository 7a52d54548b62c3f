"""The local backend on a real thread pool and the real reactor."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.task import deferLater
from twisted.python.threadpool import ThreadPool

from kvtwisted.backends.local import inline_reads
from kvtwisted.backends.local.backend import UNTAKEN_RESULTS, LocalBackend
from kvtwisted.backends.local.recovery import Recovery
from kvtwisted.backends.server import ServerCommands
from kvtwisted.commands.command import Command
from kvtwisted.commands.get import Found, Get
from kvtwisted.commands.mget import MGet
from kvtwisted.commands.scan import Scan
from kvtwisted.commands.set import Set
from kvtwisted.core.errors import InvalidKey, Overloaded
from kvtwisted.core.health import Health
from kvtwisted.core.limits import Limits
from kvtwisted.reactor.fair_pool import FairPool
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.gate import Gate, Visitor
from tests.support.configuration import FakeConfiguration
from tests.support.recorders import CountingRecorder
from tests.support.storage import Storage


class Scene:
    """A door over a pool of two threads, with room for four calls."""

    def __init__(self) -> None:
        self.pool = ThreadPool(0, 2, "kvtwisted-test")
        self.storage = Storage()
        self.storage.engine.slow = True
        self.admission = Admission(4)
        store, health = self.storage.store, Health()
        fair = FairPool(reactor, self.pool)
        self.backend = LocalBackend(reactor, fair, store, Recovery(store.metadata, health))
        server = ServerCommands(reactor, fair, FakeConfiguration({}), lambda: None)
        self.door = Door(reactor, self.backend, server, CountingRecorder(), Limits(), health)  # type: ignore[arg-type]
        self.session = Gate(self.door, self.admission).admit(Visitor(""))

    def ask(self, command: Command) -> Deferred[Any]:
        """Its result, or its error."""
        asked: Deferred[Any] = Deferred()

        def done(command: Command) -> None:
            if command.error is None:
                asked.callback(command.result)
            else:
                asked.errback(command.error)

        try:
            self.session.submit(command, done)
        except Exception:
            return fail()
        return asked


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
    await scene.ask(Set(b"k", b"v"))
    scene.storage.engine.before("get", gate.pass_through)
    assert await scene.ask(Get(b"k")) == Found(b"v", 0)
    assert "kvtwisted-test" in gate.thread
    assert threading.current_thread() is threading.main_thread()


@pytest_twisted.ensureDeferred
async def test_failures_cross_the_threads(scene: Scene) -> None:
    """The caller catches what the operation raised."""
    with pytest.raises(InvalidKey, match="must not be empty"):
        await scene.ask(Get(b""))
    assert scene.admission.in_flight == 0


@pytest_twisted.ensureDeferred
async def test_queue_depth_counts_those_without_a_thread(scene: Scene) -> None:
    """With both threads busy the others wait in the queue, and one more is refused."""
    gates = [_Gate(), _Gate()]
    scene.storage.engine.before("write", gates[0].pass_through)
    scene.storage.engine.before("get", gates[1].pass_through)
    busy = [scene.ask(Set(b"a", b"")), scene.ask(Get(b"a"))]
    await _turn()
    assert all(gate.reached.wait(60) for gate in gates)

    waiting = [scene.ask(Get(b"b")), scene.ask(Get(b"c"))]
    assert (scene.door.waiting, scene.admission.in_flight) == (2, 4)
    with pytest.raises(Overloaded):
        await scene.ask(Get(b"d"))
    for gate in gates:
        gate.opened.set()
    await gatherResults([*busy, *waiting])
    assert (scene.door.waiting, scene.admission.in_flight) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_many_calls(scene: Scene) -> None:
    """Hundreds of calls, four at a time, all do their work."""
    for n in range(0, 400, 4):
        await gatherResults([scene.ask(Set(b"%03d" % k, b"v")) for k in range(n, n + 4)])
    assert len(scene.storage.data()) == 400
    assert (scene.door.waiting, scene.admission.in_flight) == (0, 0)


class _Large(MGet):
    """One that says when its result is there."""

    __slots__ = ("made",)

    def __init__(self, made: list[None]) -> None:
        super().__init__([b"k"], budget=1000, encode=lambda found: made.append(None) or b"large")


@pytest_twisted.inlineCallbacks
def test_large_results_wait_for_the_reactor_in_their_threads(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> Generator[Any, Any, None]:
    """Of many reads only so many results are there while the reactor does something else; the others come after."""
    monkeypatch.setattr(inline_reads, "SECONDS_IN_A_TURN", math.inf)  # all are handed over in one turn
    made: list[None] = []
    scene.session.admission = Admission(100)
    waiting = [scene.ask(_Large(made)) for _ in range(20)]
    yield _turn()
    # The reactor does nothing else meanwhile: as many as may wait, and one in each of the two threads.
    most = UNTAKEN_RESULTS + 2
    deadline = time.monotonic() + 60
    while len(made) < most:
        assert time.monotonic() < deadline
    time.sleep(0.2)
    assert len(made) == most
    results = yield gatherResults(waiting)
    assert results == [b"large"] * 20
    assert len(made) == 20


@pytest_twisted.inlineCallbacks
def test_threads_do_not_wait_for_a_reactor_that_waits_for_them(scene: Scene) -> Generator[Any, Any, None]:
    """Whoever stops the pool does it on the reactor's thread, so that nothing is taken any more."""
    scene.session.admission = Admission(100)
    waiting = [scene.ask(_Large([])) for _ in range(20)]
    yield _turn()
    scene.backend.stop()
    stopping = threading.Thread(target=scene.pool.stop)
    stopping.start()
    stopping.join(20)
    waits = stopping.is_alive()
    # So that the test ends in any case.
    scene.backend._untaken.release(20)
    stopping.join()
    assert not waits
    results = yield gatherResults(waiting)
    assert results == [b"large"] * 20


@pytest_twisted.ensureDeferred
async def test_scans_leave_a_thread(scene: Scene) -> None:
    """Also where nobody shows who they are: scans that come together wait for each other, and nobody else for them."""
    gate = _Gate()
    await scene.ask(Set(b"k", b"v"))
    scene.storage.engine.before("scan", gate.pass_through)
    scans = [scene.ask(Scan(b"", budget=1000)) for _ in range(2)]
    try:
        assert await scene.ask(MGet([b"k"], budget=1000)) == {b"k": b"v"}
        assert scene.door.waiting == 1
    finally:
        gate.opened.set()
    for page in await gatherResults(scans):
        assert page.items == [(b"k", b"v")]
