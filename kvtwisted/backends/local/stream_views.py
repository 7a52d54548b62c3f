"""What a ScanStream is read from: one view, page by page, for as long as somebody takes them.

Note [The end of a view]: what a view shows must be kept for it, in RocksDB's files and in those of large values,
however much of it has been replaced since: it is that of one iterator, and as long as it is open no file of a large
value goes (`ValueFiles.reading`). So a view lives for some time at most (`limits.max_snapshot_seconds`), and ends when
the database is opened anew, or where nobody can tell what it has: see Note [One view over deleted keys]. The stream
then ends too, with a cursor: whoever goes on from it sees a later view. Memory is bounded: one page, and what is known
of writes to the range (`WrittenRange`).
"""

from __future__ import annotations

import math
import threading
from contextlib import ExitStack

from ...commands.scan import Page
from ...commands.scan_stream import ScanStream
from ...core.clock import Clock
from ...core.errors import DeadlineExceeded, Unavailable
from .engines.engine import Crossed, Engine, Pairs
from .pages import Gathered, Wanted
from .views import ViewLost
from .writer import Writer

#: Pairs that are read at a time: at first, and later.
_FEW, _MANY = 16, 512
#: Times that a view is opened anew which was lost before any page.
_TRIES = 5


class StreamView:
    """The pairs of one stream. `page` and `close` block; any thread, `page` one at a time.

    It holds nothing before the first page, after the last one, and after `close`, which is needed if there was no last.
    """

    def __init__(self, engine: Engine, writer: Writer, clock: Clock, command: ScanStream) -> None:
        """Nothing is opened before the first page."""
        start, end = command.range
        if command.cursor and command.reverse:
            end = command.cursor if end is None else min(end, command.cursor)
        elif command.cursor:
            start = max(start, command.cursor + b"\0")
        self._wanted = Wanted(
            start, end, 0, paged=True, keys_only=False, budget=command.budget, until=math.inf,
            reverse=command.reverse, with_expiries=True,
        )  # fmt: skip
        self._engine = engine
        self._guards = writer.commits.guards
        self._revisions = writer.commits.revisions
        self._files = writer.files
        self._clock = clock
        self._left = command.limit or math.inf
        # Held by who reads a page.
        self._lock = threading.Lock()
        self._given_up = False
        self._held = ExitStack()
        self._pairs: Pairs | None = None
        # What was taken and did not fit into the last page; and the last key that a page had.
        self._rest: list[tuple[bytes, bytes]] = []
        self._last = b""
        #: That of the view; 0 before the first page.
        self.revision = 0
        #: Whether there are no more pages.
        self.is_over = False

    def page(self, *, give_up: bool = False) -> Page:
        """The next page; with `give_up` it is the last, as one with a `next_cursor` is: the view was lost there.

        Any other but the last has at least one pair. Raises StorageError, and Unavailable when no view can be had: then
        it is over, too.
        """
        with self._lock:
            self._given_up = self._given_up or give_up
            try:
                for _ in range(_TRIES):
                    page = self._page()
                    if page is not None:
                        break
                    self._release()
                else:
                    raise DeadlineExceeded(
                        "others write where the range has many deleted keys, so that no view of it lasts; try again"
                    )
            except BaseException:
                self.is_over = True
                raise
            finally:
                if self.is_over or self._given_up:
                    self._release()
        return page

    def give_up(self) -> None:
        """Let a page that is under way, and the next one, be the last: it says, by its cursor, where to go on. Never
        blocks, and releases nothing by itself."""
        self._given_up = True

    def close(self) -> None:
        """Give up, and release the view. Waits for the commit point's lock, but not for a page, which does it then."""
        self._given_up = True
        if self._lock.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._lock.release()

    # With the lock.

    def _page(self) -> Page | None:
        """None if the view was lost before anything of it was given."""
        gathered = Gathered(self._wanted, self._files, self._clock.now_ms(), self.revision)
        try:
            if self._given_up:
                return self._lost(gathered, self._last)
            if self._pairs is None:
                gathered = Gathered(self._wanted, self._files, self._clock.now_ms(), self._open())
            self._gather(gathered)
        except ViewLost as lost:
            return self._lost(gathered, lost.reached)
        except Unavailable:
            if not self._last and not gathered.entries:
                raise
            return self._lost(gathered, self._last)
        finally:
            if gathered.expired:
                self._clock.tell(gathered.expired)
        self._last = gathered.last or self._last
        return gathered.page()

    def _open(self) -> int:
        """The revision of the view, or one before it."""
        wanted = self._wanted
        written = self._held.enter_context(self._guards.range(wanted.start, wanted.end))
        self._held.enter_context(self._files.reading())
        self.revision = self._revisions.last
        if wanted.end is not None and wanted.start >= wanted.end:
            self.is_over = True
        else:
            crossed = self._watching(written.crossing(reverse=wanted.reverse))
            self._pairs = self._engine.scan(wanted.start, wanted.end, crossed=crossed, reverse=wanted.reverse)
        return self.revision

    def _watching(self, crossed: Crossed) -> Crossed:
        def watched(low: bytes, high: bytes | None) -> None:
            crossed(low, high)
            if self._given_up:
                # What lies before has been seen; this part, too, is empty in the view.
                raise ViewLost((low if self._wanted.reverse else high) or low)

        return watched

    def _gather(self, gathered: Gathered) -> None:
        pairs, budget = self._pairs, self._wanted.budget
        most, rest = _FEW if not self._last else _MANY, self._rest
        while pairs is not None and not gathered.is_full:
            missing = self._left - gathered.entries
            if missing < 1:
                self.is_over = True
                break
            taken = rest or pairs.take(int(min(most, missing)))
            if not taken:
                self.is_over = True
                break
            before = gathered.size
            self._rest = rest = gathered.add(taken)
            if self._given_up and gathered.entries:
                raise ViewLost(gathered.last if self._wanted.reverse else gathered.last + b"\0")
            if gathered.size + (gathered.size - before) > budget:
                break  # the next ones would hardly fit in
            most = _MANY
        self._left -= gathered.entries
        self.is_over = self.is_over or self._left < 1

    def _lost(self, gathered: Gathered, reached: bytes) -> Page | None:
        """The page as far as it has come, with a cursor; None if there is no step forward in that."""
        last = gathered.last or self._last
        page = gathered.early(reached) if reached else None
        if last and (page is None or not _is_ahead(page.next_cursor, last, reverse=self._wanted.reverse)):
            page = gathered.page(last)
        if page is not None:
            self.is_over = True
        elif self._given_up:
            raise Unavailable("the view of the range was given up before its first page")
        return page

    def _release(self) -> None:
        self._pairs, self._rest = None, []
        self._held.close()


def _is_ahead(cursor: bytes, last: bytes, *, reverse: bool) -> bool:
    return cursor < last if reverse else cursor > last
