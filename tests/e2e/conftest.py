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


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that those tests share which leave it as they found it but for keys under their own names."""
    launcher = Launcher(tmp_path_factory.mktemp("shared"))
    yield launcher()
    launcher.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the output of a failed test's servers to its report."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            servers = value.servers if isinstance(value, Launcher) else [value] if isinstance(value, Server) else []
            for server in servers:
                report.sections.append((f"output of pid {server.pid} in {server.folder}", server.output))
    return report
