"""The HTTP interface on a real port, with real threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.python.threadpool import ThreadPool

from kvtwisted.config.manager import ConfigManager

from .live import LiveSite


@pytest_twisted.async_yield_fixture
async def live(tmp_path: Path) -> Any:
    """A site that listens on a free port of 127.0.0.1."""
    pool = ThreadPool(minthreads=0, maxthreads=4, name="test")
    pool.start()
    configuration = ConfigManager.load(None, {}, {}, str(tmp_path / "runtime.json"))
    site = LiveSite(reactor, pool, configuration)
    yield site
    await site.stop()
    pool.stop()
