"""What connections held is free once they are cut off, without Python's collector."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from kvtwisted.http.deadlines import ByteLimits
from tests.support.collector import without_collector

from .live import LiveSite
from .support import request_bytes

KEYS = [f"k{number}" for number in range(8)]
#: Bytes of each value. All together the buffers of the kernel have no room for.
LARGE = 1_000_000


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Within the test cycles are not collected."""
    with without_collector():
        yield


async def until(condition: Any) -> None:
    """Let the reactor work until it holds."""
    for _ in range(3000):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it never came to that")


REQUESTS = {
    "get": b"".join(request_bytes("GET", f"/api/v1/get/{key}") for key in KEYS * 2),
    "scan": request_bytes("GET", "/api/v1/scan"),
    "mget": request_bytes("POST", "/api/v1/mget", json.dumps({"keys": KEYS}).encode()),
}


@pytest.mark.parametrize(
    ("request_", "slow"),
    [(REQUESTS["get"], False), *((REQUESTS[name], slow) for name in ("scan", "mget") for slow in (False, True))],
    ids=["get-memory", "scan-memory", "scan-pool", "mget-memory", "mget-pool"],
)
@pytest_twisted.ensureDeferred
async def test_unsent_answers_of_who_is_cut_off(
    live: LiveSite, request_: bytes, slow: bool, no_collector: None
) -> None:
    """Of the connections that went for want of room nothing is left: not their answers, nor what those hung on."""
    live.engine.slow = slow
    for key in KEYS:
        live.storage.store.set(key.encode(), b"x" * LARGE)
    deadlines = live.site.deadlines
    clients, lost = [], []
    for _ in range(3):
        clients.append(await live.connect())
        clients[-1].transport.pauseProducing()
    for channel in tuple(live.site.channels):
        lost += [weakref.ref(channel), weakref.ref(channel.transport)]
    del channel
    for client in clients:
        client.send(request_)
    await until(lambda: [one._waitingForTransport for one in live.site.channels] == [True] * 3)
    deadlines.retune(ByteLimits(unsent=1))
    # Where the kernel took all just then, the next answer is one too many.
    await until(lambda: deadlines.cut_off["unsent"] == 3 and not live.site.channels)
    # A pool's thread may have just given its answer.
    await until(lambda: [kept for reference in lost if (kept := reference()) is not None] == [])
    for client in clients:
        client.transport.abortConnection()
        await client.closed()
