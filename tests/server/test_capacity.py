"""How much the server takes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.logger import capturedLogs

from kvtwisted.config.settings import LimitSettings, Settings
from kvtwisted.core.errors import Overloaded
from kvtwisted.core.options import EngineOptions
from kvtwisted.server import capacity


@pytest.fixture
def switch_interval() -> Iterator[None]:
    """What the test sets is set back."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def test_admission_has_the_limits_of_the_settings() -> None:
    """Requests, the share of one principal, and bytes."""
    limits = replace(LimitSettings(), max_in_flight=4, max_in_flight_per_principal=2, max_bytes_in_flight=100)
    whole = capacity.make_admission(limits)
    share = whole.share()
    share.enter(40)
    with pytest.raises(Overloaded, match="each principal may have 50"):
        share.enter(11)
    share.enter(10)
    with pytest.raises(Overloaded, match="max_in_flight_per_principal is 2"):
        share.enter()
    with pytest.raises(Overloaded, match="max_bytes_in_flight is 100"):
        whole.enter(51)
    whole.enter(50)
    whole.enter()
    with pytest.raises(Overloaded, match="max_in_flight is 4"):
        whole.enter()


@pytest.mark.parametrize(("transport", "shortened"), [("native", True), ("threaded", False)])
@pytest.mark.usefixtures("switch_interval")
def test_turns_are_short_where_the_reactor_has_to_answer(transport: str, shortened: bool) -> None:
    """With grpcio's many threads they are as Python has them."""
    sys.setswitchinterval(0.005)
    capacity.shorten_turns(transport)
    assert sys.getswitchinterval() == pytest.approx(capacity.TURN_SECONDS if shortened else 0.005)


@pytest.mark.parametrize(("descriptors", "files"), [(100_000, 1024), (1024, 256)])
def test_few_descriptors_lower_the_number_of_table_files(
    descriptors: int, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a quarter of them, and the log says so."""
    monkeypatch.setattr(capacity, "descriptors", lambda: descriptors)
    with capturedLogs() as events:
        options = capacity.fitted_options(str(tmp_path), replace(EngineOptions(), max_open_files=1024))
    assert options.max_open_files == files
    told = [event for event in events if "max_open_files lowered" in str(event["log_format"])]
    assert [event["files"] for event in told] == ([] if files == 1024 else [256])


@pytest.mark.parametrize(("configured", "warned"), [(0, False), (100, False), (10_000, True)])
def test_more_connections_than_descriptors(configured: int, warned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a warning; 0 is as many as there is room for."""
    monkeypatch.setattr(capacity, "descriptors", lambda: 1024)
    settings = replace(Settings(), limits=replace(LimitSettings(), max_connections=configured))
    refused: list[tuple[str, str]] = []
    with capturedLogs() as events:
        connections = capacity.make_connections(
            lambda: settings, lambda *refusal: refused.append(refusal), is_open=True
        )
    assert [event["configured"] for event in events if "configured" in event] == ([configured] if warned else [])
    entered = 0
    while connections.enter("http", f"10.0.{entered // 250}.{entered % 250}") is None:
        entered += 1
    assert entered == (configured or 1024 - 256 - 128)
    assert refused == [("http", "all")]
