"""Scans of one principal have a part of the threads; others find one free."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from kvtwisted.backends.local.slots import Slots


class Jobs:
    """Jobs that a test ends."""

    def __init__(self, most: int = 2) -> None:
        self.slots = Slots(most)
        self.running: list[tuple[str, Deferred[str]]] = []
        self.results: list[Any] = []

    def ask(self, owner: str) -> Deferred[Any]:
        """One more of `owner`'s."""

        def start() -> Deferred[str]:
            job: Deferred[str] = Deferred()
            self.running.append((owner, job))
            return job

        return self.slots.run(owner, start).addBoth(self.results.append)

    def end(self, result: Any = "done") -> None:
        """The first one that runs ends."""
        self.running.pop(0)[1].callback(result)

    @property
    def owners(self) -> list[str]:
        """Whose run."""
        return [owner for owner, _ in self.running]


def test_one_owner_does_not_take_all() -> None:
    """Two of its run, the rest waits, and another owner's begins at once."""
    jobs = Jobs()
    for _ in range(4):
        jobs.ask("greedy")
    jobs.ask("other")
    assert jobs.owners == ["greedy", "greedy", "other"]
    assert jobs.slots.waiting == 2
    jobs.end("first")
    assert (jobs.owners, jobs.results, jobs.slots.waiting) == (["greedy", "other", "greedy"], ["first"], 1)
    for _ in range(4):
        jobs.end()
    assert (jobs.owners, len(jobs.results)) == ([], 5)
    assert (jobs.slots._running, jobs.slots._waiting) == ({}, {})


def test_a_failure_is_passed_on_and_ends_the_turn() -> None:
    """The next one begins."""
    jobs = Jobs(1)
    jobs.ask("a")
    jobs.ask("a")
    jobs.end(Failure(ZeroDivisionError()))
    assert jobs.owners == ["a"]
    assert jobs.results[0].type is ZeroDivisionError


def test_who_goes_away_keeps_the_turn_until_the_thread_has_ended() -> None:
    """Also while it waits: what has entered the admission leaves it in the thread."""
    jobs = Jobs(1)
    running, waiting = jobs.ask("a"), jobs.ask("a")
    jobs.ask("a")
    running.cancel()
    waiting.cancel()
    assert [result.type for result in jobs.results] == [CancelledError] * 2
    assert (jobs.owners, jobs.slots.waiting) == (["a"], 2)
    for _ in range(3):
        jobs.end()
    assert (jobs.owners, len(jobs.results), jobs.slots._running) == ([], 3, {})
