"""The lanes of the HTTP interface, one or both for each test; and a site on a real port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.python.threadpool import ThreadPool

from kvtwisted.config.manager import ConfigManager

from ..support.backends import backend, over_both
from .live import LiveSite
from .support import World

__all__ = ["backend"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The fast lane, and Klein: at every change where a module says LANES_DIFFER, else in the long run.

    That both hand over the same is shown by those that say COMPARES_LANES. Properties run once: pytest-twisted wraps
    those anew each time, and cannot do it twice.
    """
    over_both(metafunc)
    if "lane" in metafunc.fixturenames:
        once = hasattr(metafunc.function, "hypothesis") or hasattr(metafunc.module, "COMPARES_LANES")
        marks = () if hasattr(metafunc.module, "LANES_DIFFER") else pytest.mark.long
        metafunc.parametrize("lane", ["fast", *([] if once else [pytest.param("klein", marks=marks)])], indirect=True)


@pytest.fixture(autouse=True)
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who answers plain requests: the fast lane or Klein."""
    name: str = request.param
    monkeypatch.setattr(World, "fast_lane", name == "fast")
    return name


@pytest_twisted.async_yield_fixture
async def live(tmp_path: Path, lane: str) -> Any:
    """A site that listens on a free port of 127.0.0.1."""
    pool = ThreadPool(minthreads=0, maxthreads=4, name="test")
    pool.start()
    configuration = ConfigManager.load(None, {}, {}, str(tmp_path / "runtime.json"))
    site = LiveSite(reactor, pool, configuration, fast_lane=lane == "fast")
    yield site
    await site.stop()
    pool.stop()
