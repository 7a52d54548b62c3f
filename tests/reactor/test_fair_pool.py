"""Turns of a pool go round by owner; long jobs have a part of it. And the same through the door, by principal."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Callable

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from kvtwisted.commands.command import Command
from kvtwisted.commands.get import Get
from kvtwisted.commands.mget import MGet
from kvtwisted.commands.scan import Scan
from kvtwisted.reactor.fair_pool import LONG_PART, FairPool
from kvtwisted.sessions.session import Session
from tests.sessions.support import EVERYTHING
from tests.support.doors import Doorway
from tests.support.pools import ImmediateReactor, ManualPool
from tests.support.storage import PLENTY


class Jobs:
    """Jobs of a pool without threads: a test says when one is run."""

    def __init__(self, threads: int = 8) -> None:
        self.pool = ManualPool()
        self.pool.max = threads  # type: ignore[attr-defined]
        reactor: Any = ImmediateReactor()
        manual: Any = self.pool
        self.fair = FairPool(reactor, manual)
        self.ran: list[str] = []
        self.results: list[Any] = []

    def ask(self, owner: str, name: str = "", *, is_long: bool = False) -> Deferred[Any]:
        """One more of `owner`'s; its name is its result."""

        def job() -> str:
            self.ran.append(name or owner)
            if name == "fails":
                raise ZeroDivisionError
            return name or owner

        return self.fair.run(owner, job, is_long=is_long).addBoth(self.results.append)

    def run(self, jobs: int) -> list[str]:
        """Run that many; gives their names."""
        self.ran = []
        for _ in range(jobs):
            self.pool.run_one()
        return self.ran


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    """Eight threads, of which one owner's long jobs have two. In the end nothing is remembered of anybody."""
    jobs = Jobs()
    yield jobs
    assert (jobs.pool.waiting, jobs.fair.waiting, jobs.fair._owners, len(jobs.fair._round)) == (0, 0, {}, 0)


def test_turns_go_round(jobs: Jobs) -> None:
    """A thousand jobs of one owner keep one of another waiting for one; an owner's own keep their order."""
    for number in range(1000):
        jobs.ask("greedy", f"greedy {number}")
    for number in range(3):
        jobs.ask("a", f"a {number}")
    jobs.ask("b")
    assert jobs.fair.waiting == 1004
    expected = ["greedy 0", "a 0", "b", "greedy 1", "a 1", "greedy 2", "a 2", "greedy 3", "greedy 4"]
    assert jobs.run(9) == expected
    assert jobs.results == expected
    jobs.ask("b", "late")
    assert jobs.run(2) == ["greedy 5", "late"]
    jobs.run(994)


def test_long_jobs_have_a_part(jobs: Jobs) -> None:
    """What comes on top of it waits outside, keeps neither its owner's other jobs waiting nor anybody else's."""
    for number in range(4):
        jobs.ask("scans", f"scan {number}", is_long=True)
    jobs.ask("other", is_long=True)
    jobs.ask("scans", "quick")
    assert (jobs.pool.waiting, jobs.fair.waiting) == (8 // LONG_PART + 2, 6)
    # Those that end let the next ones in, behind what waits already.
    assert jobs.run(3) == ["scan 0", "other", "scan 1"]
    assert jobs.run(3) == ["quick", "scan 2", "scan 3"]


def test_a_failure_is_the_job_s(jobs: Jobs) -> None:
    """Also of a long one, after which the next begins."""
    for _ in range(3):
        jobs.ask("a", "fails", is_long=True)
    jobs.ask("b")
    jobs.run(4)
    kinds = [result.type if isinstance(result, Failure) else result for result in jobs.results]
    assert kinds == [ZeroDivisionError, "b", ZeroDivisionError, ZeroDivisionError]


def test_who_goes_away_keeps_the_turn(jobs: Jobs) -> None:
    """What has entered the admission leaves it in the thread, waited for or not."""
    jobs.fair._most_long = 1
    running, held = jobs.ask("a", is_long=True), jobs.ask("a", is_long=True)
    jobs.ask("a", "last", is_long=True)
    running.cancel()
    held.cancel()
    assert [result.type for result in jobs.results] == [CancelledError] * 2
    assert jobs.run(3) == ["a", "a", "last"]
    assert jobs.results[2:] == ["last"]


MANY: dict[str, Callable[[], Command]] = {
    "scans": lambda: Scan(b"", budget=PLENTY),
    "MGets": lambda: MGet([b"k"], budget=PLENTY),
    "Gets": lambda: Get(b"k"),
}


@pytest.mark.parametrize("kind", [*MANY, "scans, MGets, Gets"])
def test_a_principal_waits_for_one_round(kind: str) -> None:
    """Whatever another has queued, each of its own calls comes after one job of that other at most."""
    doorway = Doorway(slow=True)
    sessions = {name: _share_of(doorway) for name in ("greedy", "modest")}
    done: list[str] = []

    def submit(name: str, command: Command) -> None:
        sessions[name].submit(command, lambda _: done.append(name))

    make = [make for name, make in MANY.items() if name in kind]
    for number in range(600):
        submit("greedy", make[number % len(make)]())
    doorway.reactor.turn()
    queued = doorway.backend.waiting
    assert queued >= 600 // 16
    for command in (Get(b"k"), MGet([b"k"], budget=PLENTY), Scan(b"", budget=PLENTY)):
        submit("modest", command)
        for _ in range(2):  # the first may have been had by those that waited for it
            doorway.reactor.turn()
        before = doorway.backend.waiting
        while "modest" not in done:
            doorway.pool.run_one()
        assert before - doorway.backend.waiting <= 2
        done.remove("modest")
    doorway.run()
    assert len(done) == 600


def _share_of(doorway: Doorway) -> Session:
    session = doorway.make_session(EVERYTHING)
    session.admission = doorway.admission.share()
    return session


def test_jobs_of_real_work_are_the_owner_s() -> None:
    """A call that is bound gives its result."""
    jobs = Jobs()
    got: list[object] = []
    jobs.fair.run("a", partial(divmod, 7, 2)).addCallback(got.append)
    jobs.pool.run_all()
    assert got == [(3, 1)]
