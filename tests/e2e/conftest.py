"""Servers for the tests; a failed test shows what its servers wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import Launcher, Server


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    """Starts servers of one test."""
    launcher = Launcher(tmp_path)
    yield launcher
    launcher.end()


@pytest.fixture(scope="module")
def launch_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Starts servers that the tests of a module share."""
    launcher = Launcher(tmp_path_factory.mktemp("shared"))
    yield launcher
    launcher.end()


@pytest.fixture(scope="module")
def server(launch_shared: Launcher) -> Server:
    """The server that the tests of a module share, on its defaults."""
    return launch_shared()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the output of a failed test's servers to its report."""
    report = yield
    if report.failed:
        for launcher in getattr(item, "funcargs", {}).values():
            if isinstance(launcher, Launcher):
                for server in launcher.servers:
                    report.sections.append((f"output of pid {server.pid} in {server.folder}", server.output))
    return report
