"""A native server for those who attack it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvtwisted.rpc.http2 import server
from kvtwisted.rpc.http2.server import NativeGrpcServer

from ..support import World
from .bystander import Attacked, Skew


@pytest.fixture
def attacked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Attacked]:
    """A running server with a good client, whose time the test moves and that looks at deadlines often."""
    clock = Skew()
    monkeypatch.setattr(NativeGrpcServer, "seconds", staticmethod(clock))
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.01)
    # More than a flood has calls. At every look, which comes once a second elsewhere, the server forgets those that
    # were reset and still run; with a late backend they would take all the room by then.
    world = World(transport="native", max_in_flight=4096)
    world.start()
    yield Attacked(world, clock)
    world.stop()
