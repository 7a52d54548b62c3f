"""What is for the whole process: its standard streams, the clock of its timers, and the cyclic collector.

Note [Timers by the monotonic clock]: Twisted's reactors schedule by `time.time`. When somebody sets that clock back by
an hour, every timer waits an hour longer, also those of 0 seconds: logs are not synced, requests not answered,
connections not ended. Set forward, all of them are due at once. `IReactorTime.seconds` is what a reactor asks for the
time, and what its delayed calls are compared with. So one assignment covers all that this reactor ever times: our own
tasks, Twisted's web server and protocols, and whatever runs beside us in the process. Dates that people read (in logs
and Date fields), and ends that are dates (of keys, tokens, certificates), are asked of `time.time` where they are made.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import Any

#: Objects that may have been made, and not freed, before the cyclic collector looks at the new ones; how often it does
#: that before it looks at those that have survived once, and that before it looks at all. Python has 700, 10 and 10.
_COLLECT_AFTER = (10_000, 5, 5)


def open_closed_streams() -> None:
    """Open standard streams that are closed on /dev/null. To be called before anything else is opened.

    The first file that is opened gets the lowest free descriptor. If that were one of these three, C libraries would
    print to the reactor's own descriptors or to a file of RocksDB, and twistd would replace it as it becomes a daemon.
    """
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


def keep_true_time(reactor: Any) -> None:
    """Let the reactor's timers go by the monotonic clock from now on, also those that it has already.

    For a real reactor, on its thread or before it runs. See Note [Timers by the monotonic clock].
    """
    waiting = [(call, max(0.0, call.getTime() - reactor.seconds())) for call in reactor.getDelayedCalls()]
    reactor.seconds = time.monotonic
    for call, left in waiting:
        # Each delayed call keeps the clock that it was made with.
        call.seconds = time.monotonic
        call.reset(left)


def calm_collector() -> None:
    """Have Python's cyclic collector look at less, and less often: it took an eighth of the time of a write.

    To be called when everything is there that stays until the process ends: the collector looks at that no more. What
    a turn of the reactor makes is freed by the end of the turn without it, so it need not look after each turn.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
