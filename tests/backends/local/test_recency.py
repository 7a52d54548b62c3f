"""Which keys were used lately."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.recency import Recency

from ...support.properties import repeatable


def test_remembers_what_was_touched() -> None:
    """Touched keys are in; the second touch knows it."""
    recency = Recency()
    assert b"a" not in recency
    assert not recency.touch(b"a")
    assert b"a" in recency
    assert recency.touch(b"a")


@repeatable
@given(st.sampled_from([1, 2, 4]), st.lists(st.integers(0, 9).map(lambda n: b"%d" % n)))
def test_the_latest_are_never_forgotten(capacity: int, touches: list[bytes]) -> None:
    """The last `capacity` different keys are remembered, whoever shares a place with them."""
    recency = Recency(capacity)
    for key in touches:
        recency.touch(key)
    latest = list(dict.fromkeys(reversed(touches)))
    assert all(key in recency for key in latest[:capacity])


def test_memory_is_bounded() -> None:
    """However many keys are used, two generations are remembered, and few are taken for others."""
    recency = Recency(1024)
    keys = [b"%d" % n for n in range(100_000)]
    for key in keys:
        recency.touch(key)
    remembered = [key for key in keys if key in recency]
    assert set(remembered) >= set(keys[-1024:])
    # Two generations fill a quarter of the places; so many of the others may look used, with room for chance.
    assert len(remembered) < 0.35 * len(keys)
    assert not any(b"never used %d" % n in Recency(1024) for n in range(1000))


def test_few_are_taken_for_others() -> None:
    """While the younger generation is half full, about one strange key in sixteen looks used."""
    recency = Recency(4096)
    for number in range(2048):
        recency.touch(b"%d" % number)
    strangers = sum(b"stranger %d" % number in recency for number in range(4000))
    assert strangers < 0.1 * 4000
