"""Fixtures of the configuration tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from .sites import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A folder with an empty configuration file."""
    return Site(tmp_path)
