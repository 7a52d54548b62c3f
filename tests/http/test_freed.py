"""What connections held is free once they are cut off, without Python's collector."""

from __future__ import annotations

import json
import tracemalloc
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
    for _ in range(1000):
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
    await until(lambda: [one.is_blocked for one in live.site.channels] == [True] * 3)
    deadlines.retune(ByteLimits(unsent=1))
    # Where the kernel took all just then, the next answer is one too many.
    await until(lambda: deadlines.cut_off["unsent"] == 3 and not live.site.channels)
    # A pool's thread may have just given its answer.
    await until(lambda: [kept for reference in lost if (kept := reference()) is not None] == [])
    for client in clients:
        client.transport.abortConnection()
        await client.closed()


REFUSED = {
    "json": ("mget", b'{"keys":["' + b"x" * LARGE + b'"]} x'),
    "shape": ("mget", b'[{"":0},"' + b"x" * LARGE + b'"]'),
    "key": ("mget", b'{"keys":["","' + b"x" * LARGE + b'"]}'),
    "utf-8": ("mset", b'{"key_values":{"' + b"\xff" * LARGE + b'":""}}'),
    "escape": ("set", b'{"key":"k","value":"\\ud800' + b"x" * LARGE + b'"}'),
    "value": ("set", b'{"key":"","value":"' + b"x" * LARGE + b'"}'),
    "medium": ("set", b'{"key":"\\u0000","value":1,"x":"' + b"x" * 60_000 + b'"}'),
    "config": ("config", b'{"x":"' + b"x" * 60_000 + b'"}'),
    "path": ("nowhere", b"x" * LARGE),
}


@pytest.mark.parametrize(("route", "body"), REFUSED.values(), ids=REFUSED)
@pytest_twisted.ensureDeferred
async def test_bodies_that_were_refused(live: LiveSite, route: str, body: bytes, no_collector: None) -> None:
    """Nothing of them is kept once they are answered, though their connections are."""
    client = await live.connect()

    async def ask() -> None:
        client.received = b""
        client.send(request_bytes("POST", f"/api/v1/{route}", body, host="localhost"))
        await client.until(b"}")
        assert b" 400 " in client.received or b" 413 " in client.received or b" 404 " in client.received

    await ask()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            await ask()
        # The last one may still be in a thread's hands.
        await until(lambda: tracemalloc.get_traced_memory()[0] - before < 2 * len(body) + 200_000)
    finally:
        tracemalloc.stop()
    client.transport.abortConnection()
    await client.closed()
