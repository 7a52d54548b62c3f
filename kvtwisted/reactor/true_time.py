"""Makes the reactor's timers go by the monotonic clock, whatever is done to the wall clock.

Note [Timers by the monotonic clock]: Twisted's reactors schedule by `time.time`. When somebody sets that clock back by
an hour, every timer waits an hour longer, also those of 0 seconds: logs are not synced, requests not answered,
connections not ended. Set forward, all of them are due at once. `IReactorTime.seconds` is what a reactor asks for the
time, and what its delayed calls are compared with. So one assignment covers all that this reactor ever times: our own
tasks, Twisted's web server and protocols, and whatever runs beside us in the process. Dates that people read (in logs
and Date fields), and ends that are dates (of keys, tokens, certificates), are asked of `time.time` where they are made.
"""

from __future__ import annotations

import time
from typing import Any


def keep_true_time(reactor: Any) -> None:
    """Let the reactor's timers go by the monotonic clock from now on, those included that it has already.

    For a real reactor, on its thread or before it runs. See Note [Timers by the monotonic clock].
    """
    waiting = [(call, max(0.0, call.getTime() - reactor.seconds())) for call in reactor.getDelayedCalls()]
    reactor.seconds = time.monotonic
    for call, left in waiting:
        # Each delayed call keeps the clock that it was made with.
        call.seconds = time.monotonic
        call.reset(left)
