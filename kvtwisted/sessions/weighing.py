"""Weighs writes for quotas: what is at their keys before, known at once or looked up in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from ..backends.backend import CanMeasure
from ..commands.command import Change, Command, WriteCommand
from .door import Done
from .quotas import Growth, Usage

#: Keys of a write that are looked at on the reactor thread.
WEIGHED_NOW = 64


class Weighing:
    """Weighs the writes of one principal. Reactor thread."""

    def __init__(self, usage: Usage, measures: CanMeasure) -> None:
        self.usage = usage
        self._measures = measures

    def growth(self, command: WriteCommand, sizes: Sequence[int] | None) -> Growth | None:
        """What a write adds; None if that has to be looked up first. Raises QuotaExceeded.

        `sizes` are what `look_up` found.
        """
        changes = _changes(command)
        if sizes is None:
            sizes = self._sizes_now(changes)
            if sizes is None:
                return None
        grown = self.usage.growth(changes, sizes)
        self.usage.check(grown)
        return grown

    def _sizes_now(self, changes: Sequence[Change]) -> list[int] | None:
        """What is at the keys, if memory can tell all of it."""
        if len(changes) > WEIGHED_NOW:
            return None
        sizes = []
        for key, _, _ in changes:
            size = self.usage.size_ahead(key)
            if size is None:
                size = self._measures.size_now(key)
                if size is None:
                    return None
            sizes.append(size)
        return sizes

    def look_up(
        self, command: WriteCommand, owner: object, told: Callable[[Sequence[int] | BaseException | None], object]
    ) -> None:
        """Tell what is at the keys of a write, in `owner`'s turn of the threads, or why that could not be seen.

        None if it holds no longer.
        """
        usage, keys = self.usage, [change[0] for change in _changes(command)]
        began = usage.begin_look()

        def looked_up(sizes: Sequence[int] | BaseException) -> None:
            holds = usage.end_look(began, keys)
            told(sizes if holds or isinstance(sizes, BaseException) else None)

        self._measures.sizes(keys, owner, looked_up)

    def settling(self, grown: Growth, done: Done) -> Done:
        """`done`, when the usage knows how it went."""

        def settled(command: Command) -> None:
            self.usage.settle(grown, failed=command.error is not None)
            done(command)

        return settled


def _changes(command: WriteCommand) -> list[Change]:
    """The last one, of several of one key."""
    return list({change[0]: change for change in command.changes(0)}.values())
