"""Threads that wait for their commands, as grpcio's do."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from kvtwisted.commands.command import Command
from kvtwisted.commands.get import Get
from kvtwisted.core.errors import DeadlineExceeded, InvalidKey, StorageError
from kvtwisted.sessions import threads as threads_module
from kvtwisted.sessions.door import Done
from kvtwisted.sessions.threads import FromThreads

PATIENCE = 20.0


class Reactor:
    """What is called from threads waits until a test has it run."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.called = threading.Semaphore(0)

    def callFromThread(self, call: Callable[[], object]) -> None:
        """Keep it."""
        self.calls.append(call)
        self.called.release()

    def run(self) -> None:
        """Wait until something was called, and run it."""
        assert self.called.acquire(timeout=PATIENCE)
        self.calls.pop(0)()


class Session:
    """Keeps what is submitted, or refuses it."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal = refusal
        self.submitted: list[tuple[Command, Done]] = []

    def submit(self, command: Command, done: Done, /) -> None:
        """As a session does."""
        if self.refusal is not None:
            raise self.refusal
        self.submitted.append((command, done))


class Scene:
    """Threads that wait, and a reactor that a test runs."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.from_threads = FromThreads(self.reactor)  # type: ignore[arg-type]
        self.threads: list[threading.Thread] = []
        self.outcomes: list[Any] = []

    def start(self, session: Session, command: Command) -> None:
        """Run it in a thread of its own."""

        def run() -> None:
            try:
                self.outcomes.append(self.from_threads.run(session.submit, command))
            except Exception as error:
                self.outcomes.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)

    def join(self) -> None:
        """All have come back."""
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A new one, whose threads have ended afterwards."""
    scene = Scene()
    yield scene
    scene.join()


@pytest.mark.parametrize("deadline", [math.inf, 1e18])
def test_without_a_deadline_it_waits(scene: Scene, deadline: float) -> None:
    """For as long as it takes: what would be too long for the clock of threads is no error."""
    session, get = Session(), Get(b"k", deadline)
    scene.start(session, get)
    scene.reactor.run()
    ((command, done),) = session.submitted
    assert command is get
    assert scene.outcomes == []
    get.complete(None)
    done(get)
    scene.join()
    assert scene.outcomes == [None]


def test_what_is_stuck_is_not_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second after the deadline the thread gives up; what comes then is nobody's."""
    monkeypatch.setattr(threads_module, "LAST_RESORT", 0.05)
    session = Session()
    scene.start(session, Get(b"k", time.monotonic() + 0.05))
    scene.reactor.run()
    scene.join()
    (error,) = scene.outcomes
    assert isinstance(error, DeadlineExceeded)
    assert "did not answer in the request's time" in str(error)
    ((command, done),) = session.submitted
    done(command)
    assert len(scene.outcomes) == 1


def test_the_last_resort_is_no_deadline(scene: Scene) -> None:
    """At the deadline whoever carries it out gives up by itself, and is heard: it knows better why."""
    session = Session()
    # It is over already; but nobody is stuck yet.
    scene.start(session, Get(b"k", time.monotonic()))
    scene.reactor.run()
    ((command, done),) = session.submitted
    command.error = DeadlineExceeded("RocksDB is slow")
    done(command)
    scene.join()
    assert str(scene.outcomes[0]) == "RocksDB is slow"


def test_a_refusal_is_raised(scene: Scene) -> None:
    """At once, and without a frame of the reactor's."""
    scene.start(Session(InvalidKey("key: no")), Get(b""))
    scene.reactor.run()
    scene.join()
    (error,) = scene.outcomes
    assert isinstance(error, InvalidKey)


def test_a_failure_is_raised_and_not_kept(scene: Scene) -> None:
    """The command holds it no more: it would close a cycle with the frame that raised it."""
    session, get = Session(), Get(b"k")
    scene.start(session, get)
    scene.reactor.run()
    get.error = StorageError("read broke")
    session.submitted[0][1](get)
    scene.join()
    assert isinstance(scene.outcomes[0], StorageError)
    assert get.error is None


def test_commands_go_over_together(scene: Scene) -> None:
    """Those that come before the reactor has its turn are one call of it, in their order, each for itself."""
    good, bad = Session(), Session(InvalidKey("key: no"))
    for session in (good, bad, good):
        before = len(scene.from_threads._waiting)
        scene.start(session, Get(b"%d" % before))
        until = time.monotonic() + PATIENCE
        while len(scene.from_threads._waiting) == before:
            assert time.monotonic() < until
            time.sleep(0.001)
    assert len(scene.reactor.calls) == 1
    scene.reactor.run()
    assert [command.keys for command, _ in good.submitted] == [(b"0",), (b"2",)]
    for command, done in good.submitted:
        command.complete(None)
        done(command)
    scene.join()
    assert sorted(type(outcome).__name__ for outcome in scene.outcomes) == ["InvalidKey", "NoneType", "NoneType"]
    # And the next one is another call.
    scene.start(bad, Get(b"next"))
    scene.reactor.run()
