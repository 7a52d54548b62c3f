"""A Recorder that keeps what it is told."""

from __future__ import annotations

from typing import NamedTuple


class Recorded(NamedTuple):
    """One call of `CountingRecorder.operation`, without its duration."""

    name: str
    keys: int
    failed: bool


class CountingRecorder:
    """Implements `core.operations.Recorder`. `durations` are those of operations and health checks, in seconds."""

    def __init__(self) -> None:
        self.operations: list[Recorded] = []
        self.config_updates = 0
        self.health_checks = 0
        self.durations: list[float] = []

    def operation(self, name: str, keys: int, seconds: float, failed: bool, calls: int = 1) -> None:
        """Keep the call."""
        self.durations.append(seconds)
        self.operations.append(Recorded(name, keys, failed))

    def config_update(self) -> None:
        """Count it."""
        self.config_updates += 1

    def health_check(self, seconds: float) -> None:
        """Count it."""
        self.durations.append(seconds)
        self.health_checks += 1
