"""How much a principal may keep, and how much that is now, approximately.

Note [What a quota counts]: all that lies under the prefixes that its principal may write, whoever wrote it: bytes of
keys and values as clients know them, and keys. What lies under the prefixes of several counts for each of them.

Note [How exact it is]: what a principal with a quota writes is weighed before (what was there is looked up) and counted
when it is let in. What others write and delete there, what expires, and what a crash leaves open, is seen by the
recount, which comes round in the background. So between two rounds the figure is wrong by what others changed; and a
round itself by what is written to the few hundred keys that it reads in that moment. Writes of one key that are under
way together may overtake each other, and some may fail: then what is there is looked up once they have ended. Before
the first round after a start nothing is known, and only what is written since then counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import NamedTuple

from ..commands.command import Change
from ..core.errors import QuotaExceeded

#: Keys whose changes are remembered while sizes are looked up; with more they are looked up again.
MAX_CHANGED = 10_000


class Quota(NamedTuple):
    """Bytes of keys and values, and keys; 0 is no limit."""

    bytes: int = 0
    keys: int = 0


class Part(NamedTuple):
    """What a write does to one key: how many bytes and keys it adds, and the bytes that are there afterwards."""

    key: bytes
    size: int
    keys: int
    after: int


class Growth(NamedTuple):
    """What a write adds, or with less than 0 takes away, in bytes and keys: in all, and key by key."""

    size: int
    keys: int
    parts: Sequence[Part]


class Doubt(NamedTuple):
    """A key of which nobody knows which write was the last: several were under way, and may have overtaken each other,
    or failed. Of several doubts about a key only the last one is to be resolved.
    """

    key: bytes
    number: int


class _UnderWay:
    """Writes of one key."""

    __slots__ = ("after", "count", "doubts", "keys", "overlap", "size")

    def __init__(self, part: Part) -> None:
        self.count = self.doubts = 0
        #: Whether there were two at once, or one whose size was estimated.
        self.overlap = False
        #: The bytes that are there after the one that began last.
        self.after = 0
        #: What counts as being there: bytes, and 1 for a key.
        self.size = part.after - part.size
        self.keys = int(self.size > 0)


class Usage:
    """The quota of one principal, and what is used of it. Safe from any thread. See Note [How exact it is]."""

    def __init__(self, name: str, quota: Quota, prefixes: Iterable[bytes]) -> None:
        """`prefixes` are those that it may write under."""
        self.name = name
        #: May be replaced at any time.
        self.quota = quota
        #: In order, those that lie in others left out.
        self.prefixes = outermost(prefixes)
        self._lock = Lock()
        self._size = self._keys = 0
        #: Whether a count has ended.
        self.is_counted = False
        #: Writes that were refused, and those of them that the last count knew of. Approximate.
        self.refused = self.refused_then = 0
        # Keys with writes under way, or in doubt.
        self._under_way: dict[bytes, _UnderWay] = {}
        # While sizes are looked up: how often a write began or ended, and for each key when last, if after `_floor`,
        # and the bytes that are there since; None: nobody knows.
        self._looking = self._changes = self._floor = 0
        self._changed: dict[bytes, tuple[int, int | None]] = {}
        # While a count is under way: the key that it has come to, and what changed before that.
        self._reached: bytes | None = None
        self._behind_size = self._behind_keys = 0

    @property
    def size(self) -> int:
        """Bytes in use."""
        return max(0, self._size)

    @property
    def keys(self) -> int:
        """Keys in use."""
        return max(0, self._keys)

    @property
    def fill(self) -> float:
        """The part of the quota that is used; more than 1 when it is exceeded."""
        quota = self.quota
        return max(self.size / quota.bytes if quota.bytes else 0.0, self.keys / quota.keys if quota.keys else 0.0)

    def size_ahead(self, key: bytes) -> int | None:
        """The bytes at `key` after the writes that are under way; None if there are none."""
        found = self._under_way.get(key)
        return None if found is None else found.after

    def growth(self, changes: Sequence[Change], sizes: Sequence[int]) -> Growth:
        """What `changes` add, each of another key, where `sizes` bytes of key and value are stored, 0 for no key."""
        parts = []
        for (key, value, _), size in zip(changes, sizes):
            ahead = self.size_ahead(key)
            before = size if ahead is None else ahead
            after = 0 if value is None else len(key) + len(value)
            parts.append(Part(key, after - before, bool(after) - bool(before), after))
        return _sum(parts)

    def check(self, wanted: Growth) -> None:
        """Raise QuotaExceeded if that is too much. What adds nothing is never too much, however much there is."""
        quota = self.quota
        if quota.bytes and wanted.size > 0 and self.size + wanted.size > quota.bytes:
            self._refuse("bytes", self.size, wanted.size, quota.bytes)
        if quota.keys and wanted.keys > 0 and self.keys + wanted.keys > quota.keys:
            self._refuse("keys", self.keys, wanted.keys, quota.keys)

    def _refuse(self, what: str, used: int, wanted: int, limit: int) -> None:
        self.refused += 1
        raise QuotaExceeded(
            f"over the token's quota: quota.{what} is {limit}, {used} {what} are in use, this write adds {wanted}; "
            "deletes, and writes that add nothing, go on"
        )

    def add(self, grown: Growth) -> None:
        """That is being written; `settle` comes next."""
        with self._lock:
            self._change(grown, 1)
            self._note(grown, failed=False)
            for part in grown.parts:
                way = self._under_way.get(part.key)
                if way is None:
                    way = self._under_way[part.key] = _UnderWay(part)
                else:
                    way.overlap = True
                way.count += 1
                way.after = part.after
                way.size += part.size
                way.keys += part.keys

    def settle(self, grown: Growth, *, failed: bool, is_certain: bool = True) -> list[Doubt]:
        """It was written, or was not; what it added is `is_certain`, or was estimated. Each of these doubts is for
        `resolve`."""
        doubts = []
        with self._lock:
            self._note(grown, failed=failed)
            for part in grown.parts:
                way = self._under_way[part.key]
                way.count -= 1
                way.overlap |= not is_certain
                if failed:
                    way.size -= part.size
                    way.keys -= part.keys
                if not way.count:
                    if way.overlap:
                        way.doubts += 1
                        doubts.append(Doubt(part.key, way.doubts))
                    else:
                        del self._under_way[part.key]
            if failed:
                self._change(grown, -1)
        return doubts

    def resolve(self, doubt: Doubt, size: int | None) -> None:
        """So many bytes are there; None: that cannot be told, and is left to the recount."""
        key, number = doubt
        with self._lock:
            way = self._under_way.get(key)
            if way is None or way.count or way.doubts != number:
                return  # it was written since, so that there is, or will be, another doubt
            del self._under_way[key]
            found = way.size if size is None else size
            grown = _sum([Part(key, found - way.size, bool(found) - way.keys, found)])
            self._note(grown, failed=size is None)
            self._change(grown, 1)

    def begin_look(self) -> int:
        """The sizes of keys are about to be looked up; gives what `end_look` is told then."""
        with self._lock:
            self._looking += 1
            return self._changes

    def end_look(self, began: int, keys: Iterable[bytes], sizes: Sequence[int]) -> Sequence[int] | None:
        """They were, and these were found; gives what is there now, after this principal's writes that began or ended
        since. None if that is not known.
        """
        with self._lock:
            self._looking -= 1
            now = [self._since(began, key, size) for key, size in zip(keys, sizes)] if began >= self._floor else [None]
            if not self._looking:
                self._changed.clear()
        known = [size for size in now if size is not None]
        return known if len(known) == len(now) else None

    def _since(self, began: int, key: bytes, size: int) -> int | None:
        changed, after = self._changed.get(key, (0, None))
        return after if changed > began else size

    def _note(self, grown: Growth, *, failed: bool) -> None:
        self._changes += 1
        if self._looking:
            self._changed.update((part.key, (self._changes, None if failed else part.after)) for part in grown.parts)
            if len(self._changed) > MAX_CHANGED:
                self._changed.clear()
                self._floor = self._changes

    def deleted(self, key: bytes, size: int) -> None:
        """A key went for the room that it took."""
        if key.startswith(self.prefixes):
            with self._lock:
                self._change(Growth(-size, -1, [Part(key, -size, -1, 0)]), 1)

    def _change(self, grown: Growth, times: int) -> None:
        self._size += times * grown.size
        self._keys += times * grown.keys
        if self._reached is not None:
            for part in grown.parts:
                if part.key < self._reached:
                    self._behind_size += times * part.size
                    self._behind_keys += times * part.keys

    # For the recount, which comes to keys in their order.

    def begin_count(self) -> None:
        """A count begins."""
        with self._lock:
            self.refused_then = self.refused
            self._reached = b""
            self._behind_size = self._behind_keys = 0

    def counted_up_to(self, key: bytes) -> None:
        """Everything before `key` has been counted."""
        with self._lock:
            self._reached = key

    def end_count(self, size: int, keys: int) -> None:
        """It has found that much."""
        with self._lock:
            self._size = size + self._behind_size
            self._keys = keys + self._behind_keys
            self._reached = None
            self.is_counted = True


def _sum(parts: Sequence[Part]) -> Growth:
    return Growth(sum(part.size for part in parts), sum(part.keys for part in parts), parts)


def outermost(prefixes: Iterable[bytes]) -> tuple[bytes, ...]:
    """Those prefixes, in order, that lie in none of the others."""
    kept: list[bytes] = []
    for prefix in sorted(set(prefixes)):
        if not (kept and prefix.startswith(kept[-1])):
            kept.append(prefix)
    return tuple(kept)
