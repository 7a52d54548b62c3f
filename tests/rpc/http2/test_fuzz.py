"""Whatever a peer sends, in whatever pieces and at whatever time: nothing breaks, hangs or stays behind.

Some examples, the same each time, and more of them in the long suite. For more still, by hand and at random, so many
minutes for each property (the others are in `test_fuzz_calls` and `test_fuzz_units`):

    KVTWISTED_FUZZ_MINUTES=20 pytest -o faulthandler_timeout=0 tests/rpc/http2/test_fuzz*.py
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.properties import sampled

from .frames_strategy import good_settings, steps
from .simulation import simulation
from .steps import Step, act


@sampled(
    80,
    500,
    given(
        steps=steps,
        greeting=good_settings,
        eager=st.booleans(),
        capacity=st.sampled_from((0, 1_000, 65_536)),
        budget=st.sampled_from((None, None, 0, 80_000, 200_000)),
        slow=st.booleans(),
    ),
)
def test_nothing_breaks(
    steps: list[Step],
    greeting: tuple[tuple[int, int], ...],
    eager: bool,
    capacity: int,
    budget: int | None,
    slow: bool,
) -> None:
    """No exception, no hang, nothing but proper HTTP/2 within the client's windows, and nothing left at the end."""
    with simulation(in_flight=8, budget=budget, slow=slow) as sim:
        for key, size in (("a", 5), ("b", 9_000), ("ba", 16_370), ("ü", 70_000)):
            sim.store.set(key.encode(), b"v" * size)
        sim.greeting, sim.manner = greeting, {"eager": eager, "capacity": capacity}
        for step in steps:
            act(sim, step)
            sim.check()
