"""An open database of lbry-rocksdb, of which nothing is used or freed once it is closed: that would end the process."""

from __future__ import annotations

from contextlib import suppress
from operator import methodcaller
from typing import Any, Callable, TypeVar

import rocksdb

from .reopening import READ_PATIENCE, Calls
from .scans import Pair, next_pairs
from .translate import EngineReopening

T = TypeVar("T")


class OpenDatabase:
    """A database with its column families. Its calls are counted; its iterators and snapshots end before it is closed.

    No variable holds an iterator or a snapshot: a stored traceback would keep its frame, and so them.
    """

    def __init__(self, native: Any, handles: dict[str, Any]) -> None:
        self._native = native
        self.handles = handles
        self._calls = Calls()
        # What outlives a call. It is freed within counted calls too, or by `shut`.
        self._natives: dict[object, Any] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The method of that name, counted."""
        method = getattr(self._native, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._calls:
                return method(*args, **kwargs)

        setattr(self, name, call)
        return call

    def snapshot(self) -> Held:
        """A snapshot, for `multi_get`."""
        with self._calls:
            return self._hold(self._native.snapshot())

    def multi_get(self, keys: Any, *, snapshot: Held | None = None, **options: Any) -> Any:
        """The values at `keys`."""
        with self._calls:
            if snapshot is None:
                return self._native.multi_get(keys, **options)
            if snapshot.token not in self._natives:
                raise EngineReopening  # it is of a database that is closed by now
            return self._native.multi_get(keys, snapshot=self._natives[snapshot.token], **options)

    def iteritems(self, *args: Any, reverse: bool = False, **options: Any) -> Held:
        """An iterator over pairs, in reverse if that is asked for."""
        with self._calls:
            native = self._native.iteritems(*args, **options)
            return self._hold(reversed(native) if reverse else native)

    def lend(self, use: Callable[[Any], T]) -> T:
        """Call `use` with the binding's own object, as one counted call, and return its result."""
        with self._calls:
            return use(self._native)

    def shut(self) -> None:
        """Close the database once no call is under way. Raises StorageError when they do not end; it stays open."""
        self._calls.stop(READ_PATIENCE)
        self._natives.clear()
        self._native.close()

    def stands_still(self, copy: OpenDatabase, /) -> bool:
        """Whether late callers, who still hold this, can write no more. The binding cannot tell what `copy` has."""
        try:
            self.write(rocksdb.WriteBatch())
        except Exception:
            return True
        return False

    def _hold(self, native: Any) -> Held:
        token = object()
        self._natives[token] = native
        return Held(self, token)

    def use(self, token: object, call: Callable[[Any], T]) -> T:
        """Call `call` with the iterator of that token, as one counted call, and return its result."""
        with self._calls:
            return call(self._natives[token])

    def release(self, token: object) -> None:
        """Free what the token stands for, unless that is done."""
        with suppress(EngineReopening), self._calls:
            self._natives.pop(token, None)


class Held:
    """An iterator or a snapshot, which goes when this goes."""

    def __init__(self, owner: OpenDatabase, token: object) -> None:
        self._owner = owner
        self.token = token

    def seek(self, key: bytes) -> None:
        """See the binding's iterator."""
        self._owner.use(self.token, methodcaller("seek", key))

    def seek_back(self, key: bytes | None) -> None:
        """Go to the last pair up to that key, or to the last of all."""
        go = methodcaller("seek_to_last") if key is None else methodcaller("seek_for_prev", key)
        self._owner.use(self.token, go)

    def take(self, most: int, plain: bool) -> list[Pair]:
        """See `Pairs.take`; not `plain`: the binding's iterator has key and handle where others have the key."""

        def take(native: Any) -> list[Pair]:
            return next_pairs(native if plain else ((key, value) for (_, key), value in native), most)

        return self._owner.use(self.token, take)

    def __del__(self) -> None:
        """Free it within a counted call."""
        self._owner.release(self.token)


class RangeIterator:
    """The pairs of one range. One thread at a time."""

    def __init__(self, iterator: Held, start: bytes, end: bytes | None, *, plain: bool, reverse: bool) -> None:
        self._iterator = iterator
        self._start = start
        self._plain = plain
        self._reverse = reverse
        # Where it is to be sought, before it is read on.
        self._unsought = True
        self._place = end if reverse else start

    def take(self, most: int) -> list[Pair]:
        """See `Pairs.take`."""
        place = self._place
        if not self._unsought:
            pairs = self._iterator.take(most, self._plain)
        elif self._reverse:
            self._iterator.seek_back(place)
            pairs = self._iterator.take(most, self._plain)
            if pairs and pairs[0][0] == place:
                pairs = pairs[1:] or self._iterator.take(most, self._plain)
        else:
            # The seek is the lower bound of a forward scan; the binding leaks the memory of one that is set.
            self._iterator.seek(place or b"")
            pairs = self._iterator.take(most, self._plain)
        self._unsought = False
        while self._reverse and pairs and pairs[-1][0] < self._start:
            pairs.pop()
        return pairs

    def seek(self, place: bytes) -> None:
        """See `Pairs.seek`."""
        self._place = place
        self._unsought = True
