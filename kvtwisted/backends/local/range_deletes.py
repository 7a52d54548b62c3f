"""DeleteRange: every key of a range goes in one step.

Note [A range goes in one step]: its keys are counted from a view, and then deleted under the commit point's lock,
whatever they are by then. An engine that can is told the range (`CanDeleteRange`), which costs it the same however many
keys there are: reads pass over them from then on, and their space is given back by a compaction in the background
(`maintenance.compactions`). But RocksDB's reads have to look at all such ranges until they are compacted away. So few
keys are deleted one by one, in one batch, as they are with an engine that cannot: they are listed under the lock, while
no other write goes in, and so there must not be many.

Entries of the expiry index stay behind: the scrub finds them, or the sweeper does when their time has come.
"""

from __future__ import annotations

import time
from typing import Callable

from ...commands.delete_range import DeleteRange, Removed
from ...commands.ranges import KeyRange
from ...core.errors import DeadlineExceeded, Overloaded, StorageError, Unsupported, WriteStalled
from .commit_point import RangeGone
from .engines.engine import CanDeleteRange, Engine
from .maintenance.compactions import RangeCompactions
from .writer import LONGEST_STALL_PAUSE, STALL_PAUSE, STALLED, Writer

#: Keys that are deleted one by one where the engine could be told of the range.
FEW = 256

#: Counts the keys of a range that have not expired, until a deadline. Blocks.
Count = Callable[[KeyRange, float], int]


class RangeDeletes:
    """Carries DeleteRanges out. Blocks; safe from any thread."""

    def __init__(self, engine: Engine, writer: Writer, count: Count, most: Callable[[], int]) -> None:
        """An engine that cannot be told of ranges deletes `most` keys at once, which may change at any time."""
        self._writer = writer
        self._commits = writer.commits
        self._count = count
        self._most = most
        self._can = isinstance(engine, CanDeleteRange)
        #: What gives the space back: somebody must have it take turns.
        self.compactions = RangeCompactions(engine)

    def carry_out(self, command: DeleteRange, failed: Callable[[StorageError], object]) -> Removed:
        """What it did. Raises DeadlineExceeded, Overloaded and Unsupported, having done nothing, and StorageError.

        `failed` is told when it was the writing that the storage failed.
        """
        range = command.range
        try:
            count = 0 if range.is_empty else self._count(range, command.deadline)
        except DeadlineExceeded:
            raise DeadlineExceeded(
                "the request's time ran out while the keys of the range were counted, and nothing was deleted: "
                "delete it in parts, or allow more time"
            ) from None
        if command.dry_run or not count:
            return Removed(count, 0)
        most = self._most()
        if not self._can and count > most:
            raise too_many(count, most)
        single = most if not self._can else FEW if count <= FEW else 0
        try:
            gone = self._delete(range, single, count, command.deadline)
            if gone.at_once:
                self.compactions.add(range, files=gone.had_files)
            if self._writer.durable or gone.had_files:
                self._commits.sync()
        except StorageError as error:
            failed(error)
            raise
        return Removed(count, gone.revision)

    def _delete(self, range: KeyRange, single: int, count: int, deadline: float) -> RangeGone:
        pause = STALL_PAUSE
        while True:
            self._writer.admit(0)
            try:
                return self._commits.delete_range(range, single, count)
            except WriteStalled:
                if time.monotonic() + pause > deadline:
                    raise Overloaded(STALLED) from None
            self._writer.sleep(pause)
            pause = min(2 * pause, LONGEST_STALL_PAUSE)


def too_many(count: int, most: int) -> Unsupported:
    """What is refused where keys are deleted one by one."""
    return Unsupported(
        f"the range has {count} keys or more, and the storage engine deletes at most {most} at once "
        "(limits.max_range_delete_keys): delete it in parts"
    )
