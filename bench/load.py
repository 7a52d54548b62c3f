"""What every load has in common: its outcome, and that nothing is measured when anything failed."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .rounds import Sample


class LoadError(Exception):
    """Something under load was not answered as it should be, so that there is nothing to measure."""


class Outcome(NamedTuple):
    """What a load program saw: answered requests, how many a second, latencies in microseconds; and what it cost."""

    requests: int
    rate: float
    p50: float
    p99: float
    #: How many cores the load program used, of which it could use one.
    client: float
    #: Microseconds of the server's processor time for each request.
    server: float | None = None
    #: The longest of the latencies; messages, and bytes of them, that came within a second.
    longest: float = 0
    parts: float = 0
    received: float = 0

    def sample(self) -> Sample:
        """The rate is the figure."""
        return Sample(self.rate, self.p50, self.p99, self.client, self.server)


def cpu_seconds(process: int) -> float:
    """Processor time that all threads of a process have used."""
    ticks = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")


def run_program(command: Sequence[str], timeout: float) -> tuple[str, float]:
    """What a load program prints, and how many cores it used. No other must end meanwhile.

    Raises LoadError with what it says when it fails.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)  # noqa: S603
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
    if done.returncode:
        raise LoadError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, used / seconds
