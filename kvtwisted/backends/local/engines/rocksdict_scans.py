"""The scans of rocksdict, by calls that RocksDB is done with soon. See Note [Scans over deleted keys].

Note [Pairs in bulk]: rocksdict's `items()` makes pairs in half the time that its iterator's `key`, `value` and `next`
take; but it ends at a damaged block, or where RocksDB gives up, as if that were all. So once a scan turns out not to be
short, `items()` reads on from where the iterator is, if it has the same view: no write has come in between, as
RocksDB's sequence number tells. The iterator goes on where `items()` has stopped, and so has the last word.
"""

from __future__ import annotations

import time
from typing import Any, Callable, NamedTuple

from rocksdict import Rdict, RdictIter, ReadOptions

from .engine import Crossed, ScanUnfinished
from .pieces import LIVING, SKIPS, Pieces
from .scans import LARGE, TAKEN_BYTES, Pair, Scans, next_pairs

#: What RocksDB says of a seek that has read over more than it may.
_GIVEN_UP = "Too many internal keys skipped"
#: Pairs that must be asked for at once for `items()` to pay, which has to seek.
_MANY = 32
#: Newer keys in a row that a scan lands at, among deleted ones, before it tells that they are there: at each RocksDB
#: reads over SKIPS of those.
PATIENCE = 64
#: After every key: the longest, and the deadline before it in the expiry index, have fewer bytes.
AFTER_ALL = b"\xff" * 1040


class Among(NamedTuple):
    """What a scan does among more deleted keys than RocksDB reads over in one call.

    It calls `crowded` once, if there is time left, and `crossed` as `Engine.scan` says. It raises ScanUnfinished when
    it is `until` (a time of `time.monotonic`), and what the `scans` are ended with when that happens.
    """

    scans: Scans
    crowded: Callable[[], None]
    until: float
    crossed: Crossed


def _bounds(end: bytes | None, *, limited: bool = True) -> ReadOptions:
    """An iterator holds what it was given, and so the bound that RocksDB looks at."""
    bounds = ReadOptions()
    if end is not None:
        bounds.set_iterate_upper_bound(end)
    if limited:
        bounds.set_max_skippable_internal_keys(SKIPS)
    return bounds


class Forwards:
    """The pairs of one range, from the view of when this is made. One thread at a time.

    Once anything goes wrong it holds nothing of the database, since a stored traceback keeps its frames, and so this.
    """

    __slots__ = (
        "_among", "_end", "_ended", "_family", "_in_vain", "_items", "_iterator", "_landed", "_may_be_long", "_pieces",
        "_place", "_sought", "_start", "_written",
    )  # fmt: skip

    def __init__(self, family: Rdict, start: bytes, end: bytes | None, among: Among) -> None:
        self._family = family
        self._start = start
        self._end = end
        self._among = among
        self._ended = among.scans.ended
        self._pieces: Pieces | None = None
        self._items: Any = None
        # Whether pairs in bulk may pay: None once that was decided.
        self._may_be_long: bool | None = False
        # The last key that was found by a later view; and how many of those were not in this one since the last pair.
        self._landed: bytes | None = None
        self._in_vain = 0
        # Up to where the range has been taken, and whether the iterator is there.
        self._place = self._first()
        self._sought = False
        self._written = family.latest_sequence_number()
        self._iterator: RdictIter = family.iter(_bounds(end))

    def take(self, most: int) -> list[Pair]:
        """See `Pairs.take`."""
        try:
            return self._taken(most)
        except BaseException:
            self._family = self._iterator = self._items = None  # type: ignore[assignment]
            raise

    def seek(self, place: bytes) -> None:
        """See `Pairs.seek`. RocksDB is not asked before pairs are taken."""
        self._items = None
        self._place = place
        self._sought = False

    def _taken(self, most: int) -> list[Pair]:
        if self._may_be_long and most >= _MANY:
            self._may_be_long = None
            items = self._in_bulk()
            if self._family.latest_sequence_number() == self._written:
                self._items = items
                self._sought = False
        if self._items is not None:
            pairs = self._of_bulk(most)
            if pairs:
                self._place = self._behind(pairs[-1][0])
                return pairs
            self._items = None
        if not self._sought:
            self._seek()
            self._sought = True
        while not (pairs := self._next(most)):
            if not self._gave_up() or not self._cross():
                return []
            self._seek()
        self._place = self._behind(pairs[-1][0])
        if self._may_be_long is not None:
            self._may_be_long = len(pairs) == most and len(pairs[-1][1]) < LARGE
        return pairs

    def _gave_up(self) -> bool:
        """Whether there is no next pair since RocksDB has read over too many deleted keys."""
        try:
            self._iterator.status()
        except Exception as error:
            if _GIVEN_UP not in str(error):
                raise
            return True
        return False

    def _cross(self) -> bool:
        """Move the place to the next living key; False when there is none. See Note [Scans over deleted keys]."""
        among, pieces = self._among, self._pieces
        if pieces is None:
            if among.until > time.monotonic():
                among.crowded()
            pieces = self._pieces = Pieces(self._start, self._end, reverse=self._reverse)
        elif self._landed is not None and self._place == self._at(self._landed):
            # A newer key: this view has nothing there.
            self._place = self._behind(self._landed)
            self._in_vain += 1
            if self._in_vain > PATIENCE:
                among.crossed(self._landed, self._landed + b"\0")
        else:
            self._in_vain = 0
        pieces.begin(self._place)
        while True:
            if among.scans.ended != self._ended:
                raise among.scans.why()
            if time.monotonic() > among.until:
                # It may be the empty key: then nothing was seen.
                raise ScanUnfinished(AFTER_ALL if pieces.reached is None else pieces.reached)
            known, key = self._living(pieces)
            if not known:
                pieces.given_up()
                continue
            if key is not None:
                among.crossed(*self._before(key, pieces))
                self._landed, self._place = key, self._at(key)
                return True
            among.crossed(pieces.low, pieces.high)
            if pieces.last:
                return False
            pieces.passed()

    # What goes the other way in reverse.

    _reverse = False

    def _first(self) -> bytes | None:
        return self._start

    def _seek(self) -> None:
        # The seek is the lower bound.
        self._iterator.seek(self._place or b"")

    def _next(self, most: int) -> list[Pair]:
        """The next pairs; fewer at the end, or before what cannot be read."""
        iterator = self._iterator
        key_here, value_here, step = iterator.key, iterator.value, iterator.next
        pairs: list[Pair] = []
        size = 0
        while len(pairs) < most and (key := key_here()) is not None:
            pairs.append((key, value_here()))
            step()
            size += len(pairs[-1][1])
            if size >= TAKEN_BYTES:
                break
        return pairs

    def _in_bulk(self) -> Any:
        return self._family.items(from_key=self._place, read_opt=_bounds(self._end))

    def _of_bulk(self, most: int) -> list[Pair]:
        return next_pairs(self._items, most)

    def _behind(self, key: bytes) -> bytes:
        """The place for who has taken that key."""
        return key + b"\0"

    def _at(self, key: bytes) -> bytes:
        """The place for who is to take that key next."""
        return key

    def _before(self, key: bytes, pieces: Pieces) -> tuple[bytes, bytes | None]:
        """The part of a piece that lies before that key."""
        return pieces.low, key

    def _living(self, pieces: Pieces) -> tuple[bool, bytes | None]:
        """The first living key of the present piece, with True; (False, None) when it has to be given up."""
        probe = self._family.iter(_bounds(pieces.high, limited=pieces.limited))
        try:
            with self._among.scans.turns:
                probe.seek(pieces.low)
            key: bytes | None = probe.key()
            if key is None:
                probe.status()
            return True, key
        except Exception as error:
            if _GIVEN_UP not in str(error):
                raise
            return False, None
        finally:
            del probe


