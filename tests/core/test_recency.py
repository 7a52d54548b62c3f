"""Which keys were used lately."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.core.recency import Recency

from ..support.properties import repeatable


def test_remembers_what_was_touched() -> None:
    """Touched keys are in, others are not."""
    recency = Recency()
    recency.touch(b"a")
    assert b"a" in recency
    assert b"b" not in recency


@repeatable
@given(st.integers(1, 5), st.lists(st.integers(0, 9).map(lambda n: b"%d" % n)))
def test_between_one_and_two_generations(capacity: int, touches: list[bytes]) -> None:
    """The last `capacity` different keys are remembered, and never more than twice as many."""
    recency = Recency(capacity)
    for key in touches:
        recency.touch(key)
    latest = list(dict.fromkeys(reversed(touches)))
    assert all(key in recency for key in latest[:capacity])
    assert sum(key in recency for key in latest) <= 2 * capacity


def test_memory_is_bounded() -> None:
    """However many keys are used, the memory holds two generations at most."""
    recency = Recency(100)
    keys = [b"%d" % n for n in range(10_000)]
    for key in keys:
        recency.touch(key)
    remembered = [key for key in keys if key in recency]
    assert 100 <= len(remembered) <= 200
    assert remembered == keys[-len(remembered) :]
