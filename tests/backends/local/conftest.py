"""Fixtures of the core tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.core.options import EngineOptions

from ...support.engines import FaultyEngine
from ...support.storage import Storage


@pytest.fixture
def storage() -> Storage:
    """A store in memory."""
    return Storage()


@pytest.fixture(params=["memory", "rocksdict"])
def each_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """A store in memory, and one on a disk."""
    engine = open_engine(request.param, str(tmp_path / "data"), EngineOptions())
    yield Storage(FaultyEngine(engine))
    engine.close()
