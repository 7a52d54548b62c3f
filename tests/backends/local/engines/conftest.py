"""Fixtures of the engine tests: one engine of every kind that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local.engines.engine import Engine
from kvtwisted.core.errors import Unavailable

from .support import INSTALLED, PERSISTENT, opened


@pytest.fixture(params=INSTALLED)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty engine, closed after the test unless the test did."""
    engine = opened(request.param, tmp_path / "data")
    yield engine
    with suppress(Unavailable):
        engine.close()


@pytest.fixture(params=PERSISTENT)
def persistent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """The same of a kind that keeps what it is given, with all that those can do."""
    engine = opened(request.param, tmp_path / "data")
    yield engine
    with suppress(Unavailable):
        engine.close()
