"""ScanStream: all pairs of a range, in order, from one view, in parts."""

from __future__ import annotations

from typing import Any, Callable

from ..core.limits import Limits, check_prefix, check_scan_limit
from .ranges import KeyRange, key_range
from .streams import StreamCommand


class ScanStream(StreamCommand):
    """The pairs under `prefix`, from `start` on and before `end` (empty: no bound), after `cursor`: `Page`s.

    All are from one view, in the order of keys, or the other way round with `reverse`; `limit` (0: none) bounds them in
    all. Each part has up to `budget` bytes (ENTRY_OVERHEAD for each entry counted), and at least one pair; but the last
    one may have none. A `next_cursor` of the last one says that the view had to be given up there.
    """

    __slots__ = ("budget", "cursor", "end", "last", "limit", "prefix", "reverse", "start", "told")

    name = right = metric = "scan"
    capability = "scan_stream"

    def __init__(
        self,
        prefix: bytes = b"",
        start: bytes = b"",
        end: bytes = b"",
        *,
        cursor: bytes = b"",
        limit: int = 0,
        reverse: bool = False,
        budget: int,
        encode: Callable[[Any], Any] | None = None,
    ) -> None:
        """UTF-8 all."""
        StreamCommand.__init__(self, len(prefix) + len(start) + len(end) + len(cursor), encode)
        self.prefix = prefix
        self.start = start
        self.end = end
        self.cursor = cursor
        self.limit = limit
        self.reverse = reverse
        self.budget = budget
        #: The pairs of all parts so far, and the last key of them; set by the backend before it tells a part.
        self.told, self.last = 0, b""

    @property
    def range(self) -> KeyRange:
        """The keys that are asked for, but for `cursor`."""
        return key_range(self.prefix, self.start, self.end)

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        for field in ("prefix", "start", "end", "cursor"):
            check_prefix(getattr(self, field), field)
        if self.limit < 0:
            check_scan_limit(self.limit)

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return self.range.is_within(prefixes)
