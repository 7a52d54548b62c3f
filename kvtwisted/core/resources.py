"""How many file descriptors and threads the process has, and how many it may have.

All functions block: for a pool thread.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from contextlib import suppress
from typing import NamedTuple

#: Errors of the operating system when no file can be opened.
NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
#: Percent of a limit in use from which operators are warned.
NEARLY = 90
#: Fewer free ones than this count as none.
FEW = 8
_DESCRIPTORS, _THREADS = "file descriptors", "threads"
_CGROUP = "/sys/fs/cgroup"


class Use(NamedTuple):
    """How many of a resource are in use, how many may be (0: no limit), and what sets the limit."""

    name: str
    used: int
    limit: int
    limited_by: str

    @property
    def nearly_all(self) -> bool:
        """Whether it is nearly used up."""
        return bool(self.limit) and 100 * self.used >= NEARLY * self.limit

    @property
    def all(self) -> bool:
        """Whether it is used up, but for a few."""
        return bool(self.limit) and self.used > self.limit - FEW

    def __str__(self) -> str:
        """A part of a sentence that names the resource and the figures."""
        return f"{self.used} of {self.limit} {self.name} are in use ({self.limited_by} is their limit)"


def descriptors() -> Use:
    """Files, sockets and pipes that this process has open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = len(os.listdir("/proc/self/fd")) - 1  # without the one that reads the folder
    except OSError as error:
        used = soft if error.errno in NO_DESCRIPTORS else 0
    return Use(_DESCRIPTORS, used, 0 if soft == resource.RLIM_INFINITY else soft, "ulimit -n")


def threads() -> Use:
    """Threads: those of this process and its user's limit, or those of its container and the container's limit."""
    own = threading.active_count()
    with suppress(OSError, ValueError):  # RocksDB has some that Python does not know
        own = len(os.listdir("/proc/self/task"))
    uses = [Use(_THREADS, own, 0, "nothing")]
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid():  # root has none
        uses.append(Use(_THREADS, own, soft, "ulimit -u"))
    with suppress(OSError, ValueError):  # no container, or without such a limit
        uses.append(Use(_THREADS, _number("pids.current"), _number("pids.max"), "the container's pids.max"))
    return max(uses, key=lambda use: use.used / use.limit if use.limit else 0.0)


def no_descriptors() -> str:
    """A sentence for an error: no file could be opened because the process may open no more."""
    use = descriptors()
    return f"no file descriptor is free: {use}" if use.limit else "no file descriptor is free on this machine"


def _number(name: str) -> int:
    with open(os.path.join(_CGROUP, name), encoding="ascii") as file:
        return int(file.read())
