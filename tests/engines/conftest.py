"""Fixtures of the engine tests: one engine of every kind that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kvtwisted.core.engine import Engine
from kvtwisted.core.errors import Unavailable

from .support import INSTALLED, opened


@pytest.fixture(params=INSTALLED)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty engine, closed after the test unless the test did."""
    engine = opened(request.param, tmp_path / "data")
    yield engine
    with suppress(Unavailable):
        engine.close()
