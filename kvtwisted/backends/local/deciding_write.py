"""Writes whose command decides: what they change is known once the command was told what is there.

Note [Decisions and their writes are one step]: a command decides under the lock of the commit point, just before what
it changes goes into the engine, and is told what the engine has then, with what writes before it in the same batch are
about to change. So nothing comes in between, and each sees those before it. That takes no longer than a write does: it
is told of what memory has, and of little. What would take longer is decided apart (`Writer.decide`): the keys are
guarded, read, and digested without the lock, and the write goes in, under the lock, if none of them was written since.

A key whose ttl ran out is absent, and a client that learns of that must never see it again, see Note [An expired key
stays expired] in `kvtwisted.core.clock`: where the mark has not reached the deadline, it is decided apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Callable

from ...commands.command import Change
from ...commands.deciding import DecidingCommand, Kept, Outcome, Present
from ...core.errors import KvError, without_frames
from .commit_point import NO_DEADLINES, NO_FILES, Write
from .lookups import Lookups, Stored
from .records import Pointer

#: Values up to so many bytes are told of under the lock, and so many bytes of them for one batch: a digest takes 1.2 ns
#: a byte.
NOW_BYTES, NOW_BYTES_OF_A_BATCH = 16_384, 262_144
#: Bytes of all values that one command can be told of, since some are kept in memory until it is done.
READ_BYTES = 32 * 1_048_576


class NotNow(Exception):
    """What is at a key cannot be told here."""


class NotMarked(Exception):
    """A key has expired, at this time, and nobody may be told so yet."""

    def __init__(self, deadline_ms: int) -> None:
        super().__init__()
        self.deadline_ms = deadline_ms


class DecidingWrite(Write):
    """The write of a command that decides. Its `changes` are those of the last decision."""

    __slots__ = (
        "before", "command", "files", "is_apart", "keeps", "looked", "lookups", "outcome", "told_until", "until",
        "was_unread",
    )  # fmt: skip

    def __init__(self, command: DecidingCommand, lookups: Lookups) -> None:
        """Not decided yet."""
        Write.__init__(self, (), command.deadline)
        self.command = command
        self.lookups = lookups
        self.is_apart = self.was_unread = False
        #: What the command answers, once it is settled without an error.
        self.outcome = Outcome()
        #: The deadlines of what it was told of, by key.
        self.looked: dict[bytes, int] = {}
        #: The first deadline of what it was told is there, in ms since 1970: the decision does not hold from then on.
        self.until: float = math.inf
        #: Expired keys up to this deadline may be told of.
        self.told_until = 0
        #: Files that were written for it, with the value of each, by key.
        self.files: dict[bytes, tuple[bytes, Pointer]] = {}

    def decide(self, stored: Callable[[bytes], Stored], now_ms: int) -> None:
        """Have the command decide; `stored` tells what is at a key.

        Raises KvErrors of the command, what `stored` raises, and NotMarked.
        """
        looked: dict[bytes, int] = {}
        values: dict[bytes, bytes] = {}
        self.looked, self.before, self.until = looked, NO_DEADLINES, math.inf
        self.changes, self.keeps = (), ()
        self.large = self.kept = NO_FILES
        clock = self.lookups.clock

        def look(key: bytes) -> Present | None:
            value, deadline = stored(key)
            looked[key] = deadline
            if value is None:
                return None
            if deadline:
                self.before = looked
                if deadline <= now_ms:
                    if deadline > self.told_until and not clock.is_marked(deadline):
                        raise NotMarked(deadline)
                    return None
                self.until = min(self.until, deadline)
            values[key] = value
            return Present(value, deadline)

        changes, self.outcome = self.command.decide(look, now_ms)
        self.keeps = [key for key, value, _ in changes if type(value) is Kept]
        if self.keeps:
            changes = [(key, values[key] if type(value) is Kept else value, ends) for key, value, ends in changes]
        self.changes = changes
        self.measure()
        if self.keeps:
            self.plain = False  # a file that is kept needs an envelope

    def settle(self, refused: KvError | None) -> None:
        """It changes nothing: that was decided, or this is why."""
        self.changes = ()
        self.settled = True
        if refused is not None:
            self.was_unread = True
            self.fail(refused)

    def complete(self) -> None:
        """Give the command its result. Raises what its `encode` does."""
        outcome = self.outcome
        self.command.condition_failed = bool(outcome.failed_check)
        self.command.complete(outcome._replace(revision=self.revision) if self.revision else outcome)


class Batch:
    """Writes that go in together: has those decide that do. Under the commit point's lock."""

    def __init__(self, writes: Sequence[Write], admit: Callable[[int], None], may_go: Callable[[Write], bool]) -> None:
        """`admit` is told the bytes that a decision stores, and raises what refuses it; `may_go` says whether what one
        changes can be done here."""
        self._admit = admit
        self._may_go = may_go
        # What those before are about to change, by key.
        self._pending: dict[bytes, Change] = {}
        self._left = NOW_BYTES_OF_A_BATCH
        self._now_ms: int | None = None
        # The one that decides, and whether it was told what is about to be changed.
        self._lookups: Lookups
        self._saw_pending = False
        #: Those that change something, in order.
        self.going: list[Write] = []
        # Those that were told what these are about to change, and change nothing; with the error of the decision.
        self._idle: list[tuple[DecidingWrite, KvError | None]] = []
        for write in writes:
            if isinstance(write, DecidingWrite) and (write.is_apart or not self._decide(write)):
                continue
            self.going.append(write)
            for change in write.changes:
                self._pending[change[0]] = change

    def settle(self) -> None:
        """Those that change something were settled, or stalled: settle the others, if they were told what is true."""
        for write, refused in self._idle:
            first = self.going[0]
            if first.error is not None:
                write.fail(first.error)
            elif first.settled:
                write.settle(refused)

    def _decide(self, write: DecidingWrite) -> bool:
        """Whether it changes something."""
        if self._now_ms is None:
            self._now_ms = write.lookups.clock.now_ms()
        self._lookups, self._saw_pending = write.lookups, False
        refused: KvError | None = None
        try:
            write.decide(self._stored, self._now_ms)
            if write.changes:
                if not self._may_go(write):
                    raise NotNow
                self._admit(write.stores)
                return True
        except (NotNow, NotMarked):
            write.is_apart = True
            return False
        except KvError as error:
            refused = without_frames(error)
        if self._saw_pending:
            self._idle.append((write, refused))
        else:
            write.settle(refused)
        return False

    def _stored(self, key: bytes) -> Stored:
        change = self._pending.get(key)
        if change is not None:
            self._saw_pending = True
            _, value, deadline = change
        else:
            stored = self._lookups.now(key)
            if stored is None:
                raise NotNow
            value, deadline = stored
        if value is not None:
            size = len(value)
            self._left -= size
            if size > NOW_BYTES or self._left < 0:
                raise NotNow
        return value, deadline
