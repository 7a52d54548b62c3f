"""Standard streams that were closed by whoever started the process: opened on nothing, before all else.

What is opened first gets the lowest free descriptor. Were that one of these three, the reactor's own descriptors or a
file of RocksDB would be what C libraries print to, and what twistd replaces when it becomes a daemon.
"""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Open /dev/null in the place of each standard stream that is closed, and give Python its objects for them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free one is this: those below it are open by now.
            opened = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(opened, True)
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            stream = open(descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
