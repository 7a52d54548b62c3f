"""What writers did, and what may be left of it after a crash: the beginning of each one's work, without holes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple, Optional

#: Characters from which a value counts as large.
LARGE = 2000
#: Characters of the largest ones.
HUGE = 100_000
#: Seconds by which this process and the server may differ about whether a key has expired.
_TOLERANCE = 0.1
#: Seconds by which what is left of a ttl may be less than the ttl; ttls that are to be told apart differ by more.
_ELAPSED = 1800

#: What is said of a group of keys: the one text that is the beginning of all their values, or None: all are missing.
State = Optional[str]
Keys = tuple[str, ...]


class Entry:
    """One write of a writer to a group of keys: what it was to do, when, and whether it was acknowledged.

    Times are of `time.monotonic`; `ended` is when the writer heard of it, and infinite before that.
    """

    def __init__(
        self,
        keys: Keys,
        state: State,
        *,
        size: int = 0,
        ttl: int = 0,
        begun: float = -math.inf,
        how: str = "plain",
        before: Entry | None = None,
    ) -> None:
        """Every second value, the first among them, is filled up to `size` characters. `how` is for who carries it
        out, and so is what there was `before`, where that is certain."""
        self.keys = keys
        self.state = state
        self.size = size
        self.ttl = ttl
        self.begun = begun
        self.how = how
        self.before = before
        self.ended = math.inf
        self.acknowledged = False
        #: Whether it took the place of a large value that cannot have expired before.
        self.replaces_large = False

    @property
    def large(self) -> bool:
        """Whether any of its values is large."""
        return self.state is not None and self.size >= LARGE

    @property
    def changes_files(self) -> bool:
        """Whether it makes or removes files, where large values have files."""
        return self.how != "touch" and (self.large or self.replaces_large)

    def content(self) -> dict[str, str]:
        """The values by key."""
        if self.state is None:
            return {}
        return {key: self.state.ljust(0 if at % 2 else self.size, ".") for at, key in enumerate(self.keys)}

    def explains(self, found: Mapping[str, str], asked: float, answered: float, ttl: int | None = None) -> bool:
        """Whether `found`, read between those two times, is what it left behind; and `ttl`, if that was read."""
        if found:
            if ttl is not None and not (self.ttl - _ELAPSED < ttl <= self.ttl and bool(ttl) == bool(self.ttl)):
                return False
            return found == self.content() and not (self.ttl and self.ended + self.ttl < asked - _TOLERANCE)
        return self.state is None or bool(self.ttl and self.begun + self.ttl <= answered + _TOLERANCE)

    def __repr__(self) -> str:
        """For messages."""
        told = "acknowledged" if self.acknowledged else "not acknowledged"
        return (
            f"<{self.how} {self.keys[0]} x{len(self.keys)} = {self.state!r}, size {self.size}, ttl {self.ttl}, {told}>"
        )


class Survivors(NamedTuple):
    """How much is left of each writer's entries: at least and at most so many of its first ones."""

    least: dict[str, int]
    most: dict[str, int]


def survivors(
    histories: Mapping[str, Sequence[Entry]],
    before: Mapping[Keys, Entry],
    explained: Callable[[Entry], bool],
    kept: Callable[[Entry], bool],
) -> Survivors:
    """What is left of each writer's history; AssertionError when nothing explains what was found.

    `before` has what each group held before; `explained` says whether an entry alone would explain what its group
    holds now. Every acknowledged entry that `kept` says yes to must be left. What is left of one writer is its first
    entries up to some number. And whatever was acknowledged before an entry that is left began, is left too.
    """
    touched = {entry.keys for history in histories.values() for entry in history}
    for keys, entry in before.items():
        assert keys in touched or explained(entry), f"{entry} has changed, and nobody wrote"
    possible = {name: _possible_lengths(history, before, explained) for name, history in histories.items()}
    least = {
        name: max((at for at, entry in enumerate(history, 1) if entry.acknowledged and kept(entry)), default=0)
        for name, history in histories.items()
    }
    while True:
        least = {name: _at_least(name, histories[name], possible[name], number) for name, number in least.items()}
        latest = max((histories[name][number - 1].begun for name, number in least.items() if number), default=-math.inf)
        needed = {
            name: max(least[name], sum(entry.acknowledged and entry.ended < latest for entry in history))
            for name, history in histories.items()
        }
        if needed == least:
            return Survivors(least, {name: lengths[-1] for name, lengths in possible.items()})
        least = needed


def _possible_lengths(
    history: Sequence[Entry], before: Mapping[Keys, Entry], explained: Callable[[Entry], bool]
) -> list[int]:
    """The numbers of first entries that, had they alone been carried out, would explain what is found."""
    possible = [True] * (len(history) + 1)
    last = {entry.keys: (0, before[entry.keys]) for entry in history}

    def rule_out(keys: Keys, until: int) -> None:
        since, entry = last[keys]
        if not explained(entry):
            possible[since:until] = [False] * (until - since)

    for at, entry in enumerate(history, 1):
        rule_out(entry.keys, at)
        last[entry.keys] = at, entry
    for keys in last:
        rule_out(keys, len(history) + 1)
    return [length for length, is_possible in enumerate(possible) if is_possible]


def _at_least(name: str, history: Sequence[Entry], possible: Sequence[int], number: int) -> int:
    found = next((length for length in possible if length >= number), None)
    if found is None:
        acknowledged = sum(entry.acknowledged for entry in history)
        raise AssertionError(
            f"{name}: its first {number} of {acknowledged} acknowledged writes must be there; "
            f"what is there fits these numbers of first writes: {possible}; the last ones: {history[-5:]}"
        )
    return found
