"""A Recorder that keeps what it is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable, NamedTuple


class Recorded(NamedTuple):
    """One call of `CountingRecorder.operation`, without its duration."""

    name: str
    keys: int
    failed: bool


class _Telling(list[float]):
    """Passes on what is appended, and stays empty."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, seconds: float) -> None:
        self._tell(seconds)

    def extend(self, durations: Iterable[float]) -> None:
        for seconds in durations:
            self._tell(seconds)


class CountingRecorder:
    """Implements `sessions.door.Recorder`. `seconds` are the durations of operations and health checks."""

    def __init__(self) -> None:
        self.operations: list[Recorded] = []
        self.config_updates = 0
        self.health_checks = 0
        self.seconds: list[float] = []

    def operation(self, name: str, keys: int, seconds: float, failed: bool, calls: int = 1) -> None:
        """Keep the call."""
        if calls:
            self.seconds.append(seconds)
        self.operations.append(Recorded(name, keys, failed))

    def durations(self, name: str) -> list[float]:
        """A list that tells of each call at once."""
        return _Telling(lambda seconds: self.operation(name, 1, seconds, False))

    def fold(self) -> None:
        """Nothing is left to count."""

    def config_update(self) -> None:
        """Count it."""
        self.config_updates += 1

    def health_check(self, seconds: float) -> None:
        """Count it."""
        self.seconds.append(seconds)
        self.health_checks += 1
