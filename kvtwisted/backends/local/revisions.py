"""The revision: one number for each command that changed something, greater than all before it.

Note [A revision is never given twice]: numbers are counted in memory, under the lock of the commit point, so that they
cost a write nothing. Before any is given, an fsync has made a reservation durable that lies above it: the entry
`revision` of the column family META, ahead by RESERVED at most. Each start goes on above the reservation, which no
earlier run has passed, and above the Unix time in microseconds, which is ahead of what a restored copy of the data
knows: no server makes a million commits a second for long. So neither a crash, nor a power cut, nor a wall clock that
was set back, nor a restore makes one come again.

RocksDB's own sequence numbers would not do: they are one for each mutation, a power cut takes them back along with the
writes that were not synced, a restored copy counts on from where it was made, and lbry-rocksdb does not show them.
"""

from __future__ import annotations

import time
from typing import Callable

from ...core.errors import Corruption
from .engines.engine import META, Engine

#: Revisions that one fsync reserves: about as many as microseconds pass while a server starts, so that the reservations
#: of one that is killed again and again do not run ahead of the time.
RESERVED = 1 << 20
_KEY = b"revision"
#: Below what a number of JSON can tell exactly, half of it left for counting: a clock that is ahead of that (the year
#: 2112) is not believed.
_LATEST = 1 << 52


class Revisions:
    """For the commit point, under its lock; `last` is for anybody."""

    def __init__(self, engine: Engine, wall_ns: Callable[[], int] = time.time_ns) -> None:
        """Reads what earlier runs reserved; nothing is written yet. Raises Corruption and StorageError."""
        self._engine = engine
        now = wall_ns() // 1000
        #: The revision of the last commit; at first, one that is above all that earlier runs gave.
        self.last = max(_reservation(engine), now if now < _LATEST else 0)
        #: Up to which they may be given without waiting. What keeps nothing has no later run.
        self.reserved = self.last if engine.is_persistent else 2 * _LATEST

    def reserve(self, count: int) -> None:
        """See to it that so many may be given. Blocks. Raises StorageError, and WriteStalled rather than wait."""
        wanted = self.last + count + RESERVED
        self._engine.write([(META, _KEY, b"%d" % wanted)])
        self._engine.sync()
        self.reserved = wanted


def _reservation(engine: Engine) -> int:
    stored = engine.get(_KEY, META) if engine.is_persistent else None
    try:
        return int(stored or 0)
    except ValueError:
        raise Corruption(f"the data folder's revision is {stored!r}, which is no number") from None
