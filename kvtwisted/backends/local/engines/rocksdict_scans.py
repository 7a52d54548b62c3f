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

from .engine import ScanUnfinished
from .pieces import SKIPS, Pieces
from .scans import LARGE, TAKEN_BYTES, Chunks, Pair, Scans, next_pairs

#: What RocksDB says of a seek that has read over more than it may.
_GIVEN_UP = "Too many internal keys skipped"
#: Pairs that must be asked for at once for `items()` to pay, which has to seek.
_MANY = 32


class Among(NamedTuple):
    """What a scan does among more deleted keys than RocksDB reads over in one call.

    It calls `crowded` once, if there is time left, and `renewed` as `Engine.scan` says. It raises ScanUnfinished when
    it is `until` (a time of `time.monotonic`), and what the `scans` are ended with when that happens.
    """

    scans: Scans
    crowded: Callable[[], None]
    until: float
    renewed: Callable[[bytes], object]


def _view(family: Rdict, pieces: Pieces) -> tuple[int, RdictIter]:
    """An iterator over the present piece, whose view is that of now; and RocksDB's sequence number just before."""
    written = family.latest_sequence_number()
    return written, family.iter(_bounds(pieces))


def _bounds(pieces: Pieces) -> ReadOptions:
    """For the present piece. An iterator holds what it was given, and so the bound that RocksDB looks at."""
    bounds = ReadOptions()
    if pieces.high is not None:
        bounds.set_iterate_upper_bound(pieces.high)
    if pieces.limited:
        bounds.set_max_skippable_internal_keys(SKIPS)
    return bounds


def chunks(family: Rdict, pieces: Pieces, among: Among) -> Chunks:
    """The pairs of the `pieces`, from the view of the first step while deleted keys are few."""
    start, scans, ended = pieces.low, among.scans, among.scans.ended
    written, iterator = _view(family, pieces)
    items: Any = None
    try:
        most = yield []
        # The seek is the lower bound; with one set and no upper bound rocksdict finds nothing.
        iterator.seek(start)
        while True:
            reached, may_be_long = pieces.low, True
            while taken := _pairs(iterator, most):
                reached = taken[-1][0] + b"\0"
                may_pay = may_be_long and len(taken) == most and len(taken[-1][1]) < LARGE
                most = yield taken
                if may_pay and most >= _MANY:
                    may_be_long = False
                    items = family.items(from_key=reached, read_opt=_bounds(pieces))
                    if family.latest_sequence_number() == written:
                        while taken := next_pairs(items, most):
                            reached = taken[-1][0] + b"\0"
                            most = yield taken
                        iterator.seek(reached)
                    items = None
            try:
                iterator.status()
            except Exception as error:
                if _GIVEN_UP not in str(error):
                    raise
                if pieces.whole and among.until > time.monotonic():
                    among.crowded()
                pieces.given_up(reached)
            else:
                if pieces.last:
                    return
                pieces.passed()
            if scans.ended != ended:
                raise scans.why()
            if time.monotonic() > among.until:
                raise ScanUnfinished(pieces.low)
            if pieces.low > start:
                among.renewed(pieces.low)
            written, iterator = _view(family, pieces)
            with scans.turns:
                iterator.seek(pieces.low)
    finally:
        # A stored traceback keeps this frame; it must not keep what holds the folder's lock.
        del family, iterator, items


def _pairs(iterator: RdictIter, most: int) -> list[Pair]:
    """The next pairs; fewer at the end, or before what cannot be read."""
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
