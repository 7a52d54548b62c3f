"""How Hypothesis runs here: the same examples every time, and no deadline on a noisy machine."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

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
