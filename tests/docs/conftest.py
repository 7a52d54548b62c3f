"""One real server on its defaults, for the examples of the pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.harness import Launcher, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A fresh server for the tests of one module."""
    launcher = Launcher(tmp_path_factory.mktemp("docs"))
    try:
        yield launcher()
    finally:
        launcher.end()
