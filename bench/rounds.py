"""Probes, and the order in which they take turns.

A machine that others share is fast in one minute and slow in the next. So what is compared runs close together: each
round runs every case once, in all its forms one after the other, and every other round backwards (A B B A A B ...), so
that neither form is always the later one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Callable, NamedTuple, TypeVar

T = TypeVar("T")


class Sample(NamedTuple):
    """What one turn measured: the figure; where there are any, median and 99th percentile of latencies in microseconds,
    how many cores the load program used, microseconds of the server's processor time for each answer, and what else is
    worth a line (`bytes read`: ...).
    """

    figure: float
    p50: float | None = None
    p99: float | None = None
    client: float | None = None
    server: float | None = None
    aside: dict[str, float] | None = None


class Probe(NamedTuple):
    """One case in one form."""

    group: str
    case: str
    #: Which of the forms of the case: a transport, a lane.
    form: str
    #: `now`, or `base` in a comparison of revisions.
    tree: str
    #: Run once before any turn counts.
    warm_up: Callable[[], object]
    run: Callable[[], Sample]
    #: What the figure counts: `Gets/s`.
    unit: str
    more_is_better: bool = True
    #: The form that ratios are taken to, if it is another one.
    against: str | None = None


class Result(NamedTuple):
    """A probe and its samples, one for each round."""

    probe: Probe
    samples: list[Sample]

    @property
    def figures(self) -> list[float]:
        """The figure of each round."""
        return [sample.figure for sample in self.samples]


def turns(things: Sequence[T], number: int) -> list[T]:
    """The order in round `number`, from 0: as they are, and backwards in every other round."""
    return list(things) if number % 2 == 0 else list(reversed(things))


def run_rounds(probes: Sequence[Probe], rounds: int) -> list[Result]:
    """Warm all probes up, then give each one turn in every round. Says on standard error where it is."""
    cases: dict[str, list[Result]] = {}
    for probe in probes:
        cases.setdefault(probe.case, []).append(Result(probe, []))
        probe.warm_up()
    for number in range(rounds):
        say(f"{probes[0].group}: round {number + 1} of {rounds}")
        for results in cases.values():
            for result in turns(results, number):
                result.samples.append(result.probe.run())
    return [result for results in cases.values() for result in results]


def say(line: str) -> None:
    """One line for whoever waits; results alone go to standard output."""
    print(line, file=sys.stderr, flush=True)
