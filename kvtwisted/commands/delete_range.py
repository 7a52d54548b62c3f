"""DeleteRange: remove every key of a range in one step."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Callable, NamedTuple

from ..core.errors import InvalidRequest
from ..core.limits import Limits, check_prefix
from .command import Command
from .ranges import KeyRange, key_range


class Removed(NamedTuple):
    """What a DeleteRange did: keys that there were just before, and its revision (0: nothing was removed)."""

    deleted: int
    revision: int


class DeleteRange(Command):
    """Remove the keys under `prefix`, from `start` on and before `end` (empty: no bound): a `Removed`.

    Every key only when `everything` says so. With `dry_run` they are only counted. It is no `WriteCommand`, since its
    keys are not known: a backend orders it with the writes by itself.
    """

    __slots__ = ("charged", "dry_run", "end", "everything", "prefix", "start")

    name = "delete_range"
    right = metric = "delete"
    writes = True
    capability = "delete_range"

    def __init__(
        self,
        prefix: bytes = b"",
        start: bytes = b"",
        end: bytes = b"",
        *,
        everything: bool = False,
        dry_run: bool = False,
        deadline: float = math.inf,
        encode: Callable[[Any], Any] | None = None,
    ) -> None:
        """UTF-8 all."""
        Command.__init__(self, len(prefix) + len(start) + len(end), deadline)
        self.prefix = prefix
        self.start = start
        self.end = end
        self.everything = everything
        self.dry_run = dry_run
        self.encode = encode
        self.charged = 1

    @property
    def count(self) -> int:
        """The keys that it has deleted; one until then."""
        return self.charged

    @property
    def range(self) -> KeyRange:
        """The keys that go."""
        return key_range(self.prefix, self.start, self.end)

    def complete(self, result: Any) -> None:
        """See `Command.complete`: with a `Removed`."""
        self.charged = 0 if self.dry_run else result.deleted
        Command.complete(self, result)

    @property
    def written(self) -> Sequence[tuple[str, Collection[bytes]]]:
        """See `Command.written`: where the range begins and ends; nothing, if it is only counted."""
        return () if self.dry_run else ((self.name, (self.range.start, self.range.end or b"")),)

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        for field in ("prefix", "start", "end"):
            check_prefix(getattr(self, field), field)
        bounded = bool(self.prefix or self.start or self.end)
        if self.everything and bounded:
            raise InvalidRequest("all: must be false where prefix, start or end say what to delete")
        if not self.everything and not bounded:
            raise InvalidRequest("prefix, start and end are empty: set all to true to delete every key")

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return self.range.is_within(prefixes)
