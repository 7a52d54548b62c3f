"""What the tests of the tasks share."""

from __future__ import annotations

from typing import Any, Callable

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, execute
from twisted.logger import LogEvent, formatEvent

from kvtwisted.observability.metrics import Metrics


class Counted:
    """Metrics with a registry of their own, which can be asked for single figures."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.metrics = Metrics(self._registry)

    def value(self, name: str, **labels: str) -> float | None:
        """The figure of that name and labels; None when there is none."""
        return self._registry.get_sample_value(name, labels)


def at_once(work: Callable[[], Any]) -> Deferred[Any]:
    """`defer` for tasks: runs the work here and now."""
    return execute(work)


def lines(events: list[LogEvent]) -> list[str]:
    """Level and message of each event."""
    return [f"{event['log_level'].name}: {formatEvent(event)}" for event in events]
