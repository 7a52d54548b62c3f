"""A coverage plugin (see pyproject.toml) that saves the figures of a process that ends itself by a signal.

twistd does so after a clean stop, to tell its parent which signal it was; nothing of coverage's own runs then.
"""

from __future__ import annotations

import os
import resource

import coverage


def coverage_init(registry: object, options: object) -> None:
    """Save before a signal to oneself. Called by coverage in every measured process."""
    kill = os.kill

    def save_and_kill(pid: int, signal: int) -> None:
        current = coverage.Coverage.current()
        if pid == os.getpid() and current is not None:
            # A test may have kept the process from writing files of any size.
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            current.stop()
            current.save()
        kill(pid, signal)

    os.kill = save_and_kill
