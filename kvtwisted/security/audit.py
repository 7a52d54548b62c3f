"""The audit log: who changed what, and who was turned away. One JSON object in a line.

Every line has `time` (UTC), `event` and `who`: a token's id, `cert:` and a certificate's name, `anonymous`, or `server`
for what it did by itself. Values of keys are never in it, and keys only where writes are audited.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from time import time
from typing import Callable

#: Who did what the server did by itself, and who showed nothing of who they are.
SERVER, ANONYMOUS = "server", "anonymous"


class Audit:
    """Makes lines and gives them to `add`, which must be quick and safe from any thread. So is this."""

    def __init__(self, add: Callable[[bytes], None], now: Callable[[], float] = time) -> None:
        """`now` is in seconds since 1970."""
        self._add = add
        self._now = now

    def record(self, event: str, who: str, **facts: object) -> None:
        """Something happened; `facts` must be fit for JSON."""
        moment = datetime.fromtimestamp(self._now(), timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": moment, "event": event, "who": who, **facts}
        # ASCII: a lone surrogate of a file's name must not keep the line from being written.
        self._add(json.dumps(line).encode("ascii") + b"\n")
