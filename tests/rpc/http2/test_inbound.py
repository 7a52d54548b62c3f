"""Messages as they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.core.counting import ByteAccount
from kvtwisted.rpc.errors import CallError, Code
from kvtwisted.rpc.http2.inbound import Budget, Incoming, Share
from kvtwisted.rpc.http2.responses import MESSAGE_PREFIX


def test_a_message_over_the_limit_is_refused_before_it_comes() -> None:
    """By the length in front of it; one of just the limit is waited for."""
    for size in (100, 101):
        incoming = Incoming(Budget(1 << 20), Share(ByteAccount(1 << 20)), 100, lambda credit: None, lambda error: None)
        if size == 100:
            assert incoming.feed(MESSAGE_PREFIX.pack(0, size), MESSAGE_PREFIX.size) == []
            assert incoming.feed(b"m" * size, size) == [(b"m" * size, False)]
        else:
            with pytest.raises(CallError, match="101 bytes, over the limit of 100") as refused:
                incoming.feed(MESSAGE_PREFIX.pack(0, size), MESSAGE_PREFIX.size)
            assert refused.value.code == Code.RESOURCE_EXHAUSTED


@given(
    st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=12),
    st.lists(st.integers(0, 60), max_size=30),
    st.booleans(),
)
def test_where_messages_are_cut_means_nothing(
    messages: list[tuple[bytes, bool]], cuts: list[int], is_unfinished: bool
) -> None:
    """The same messages come of any frames, empty ones too; of what has come whole nothing is counted any longer."""
    budget = Budget(1 << 20)
    incoming = Incoming(budget, budget.share(), 100, lambda credit: None, lambda error: None)
    data = b"".join([MESSAGE_PREFIX.pack(compressed, len(message)) + message for message, compressed in messages])
    rest = MESSAGE_PREFIX.pack(0, 9)[:4] if is_unfinished else b""
    left, came = data + rest, []
    for size in cuts:
        frame, left = left[:size], left[size:]
        came += incoming.feed(frame, len(frame))
    came += incoming.feed(left, len(left))
    assert came == messages
    assert budget.used == len(rest)
    assert incoming.unfinished == is_unfinished


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_bad_message_behind_one_that_was_cut(cut: int) -> None:
    """It is refused as if it had come by itself, and what was whole before it is not lost to the count."""
    budget = Budget(1 << 20)
    incoming = Incoming(budget, budget.share(), 100, lambda credit: None, lambda error: None)
    data = MESSAGE_PREFIX.pack(0, 3) + b"abc" + MESSAGE_PREFIX.pack(2, 3) + b"abc"
    assert incoming.feed(data[:cut], cut) == []
    with pytest.raises(CallError, match="compressed flag must be 0 or 1, not 2"):
        incoming.feed(data[cut:], len(data) - cut)
    incoming.close()
    assert budget.used == 0
