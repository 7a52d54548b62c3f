"""Running servers, one for each transport. What uses `world` or `make_world` is the contract of every transport."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import pytest

from tests.support.backends import LATE, backend, over_both

from .support import Client, World

__all__ = ["backend"]

BY_POOL = "native, by the pool"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Both backends."""
    over_both(metafunc)


def pytest_itemcollected(item: pytest.Item) -> None:
    """By the pool at every change where it makes a difference (POOL_DIFFERS), else in the long run."""
    assert isinstance(item, pytest.Function)
    if _given(item, "transport") == BY_POOL and not hasattr(item.module, "POOL_DIFFERS"):
        item.add_marker(pytest.mark.long)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Not by the pool over the late backend, which never answers from memory."""
    twice = [item for item in items if _given(item, "backend") == LATE and _given(item, "transport") == BY_POOL]
    config.hook.pytest_deselected(items=twice)
    left_out = set(twice)
    items[:] = [item for item in items if item not in left_out]


def _given(item: pytest.Item, fixture: str) -> object:
    return item.callspec.params.get(fixture) if hasattr(item, "callspec") else None


@pytest.fixture(params=["threaded", "native", BY_POOL])
def transport(request: pytest.FixtureRequest) -> str:
    """The transport that the server runs on; the native one also with storage that may always block."""
    name: str = request.param
    return name


@pytest.fixture
def make_world(transport: str) -> Iterator[Callable[..., World]]:
    """Starts servers with options of `World`, and stops them."""
    worlds: list[World] = []

    def make(**options: Any) -> World:
        world = World(transport=transport, **options)
        world.start()
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.stop()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A server with a few threads and the smallest request limit."""
    return make_world()


@pytest.fixture
def client(world: World) -> Client:
    """A client of `world`."""
    return world.client
