"""Messages as they come in."""

from __future__ import annotations

import pytest

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
