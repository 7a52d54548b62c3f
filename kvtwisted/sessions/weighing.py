"""Weighs writes for quotas: what is at their keys before, known at once or looked up in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Callable

from ..backends.backend import CanMeasure
from ..commands.command import Change, Command, WriteCommand
from ..commands.deciding import DecidingCommand
from ..core.errors import KvError
from .door import Done
from .quotas import Doubt, Growth, Usage

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
        changes = self._changes(command)
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
        usage, keys = self.usage, [change[0] for change in self._changes(command)]
        began = usage.begin_look()

        def looked_up(sizes: Sequence[int] | BaseException) -> None:
            now = usage.end_look(began, keys, () if isinstance(sizes, BaseException) else sizes)
            told(sizes if isinstance(sizes, BaseException) else now)

        self._measures.sizes(keys, owner, looked_up)

    def _changes(self, command: WriteCommand) -> list[Change]:
        """Those that count: the last one, of several of one key, and none of what it may delete elsewhere."""
        last = {change[0]: change for change in command.changes(0)}
        return [change for key, change in last.items() if key.startswith(self.usage.prefixes)]

    def settling(self, grown: Growth, done: Done) -> Done:
        """`done`, when the usage knows how it went."""

        def settled(command: Command) -> None:
            failed, is_certain = command.error is not None, True
            if isinstance(command, DecidingCommand):
                # What it changes was estimated.
                failed, is_certain = failed or command.condition_failed, False
            for doubt in self.usage.settle(grown, failed=failed, is_certain=is_certain):
                self._resolve(doubt, command.admission)
            done(command)

        return settled

    def _resolve(self, doubt: Doubt, owner: object) -> None:
        """Look at a key, here or in a thread. What cannot be read is left to the recount."""
        resolve = partial(self.usage.resolve, doubt)

        def looked_up(sizes: Sequence[int] | BaseException) -> None:
            resolve(None if isinstance(sizes, BaseException) else sizes[0])

        try:
            size = self._measures.size_now(doubt.key)
        except KvError:
            resolve(None)
            return
        if size is None:
            self._measures.sizes([doubt.key], owner, looked_up)
        else:
            resolve(size)
