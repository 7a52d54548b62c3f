"""Scan: one page of the keys, or the pairs, under a prefix."""

from __future__ import annotations

import math
from typing import Any, Callable, NamedTuple

from ..core.errors import ResponseTooLarge
from ..core.limits import MAX_KEY_BYTES, Limits, check_prefix, check_scan_limit
from .command import Command


class Page(NamedTuple):
    """One page of a scan, in byte order. An empty `next_cursor` says that the scan has reached the end.

    A page may hold fewer items than were asked for, or none, and still have a cursor: if its time was up.
    """

    keys: list[bytes]
    #: Those of the keys; empty ones where only keys were asked for.
    values: list[bytes]
    next_cursor: bytes

    @property
    def items(self) -> list[tuple[bytes, bytes]]:
        """Key and value of each."""
        return list(zip(self.keys, self.values))


class Scan(Command):
    """Up to `limit` (0: all) pairs whose keys start with `prefix` and come after `cursor`, from one view: a `Page`.

    With a limit or a cursor the page ends before `budget` bytes (ENTRY_OVERHEAD for each entry counted), and
    `next_cursor` says where to go on. Without either the client expects everything, so that too much is
    ResponseTooLarge. With `keys_only` the values are left empty. A value over the budget is never cut short: the budget
    must hold one entry of the largest size.
    """

    __slots__ = ("budget", "cursor", "keys_only", "limit", "prefix")

    name = right = metric = "scan"

    def __init__(
        self,
        prefix: bytes,
        *,
        cursor: bytes = b"",
        limit: int = 0,
        keys_only: bool = False,
        budget: int,
        deadline: float = math.inf,
        encode: Callable[[Any], Any] | None = None,
    ) -> None:
        """UTF-8 both."""
        Command.__init__(self, len(prefix), deadline)
        self.prefix = prefix
        self.cursor = cursor
        self.limit = limit
        self.keys_only = keys_only
        self.budget = budget
        self.encode = encode

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        if len(self.prefix) > MAX_KEY_BYTES or len(self.cursor) > MAX_KEY_BYTES:
            check_prefix(self.prefix)
            check_prefix(self.cursor, "cursor")
        if self.limit < 0:
            check_scan_limit(self.limit)

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """A scan lies inside a grant if its prefix begins with the grant's."""
        return self.prefix.startswith(prefixes)

    def weigh(self, result: Any) -> int:
        """See `Command.weigh`."""
        return sum(map(len, result.keys)) + sum(map(len, result.values))


def too_large(budget: int) -> ResponseTooLarge:
    """What a whole answer over `budget` bytes is refused with."""
    return ResponseTooLarge(
        f"prefix: the answer exceeds {budget} bytes, the limit of one answer; page with limit and cursor"
    )