class Backwards(Forwards):
    """The same from the last key to the first. Its place is before which keys are taken; None: before no key."""

    __slots__ = ()

    _reverse = True

    def _first(self) -> bytes | None:
        return self._end

    def _seek(self) -> None:
        if self._place is None:
            self._iterator.seek_to_last()
            return
        self._iterator.seek_for_prev(self._place)
        if self._iterator.key() == self._place:
            self._iterator.prev()

    def _next(self, most: int) -> list[Pair]:
        iterator, lowest = self._iterator, self._start
        key_here, value_here, step = iterator.key, iterator.value, iterator.prev
        pairs: list[Pair] = []
        size = 0
        # Rocksdict has no lower bound.
        while len(pairs) < most and (key := key_here()) is not None and key >= lowest:
            pairs.append((key, value_here()))
            step()
            size += len(pairs[-1][1])
            if size >= TAKEN_BYTES:
                break
        return pairs

    def _in_bulk(self) -> Any:
        items = self._family.items(backwards=True, from_key=self._place, read_opt=_bounds(self._end))
        next(items, None)  # the key that was taken last
        return items

    def _of_bulk(self, most: int) -> list[Pair]:
        pairs = next_pairs(self._items, most)
        while pairs and pairs[-1][0] < self._start:
            pairs.pop()
        return pairs

    def _behind(self, key: bytes) -> bytes:
        return key

    def _at(self, key: bytes) -> bytes:
        return key + b"\0"

    def _before(self, key: bytes, pieces: Pieces) -> tuple[bytes, bytes | None]:
        return key + b"\0", pieces.high

    def _living(self, pieces: Pieces) -> tuple[bool, bytes | None]:
        """The last living key of it, which is read forwards."""
        probe = self._family.iter(_bounds(pieces.high, limited=pieces.limited))
        last: bytes | None = None
        read = 0
        try:
            with self._among.scans.turns:
                probe.seek(pieces.low)
                while (key := probe.key()) is not None:
                    last = key
                    read += 1
                    if read > LIVING and pieces.limited:
                        return False, None
                    probe.next()
            probe.status()
            return True, last
        except Exception as error:
            if _GIVEN_UP not in str(error):
                raise
            return False, None
        finally:
            del probe
