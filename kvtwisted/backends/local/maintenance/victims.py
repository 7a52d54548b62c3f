"""Which keys are evicted, in which order: nominates batches of keys. Only reads.

One `Victims` keeps where the clock hands stand; a shallow copy of it walks on without moving them (for a dry run).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import copy
from functools import partial
from typing import Any, Callable, NamedTuple, Protocol

from ....commands.ranges import prefix_end
from .. import records
from ..engines.engine import DATA, EXPIRY, Engine, first_pairs
from ..write_sequence import WriteSequence

#: Reasons, as the metrics name them.
ORPHAN, EXPIRED, LRU, OLDEST, TTL = "orphan", "expired", "lru", "oldest", "ttl"

#: Ranges of keys that `Touched` gives, at most.
MOST_RANGES = 32


def _any_key(key: bytes) -> bool:
    return True


class Share(Protocol):
    """What somebody may keep: a quota. Any thread."""

    @property
    def prefixes(self) -> tuple[bytes, ...]:
        """The keys that it is for begin with one of these. In order, none within another; there is one at least."""

    @property
    def fill(self) -> float:
        """The part of it that is used; more than 1 when it is exceeded."""

    def deleted(self, key: bytes, size: int) -> None:
        """A key, whoever it counts for, gave back so many bytes."""


class Nomination(NamedTuple):
    """Keys that may go, why, and the deadline in ms that each one's record must still carry (None: whatever it is).

    `chosen` tells whether a key is to go: to be asked once more when it is guarded, since it may have been rewritten
    between its nomination and that.
    """

    reason: str
    keys: Mapping[bytes, int | None]
    chosen: Callable[[bytes], bool] = _any_key


class _Round(NamedTuple):
    """A round of the policy `oldest`: keys up to this number go; where it began, and whether it has passed the end."""

    number: int
    start: bytes
    wrapped: bool


class Victims:
    """Nominates victims by policy. One thread at a time; blocks on the engine.

    A nomination is done with when the next one is asked for; whoever stops before that finds it again next time. With
    `family` FILES only keys with large values are nominated, else (DATA) all.
    """

    def __init__(
        self,
        engine: Engine,
        used_lately: Callable[[bytes], bool],
        write_sequence: WriteSequence,
        family: str = DATA,
        *,
        start: bytes = b"",
        end: bytes | None = None,
        among: Callable[[bytes], bool] = _any_key,
    ) -> None:
        """By policy only keys from `start` to `end` are nominated, of which `among` says yes."""
        self._engine = engine
        self._used_lately = used_lately
        self._write_sequence = write_sequence
        self._family = family
        self._start, self._end, self._among = start, end, among
        self._hand = start
        self._round: _Round | None = None
        # No key's number is as low as this or lower: a whole round has taken them.
        self._done = -1

    def expired(self, now_ms: int, size: int) -> Iterator[Nomination]:
        """Keys whose deadline has been reached, soonest first."""
        yield from self._by_deadline(EXPIRED, b"", records.index_start(now_ms + 1), size, _any_key)

    def by_policy(self, policy: str, now_ms: int, size: int, *, dry: bool = False) -> Iterator[Nomination]:
        """Keys by policy. Unless `dry` the caller deletes what is nominated before it asks for more."""
        if policy == TTL:
            yield from self._by_deadline(TTL, records.index_start(now_ms + 1), None, size, self._among)
        elif policy == OLDEST:
            yield from self._oldest(size)
        elif policy == LRU:
            yield from self._lru(size, lambda key: not self._used_lately(key))
            # What is left was used lately; a dry run must not name the others twice.
            yield from self._lru(size, self._used_lately if dry else _any_key)

    def _by_deadline(
        self, reason: str, start: bytes, end: bytes | None, size: int, among: Callable[[bytes], bool]
    ) -> Iterator[Nomination]:
        while True:
            entries = [records.split_index_key(entry) for entry, _ in self._first(start, end, EXPIRY, size)]
            if not entries:
                return
            start = records.index_key(*entries[-1]) + b"\0"
            yield Nomination(reason, {key: deadline for deadline, key in entries if among(key)})

    def _lru(self, size: int, chosen: Callable[[bytes], bool]) -> Iterator[Nomination]:
        """Once round the key space from where the hand stands."""
        start = self._hand
        for low, end in ((start, self._end), (self._start, start)):
            self._hand = low
            while keys := self._next_keys(end, size):
                yield Nomination(LRU, {key: None for key in keys if self._among(key) and chosen(key)}, chosen)
                self._hand = keys[-1] + b"\0"

    def _oldest(self, size: int) -> Iterator[Nomination]:
        """Rounds over the key space. Each takes what was written last before a moment that lies so that about one in
        SHARE of what is left is older; a round that ends early goes on where it stopped."""
        while True:
            if self._round is None:
                number = self._write_sequence.oldest_share(self._done) if self._done >= 0 else 0
                if number <= self._done:
                    return
                self._round = _Round(number, self._hand, False)
            number, start, wrapped = self._round
            due = partial(self._is_due, number)
            while keys := self._next_keys(start if wrapped else self._end, size):
                yield Nomination(OLDEST, {key: None for key in keys if self._among(key) and due(key)}, due)
                self._hand = keys[-1] + b"\0"
            self._hand = self._start
            if wrapped or start == self._start:
                self._hand, self._round, self._done = start, None, number
            else:
                self._round = _Round(number, start, True)

    def _is_due(self, number: int, key: bytes) -> bool:
        # Those up to `_done` are gone, or not yet if this is a dry run, which has named them.
        return self._done < self._write_sequence.number(key) <= number

    def _next_keys(self, end: bytes | None, size: int) -> list[bytes]:
        return [key for key, _ in self._first(self._hand, end, self._family, size)]

    def _first(self, start: bytes, end: bytes | None, family: str, size: int) -> list[tuple[bytes, bytes]]:
        return first_pairs(self._engine.scan(start, end, family), size) if end is None or start < end else []


class InShares:
    """Nominates by policy where there are shares: first who has more than theirs, then what is in nobody's share, and
    then in turns, so that the part that is used of each sinks evenly: always in that of which most is used.

    A key that is in several shares counts, here, for the one with the longest prefix.
    """

    def __init__(self, make: Callable[..., Victims], shares: Collection[Share]) -> None:
        """`make` makes a `Victims` for a part of the keys."""
        prefixes = sorted({prefix for share in shares for prefix in share.prefixes})
        #: What it stands for.
        self.shares = tuple(shares)
        covered = tuple(prefixes)
        self._uncovered = make(among=lambda key: not key.startswith(covered))
        self._walks = {share: make(**_part(share.prefixes, prefixes)) for share in shares}

    def by_policy(self, policy: str, now_ms: int, size: int, *, dry: bool = False) -> Iterator[Nomination]:
        """See `Victims.by_policy`."""
        walks = {
            share: (copy(victims) if dry else victims).by_policy(policy, now_ms, size, dry=dry)
            for share, victims in self._walks.items()
        }
        yield from _fullest_first(walks, 1.0)
        uncovered = copy(self._uncovered) if dry else self._uncovered
        yield from uncovered.by_policy(policy, now_ms, size, dry=dry)
        yield from _fullest_first(walks, -1.0)


class Nominator:
    """Nominates expired keys, and then by policy, in shares where there are any. One thread at a time."""

    def __init__(self, make: Callable[..., Victims], shares: Callable[[], Collection[Share]]) -> None:
        """`make` makes a `Victims` for a part of the keys; without a part, for all."""
        self._make = make
        self._all = make()
        self._shares = shares
        self._in_shares = InShares(make, ())

    def nominations(
        self, policy: str, now_ms: int, size: int, protected: tuple[bytes, ...] = (), *, dry: bool
    ) -> Iterator[Nomination]:
        """Unless `dry` the caller deletes what is nominated before it asks for more, and tells `deleted`. By policy
        no key goes that begins with one of the `protected` prefixes."""
        yield from self._all.expired(now_ms, size)
        for nomination in self._by_policy(policy, now_ms, size, dry=dry):
            keys = {key: deadline for key, deadline in nomination.keys.items() if not key.startswith(protected)}
            yield nomination._replace(keys=keys)

    def _by_policy(self, policy: str, now_ms: int, size: int, *, dry: bool) -> Iterator[Nomination]:
        shares = self._shares_now()
        if not shares:
            return (copy(self._all) if dry else self._all).by_policy(policy, now_ms, size, dry=dry)
        if shares != self._in_shares.shares:
            self._in_shares = InShares(self._make, shares)
        return self._in_shares.by_policy(policy, now_ms, size, dry=dry)

    def deleted(self, sizes: Mapping[bytes, int]) -> None:
        """These keys were deleted, with so many bytes each."""
        for share in self._shares_now():
            for key, size in sizes.items():
                share.deleted(key, size)

    def _shares_now(self) -> tuple[Share, ...]:
        return tuple(share for share in self._shares() if share.prefixes)


def _part(own: tuple[bytes, ...], prefixes: Iterable[bytes]) -> dict[str, Any]:
    """Where the keys of a share are, of all `prefixes` that there are shares for."""
    inner = tuple(prefix for prefix in prefixes if prefix.startswith(own) and prefix not in own)

    def among(key: bytes) -> bool:
        return key.startswith(own) and not key.startswith(inner)

    return {"start": own[0], "end": prefix_end(own[-1]), "among": among}


def _fullest_first(walks: dict[Share, Iterator[Nomination]], least: float) -> Iterator[Nomination]:
    """As long as any is used for more than `least` of it. What has no more to give is dropped."""
    while walks:
        share = max(walks, key=lambda share: share.fill)
        if share.fill <= least:
            return
        nomination = next(walks[share], None)
        if nomination is None:
            del walks[share]
        else:
            yield nomination


def outside(prefixes: Iterable[bytes]) -> Iterator[tuple[bytes, bytes | None]]:
    """Where the keys lie that begin with none of these prefixes: from the one on and before the other, in order."""
    start: bytes | None = b""
    for prefix in sorted(prefixes):
        if start is None:
            return
        if prefix >= start:
            if prefix > start:
                yield start, prefix
            start = prefix_end(prefix)
    if start is not None:
        yield start, None


class Touched:
    """Ranges of keys that hold those that were deleted, a bounded number of them.

    Several small ranges and not one large one, since each compaction needs room for what it writes until it is done.
    """

    def __init__(self) -> None:
        self._ranges: list[tuple[bytes, bytes]] = []

    def add(self, keys: Iterable[bytes]) -> None:
        """These keys were deleted."""
        self._ranges += [(key, key) for key in keys]
        if len(self._ranges) > 64 * MOST_RANGES:
            self._ranges = self.ranges()

    def ranges(self) -> list[tuple[bytes, bytes]]:
        """First and last key of each range, MOST_RANGES at most, in order and apart from each other."""
        apart: list[tuple[bytes, bytes]] = []
        for low, high in sorted(self._ranges):
            if apart and low <= apart[-1][1]:
                low, high = apart[-1][0], max(high, apart.pop()[1])
            apart.append((low, high))
        size = -(-len(apart) // MOST_RANGES)
        return [(apart[n][0], apart[min(n + size, len(apart)) - 1][1]) for n in range(0, len(apart), size or 1)]
