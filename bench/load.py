"""What every load has in common: its outcome, and that nothing is measured when anything failed."""

from __future__ import annotations

from typing import NamedTuple


class LoadError(Exception):
    """Something under load was not answered as it should be, so that there is nothing to measure."""


class Outcome(NamedTuple):
    """What a load program saw: answered requests, how many a second, and latencies in microseconds."""

    requests: int
    rate: float
    p50: float
    p99: float
