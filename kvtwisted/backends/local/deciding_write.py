"""Writes whose command decides: what they change is known once the command was told what is there.

Note [Decisions and their writes are one step]: a command decides under the lock of the commit point, just before what
it changes goes into the engine, and is told what the engine has then, with what writes before it in the same batch are
about to change. So nothing comes in between, and each sees those before it. That takes no longer than a write does: it
is told of what memory has, and of little. What would take longer is decided apart (`apart.Apart`): the keys are
guarded, read, and digested without the lock, and the write goes in, under the lock, if none of them was written since.

A key whose ttl ran out is absent, and a client that learns of that must never see it again, see Note [An expired key
stays expired] in `kvtwisted.core.clock`: where the mark has not reached the deadline, it is decided apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ...commands.command import NEVER_TEXT, Change
from ...commands.conditional import MutateKey
from ...commands.conditions import Test, etag_of
from ...commands.deciding import DecidingCommand, Kept, Mutated, Outcome, Present
from ...commands.decisions import Decisions
from ...commands.mutations import HIGHEST, LOWEST, AddNumber, SetValue
from ...core.errors import KvError, Unsupported, without_frames
from .lookups import NOTHING, Lookups, Stored
from .records import Pointer
from .write import NO_DEADLINES, NO_FILES, Write

#: Values up to so many bytes are told of under the lock, and so many bytes of them for one batch: a digest takes 1.2 ns
#: a byte.
NOW_BYTES, NOW_BYTES_OF_A_BATCH = 16_384, 262_144

VALUE, ETAG, ABSENT = Test.VALUE, Test.ETAG, Test.ABSENT
#: So many digits may not be a number of 64 bits; and the digit that none but 0 begins with.
_SURE_DIGITS, _ZERO = 19, 0x30
_FOUND, _NOT_FOUND = (Mutated(True),), (Mutated(),)
#: Makes an Outcome in half the time that the class itself takes.
_new = tuple.__new__


class NotNow(Exception):
    """What is at a key cannot be told here."""


class NotMarked(Exception):
    """A key has expired, at this time, and nobody may be told so yet."""

    def __init__(self, deadline_ms: int) -> None:
        super().__init__()
        self.deadline_ms = deadline_ms


class DecidingWrite(Write):
    """The write of a command that decides. Its `changes` are those of the last decision."""

    decides = True

    __slots__ = (
        "before", "command", "files", "is_apart", "keeps", "looked", "lookups", "outcome", "told_until", "until",
        "was_unread",
    )  # fmt: skip

    def __init__(self, command: DecidingCommand, lookups: Lookups) -> None:
        """Not decided yet."""
        Write.__init__(self, (), command.deadline, plain_bytes=0)
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
        told: dict[bytes, Present | None] = {}
        self.looked, self.before, self.until = looked, NO_DEADLINES, math.inf
        self.changes, self.keeps = (), frozenset()
        self.large = self.kept = NO_FILES

        def look(key: bytes) -> Present | None:
            if key in told:
                return told[key]
            value, deadline = found = stored(key)
            looked[key] = deadline
            if value is None or (deadline and self._is_over(deadline, now_ms)):
                told[key] = None
                return None
            there = told[key] = _new(Present, found)
            return there

        changes, self.outcome = self.command.decide(look, now_ms)
        self.keeps = {change[0] for change in changes if type(change[1]) is Kept}
        if self.keeps:
            # Nothing expires that stays: it has just been told of.
            changes = [
                (key, told[key][0] if type(value) is Kept else value, ends)  # type: ignore[index]
                for key, value, ends in changes
            ]
        self.changes = changes
        self.measure()
        if self.keeps:
            self.plain = False  # a file that is kept needs an envelope

    def _is_over(self, deadline: int, now_ms: int) -> bool:
        self.before = self.looked
        if deadline > now_ms:
            self.until = min(self.until, deadline)
            return False
        if deadline > self.told_until and not self.lookups.clock.is_marked(deadline):
            raise NotMarked(deadline)
        return True

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


class GatheredWrite(Write):
    """The write of commands that decide and came together: one commit for each of those that change something.

    It is told of what is small and in memory, and stores no files; what else there is, is decided apart.
    """

    __slots__ = ("aside", "before", "decisions", "is_split", "lookups", "results")

    decides = is_gathered = True

    def __init__(self, decisions: Decisions, lookups: Lookups) -> None:
        """Not decided yet: until then it may have as many commits as there are decisions."""
        Write.__init__(self, (), decisions.deadline, commits=decisions.commits, plain_bytes=0)
        self.decisions = decisions
        self.lookups = lookups
        #: Whether they cannot go together: each has to be a write of its own.
        self.is_split = False

    def decide(self, pending: Mapping[bytes, Change], now_ms: int, left: int) -> tuple[int, bool]:
        """Have each decide, and note the results, and who has to be decided apart (`aside`).

        `pending` are changes before it in the batch; of values `left` bytes may be told of. Gives what is left then,
        and whether any was told of pending changes. This unrolls what `DecidingWrite` has a `MutateKey` do.
        """
        lookups = self.lookups
        hot, is_marked = lookups.hot, lookups.clock.is_marked
        changes: list[Change] = []
        # Of those that change something what was done, which lacks the revision.
        results: list[Any] = []
        aside: list[int] = []
        before: dict[bytes, int] = {}
        ahead: dict[bytes, Change] = {}
        saw_pending = False
        for mutation, condition in zip(self.decisions.mutations, self.decisions.conditions):
            key = mutation[0]
            change = ahead.get(key)
            if change is None and pending:
                change = pending.get(key)
                saw_pending = saw_pending or change is not None
            found: Stored | None
            if change is not None:
                found = change[1:]
            else:
                entry = hot(key)
                if entry is not None and (answer := entry.answer) is not None:
                    entry.used = True
                    found = answer
                else:
                    try:
                        found = lookups.now(key, entry)
                    except KvError as error:
                        results.append(without_frames(error))
                        continue
            value, ends = found or NOTHING
            if value is not None:
                size = len(value)
                left -= size
                if size > NOW_BYTES or left < 0:
                    found = None
                elif ends:
                    before.setdefault(key, ends)
                    if ends <= now_ms:
                        value = None
                        if not is_marked(ends):
                            found = None
            if found is None:
                aside.append(len(results))
                results.append(None)
                continue
            if condition is not None:
                test, operand = condition
                if test is VALUE:
                    holds = value == operand
                elif test is ETAG:
                    holds = condition.holds(value)
                else:
                    holds = (value is None) is (test is ABSENT)
                if not holds:
                    results.append(Outcome(failed_check=1, etag="" if value is None else etag_of(value)))
                    continue
            if type(mutation) is SetValue:
                _, stored, ttl = mutation
                change = key, stored, now_ms + 1000 * ttl if ttl else 0
                done = _NOT_FOUND if value is None else _FOUND
            elif (
                value
                and type(mutation) is AddNumber
                and value.isdigit()
                and len(value) < _SURE_DIGITS
                and (value[0] != _ZERO or value == b"0")
                and LOWEST <= (number := int(value) + mutation[1]) <= HIGHEST
            ):
                change = key, b"%d" % number, ends
                done = (_new(Mutated, (True, number, False)),)
            else:
                try:
                    change, mutated = mutation.apply(None if value is None else Present(value, ends), now_ms)
                except KvError as error:
                    results.append(without_frames(error))
                    continue
                done = (mutated,)
                if change is None:
                    results.append(_new(Outcome, (0, 0, "", done)))
                    continue
                if type(change[1]) is Kept:
                    change = key, value, change[2]
            ahead[key] = change
            changes.append(change)
            results.append(done)
        self.changes, self.results, self.aside, self.before = changes, results, aside, before
        self.commits = len(changes)
        if changes:
            # What `measure` does, column by column: none of these deletes.
            keys, values, deadlines = zip(*changes)
            self.size = self.stores = sum(map(len, keys)) + sum(map(len, values))
            # If any value begins with the highest byte, the highest value does.
            self.plain = not any(deadlines) and max(values)[:1] != NEVER_TEXT
        return left, saw_pending

    def settle(self, refused: KvError | None) -> None:
        """It changes nothing, or does so by `is_split`."""
        self.settled = True
        if refused is not None:
            self.is_split = True

    def complete(self) -> list[MutateKey]:
        """Give the command its results; returns those that have to be decided apart, which it has no longer."""
        decisions, revision = self.decisions, self.revision - self.commits
        if self.commits == decisions.count:
            decisions.is_done = True
            decisions.results = [
                _new(Outcome, (number, 0, "", done)) for number, done in enumerate(self.results, revision + 1)
            ]
            return []
        results: list[Any] = []
        for result in self.results:
            if type(result) is tuple:
                revision += 1
                result = _new(Outcome, (revision, 0, "", result))
            results.append(result)
        decisions.results = results
        return self.decisions.take_out(self.aside) if self.aside else []


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
        self._idle: list[tuple[DecidingWrite | GatheredWrite, KvError | None]] = []
        for write in writes:
            if write.decides and not self._goes(write):
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

    def _goes(self, write: Write) -> bool:
        """Have it decide; whether it changes something then."""
        if isinstance(write, GatheredWrite):
            return self._decide_together(write)
        assert isinstance(write, DecidingWrite)  # noqa: S101 - no other decides
        return not write.is_apart and self._decide(write)

    def _decide_together(self, write: GatheredWrite) -> bool:
        self._left, self._saw_pending = write.decide(self._pending, self._now(write.lookups), self._left)
        refused: KvError | None = None
        if write.changes:
            try:
                if not self._may_go(write):
                    raise Unsupported("a file is to be written, or goes: not together with others")
                self._admit(write.stores)
            except KvError as error:
                refused = without_frames(error)
            else:
                return True
        if self._saw_pending:
            self._idle.append((write, refused))
        else:
            write.settle(refused)
        return False

    def _now(self, lookups: Lookups) -> int:
        if self._now_ms is None:
            self._now_ms = lookups.clock.now_ms()
        return self._now_ms

    def _decide(self, write: DecidingWrite) -> bool:
        """Whether it changes something."""
        now_ms = self._now(write.lookups)
        self._lookups, self._saw_pending = write.lookups, False
        refused: KvError | None = None
        try:
            write.decide(self._stored, now_ms)
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
        stored: Stored
        if self._pending and (change := self._pending.get(key)) is not None:
            self._saw_pending = True
            stored = change[1:]
        elif (entry := self._lookups.hot(key)) is not None and (answer := entry.answer) is not None:
            entry.used = True
            stored = answer
        else:
            found = self._lookups.now(key, entry)
            if found is None:
                raise NotNow
            stored = found
        if stored[0] is not None:
            size = len(stored[0])
            self._left -= size
            if size > NOW_BYTES or self._left < 0:
                raise NotNow
        return stored
