"""A native server, a client that may do anything, and clients that are not to notice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ...support import World, logged
from ..peer import Peer


@pytest.fixture(scope="module", params=["native", "native, by the pool"])
def transport(request: pytest.FixtureRequest) -> str:
    """This one alone."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def world(transport: str) -> Iterator[World]:
    """One server for all tests of a file; the good client that comes with it stays connected."""
    world = World(transport=transport)
    world.start()
    world.fill(["a"], "1")
    world.fill(["large"], "v" * 200_000)
    yield world
    world.stop()


@pytest.fixture(autouse=True)
def unharmed(world: World) -> Iterator[None]:
    """After each test the server answers its good client, and a new one, and has logged nothing."""
    with logged() as events:
        yield
        assert world.client.call("Get", key="a").value == "1"
        with Peer(world.address) as other:
            assert other.call("Set", key="b", value="2").success
    assert [event for event in events if event["log_level"].name in ("error", "critical")] == []


@pytest.fixture
def peer(world: World) -> Iterator[Peer]:
    """A client that has exchanged settings."""
    with Peer(world.address) as peer:
        yield peer
