"""The contract of the port runs over every backend."""

from __future__ import annotations

import pytest

from tests.support.backends import backend, over_both

__all__ = ["backend"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What says that it is for both; the rest is about one of them."""
    if hasattr(metafunc.module, "BACKENDS_DIFFER"):
        over_both(metafunc)
