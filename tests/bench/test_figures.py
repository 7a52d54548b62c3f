"""Medians, ratios, verdicts, and the order of turns."""

from __future__ import annotations

from itertools import combinations

import pytest

from bench.figures import Summary, chance, ratios, summary, verdict
from bench.rounds import Probe, Sample, run_rounds, turns


def test_summary() -> None:
    """The median, the lowest and the highest."""
    assert summary([3, 1, 2]) == Summary(2, 1, 3)
    assert summary([4, 1, 2, 3]).median == 2.5
    assert summary([2, 3, 1]).spread == 3
    with pytest.raises(ValueError, match="no samples"):
        summary([])


def test_ratios_are_taken_round_by_round() -> None:
    """A round in which the whole machine was at half speed changes no ratio."""
    assert ratios([20, 10, 20], [10, 5, 10]) == Summary(2, 2, 2)
    with pytest.raises(ValueError, match="2 rounds against 1"):
        ratios([1, 2], [1])


def by_counting(first: list[float], second: list[float]) -> float:
    """The chance of the rank-sum test, by trying every way of dealing the ranks."""
    ranks = range(len(first) + len(second))
    wins = []
    for mine in combinations(ranks, len(first)):
        theirs = [rank for rank in ranks if rank not in mine]
        wins.append(sum(a > b for a in mine for b in theirs))
    here = sum(a > b for a in first for b in second)
    extreme = min(here, len(first) * len(second) - here)
    return min(1.0, 2 * sum(one <= extreme for one in wins) / len(wins))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]),
        ([1, 2, 3, 4, 6], [5, 7, 8, 9, 10]),
        ([1, 3, 5, 7, 9], [2, 4, 6, 8, 10]),
        ([9, 10, 11], [1, 2, 3, 4]),
    ],
)
def test_chance(first: list[float], second: list[float]) -> None:
    """The fast reckoning agrees with trying everything, and does not depend on who comes first."""
    assert chance(first, second) == pytest.approx(by_counting(first, second))
    assert chance(second, first) == pytest.approx(chance(first, second))


def test_known_chances() -> None:
    """5 against 5 without overlap is 2 of 252; equal samples are no difference at all."""
    assert chance([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert chance([1] * 5, [1] * 5) == 1


def test_verdicts() -> None:
    """Only what is clear is called so, by the direction that is better."""
    slow, fast, mixed = [1.0, 2, 3, 4, 5], [6.0, 7, 8, 9, 10], [0.5, 9, 2.5, 3.5, 11]
    assert verdict(fast, slow, more_is_better=True) == "better"
    assert verdict(fast, slow, more_is_better=False) == "worse"
    assert verdict(slow, fast, more_is_better=True) == "worse"
    assert verdict(mixed, slow, more_is_better=True) == "within the noise"
    assert verdict([5.5, *slow[1:]], [5.2, *fast[1:]], more_is_better=True) == "within the noise"
    assert verdict(fast[:4], slow[:4], more_is_better=True) == "too few rounds"


def test_turns() -> None:
    """A B B A A B."""
    assert [thing for number in range(3) for thing in turns("AB", number)] == list("ABBAAB")


def test_rounds() -> None:
    """Every probe warms up once before any turn; then cases stand in order, and their forms change turns."""
    happened: list[str] = []

    def make(case: str, form: str) -> Probe:
        def run() -> Sample:
            happened.append(case + form)
            return Sample(float(len(happened)))

        return Probe("group", case, form, "now", lambda: happened.append(f"warm {case}{form}"), run, "calls/s")

    probes = [make(case, form) for case in "xy" for form in "AB"]
    results = run_rounds(probes, 2)
    assert happened[:4] == ["warm xA", "warm xB", "warm yA", "warm yB"]
    assert happened[4:] == ["xA", "xB", "yA", "yB", "xB", "xA", "yB", "yA"]
    assert [result.probe for result in results] == probes
    assert results[0].figures == [5, 10]
