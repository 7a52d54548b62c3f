"""Fixtures: a launcher of servers, and disks that go away whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import launch, pytest_runtest_makereport

from .causes import mounted

__all__ = ["launch", "pytest_runtest_makereport"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of the server named "server", on a disk of 48 MiB."""
    folder = tmp_path / "server"
    folder.mkdir()
    with mounted(folder, "-t", "tmpfs", "-o", "size=48m", "kvtwisted"):
        yield folder
