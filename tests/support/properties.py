"""How Hypothesis runs here: the same examples every time, and no deadline on a noisy machine."""

from __future__ import annotations

import os
import time
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, Phase, settings

#: For properties of pure functions.
repeatable = settings(derandomize=True, deadline=None, database=None, max_examples=200)

#: For state machines, whose examples are long.
repeatable_machine = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

#: Minutes for which each property of a fuzzer runs, with examples that are new each time, when run by hand.
_MINUTES = float(os.environ.get("KVTWISTED_FUZZ_MINUTES", "0"))

_BY_HAND = (Phase.generate, Phase.shrink)


def fuzzing(max_examples: int) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """For properties that are worth more examples than a suite has time for: see KVTWISTED_FUZZ_MINUTES."""

    def decorate(prove: Callable[..., None]) -> Callable[[], None]:
        checks = list(HealthCheck)
        if not _MINUTES:
            return settings(repeatable, max_examples=max_examples, suppress_health_check=checks)(prove)
        own = settings(repeatable, derandomize=False, max_examples=500, suppress_health_check=checks, phases=_BY_HAND)
        some = own(prove)

        def many() -> None:
            until, rounds = time.monotonic() + 60 * _MINUTES, 0
            while time.monotonic() < until:
                some()
                rounds += 1
            print(f"{prove.__name__}: {rounds * 500} examples")

        many.__name__, many.__doc__ = prove.__name__, prove.__doc__
        return many

    return decorate


def sampled(few: int, many: int, each: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The same with `few` examples in the suite that everybody waits for, and with `many` in the long one.

    `each` is what `given` makes of strategies.
    """

    def decorate(prove: Callable[..., None]) -> Callable[..., None]:
        if _MINUTES:
            return fuzzing(many)(each(prove))
        proofs = {number: fuzzing(number)(each(prove)) for number in (few, many)}

        @pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.long)])
        def run(examples: int) -> None:
            proofs[examples]()

        run.__name__, run.__doc__ = prove.__name__, prove.__doc__
        return run

    return decorate
