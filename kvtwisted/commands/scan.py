"""Scan: one page of the keys, or the pairs, of a range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from ..core.errors import ResponseTooLarge
from ..core.limits import MAX_KEY_BYTES, Limits, check_prefix, check_scan_limit
from .command import Command
from .ranges import KeyRange, key_range

#: The capability to scan more than what is under a prefix, forwards.
RANGES = "ranges"


class Page(NamedTuple):
    """One page of a scan, in byte order. An empty `next_cursor` says that the scan has reached the end.

    A page may hold fewer items than were asked for, or none, and still have a cursor: if its time was up.
    """

    keys: list[bytes]
    #: Those of the keys; empty ones where only keys were asked for.
    values: list[bytes]
    next_cursor: bytes
    #: When each expires, in ms since 1970 (0: never), where that was asked for; empty if none does.
    expiries: Sequence[int] = ()
    #: Keys that were counted, where only that was asked for.
    counted: int = 0
    #: With a delimiter: what keys that were left out begin with, up to the delimiter, in the order of the scan.
    prefixes: Sequence[bytes] = ()
    #: That of the view: whoever watches after it misses nothing.
    revision: int = 0

    @property
    def items(self) -> list[tuple[bytes, bytes]]:
        """Key and value of each."""
        return list(zip(self.keys, self.values))


class Scan(Command):
    """Up to `limit` (0: all) pairs whose keys start with `prefix` and come after `cursor`, from one view: a `Page`.

    Their keys lie from `start` on and before `end`, where these are not empty. With `reverse` they come from the last
    one down, and before the cursor. With `count_only` they are counted. With a `delimiter` all keys that have the same
    text between the prefix and the end of the first delimiter behind it are left out, and are one of `Page.prefixes`,
    which counts as one pair.

    With a limit or a cursor the page ends before `budget` bytes (ENTRY_OVERHEAD for each entry counted), and
    `next_cursor` says where to go on. Without either the client expects everything, so that too much is
    ResponseTooLarge. With `keys_only` the values are left empty. A value over the budget is never cut short: the budget
    must hold one entry of the largest size.
    """

    __slots__ = (
        "budget", "count_only", "cursor", "delimiter", "end", "keys_only", "limit", "prefix", "reverse", "start",
        "with_expiries",
    )  # fmt: skip

    name = right = metric = "scan"

    def __init__(
        self,
        prefix: bytes,
        *,
        cursor: bytes = b"",
        limit: int = 0,
        keys_only: bool = False,
        start: bytes = b"",
        end: bytes = b"",
        reverse: bool = False,
        count_only: bool = False,
        delimiter: bytes = b"",
        with_expiries: bool = False,
        budget: int,
        deadline: float = math.inf,
        encode: Callable[[Any], Any] | None = None,
    ) -> None:
        """UTF-8 all."""
        Command.__init__(self, len(prefix), deadline)
        self.prefix = prefix
        self.start = start
        self.end = end
        self.reverse = reverse
        self.count_only = count_only
        self.delimiter = delimiter
        self.with_expiries = with_expiries
        self.cursor = cursor
        self.limit = limit
        self.keys_only = keys_only
        self.budget = budget
        self.encode = encode

    @property
    def capability(self) -> str:  # type: ignore[override]  # only some of them ask for more
        """See `Command.capability`."""
        more = self.start or self.end or self.reverse or self.count_only or self.delimiter or self.with_expiries
        return RANGES if more else ""

    @property
    def range(self) -> KeyRange:
        """The keys that are asked for, but for `cursor`."""
        return key_range(self.prefix, self.start, self.end)

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        if len(self.prefix) > MAX_KEY_BYTES or len(self.cursor) > MAX_KEY_BYTES:
            check_prefix(self.prefix)
            check_prefix(self.cursor, "cursor")
        if self.start or self.end or self.delimiter:
            check_prefix(self.start, "start")
            check_prefix(self.end, "end")
            check_prefix(self.delimiter, "delimiter")
        if self.limit < 0:
            check_scan_limit(self.limit)

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """A scan lies inside a grant if its prefix begins with the grant's, or no other keys lie in its range."""
        return self.prefix.startswith(prefixes) or self.range.is_within(prefixes)

    def weigh(self, result: Any) -> int:
        """See `Command.weigh`."""
        return sum(map(len, result.keys)) + sum(map(len, result.values)) + sum(map(len, result.prefixes))


def too_large(budget: int) -> ResponseTooLarge:
    """What a whole answer over `budget` bytes is refused with."""
    return ResponseTooLarge(
        f"prefix: the answer exceeds {budget} bytes, the limit of one answer; page with limit and cursor"
    )
