"""The scans of rocksdict, by calls that RocksDB is done with soon. See Note [Scans over deleted keys]."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from rocksdict import Rdict, RdictIter, ReadOptions

from .engine import ScanUnfinished
from .pieces import SKIPS, Pieces
from .scans import Pair, Scans

#: What RocksDB says of a seek that has read over more than it may.
_GIVEN_UP = "Too many internal keys skipped"


class Among(NamedTuple):
    """What a scan does among more deleted keys than RocksDB reads over in one call.

    It calls `crowded` once, if there is time left, and `renewed` as `Engine.scan` says. It raises ScanUnfinished when
    it is `until` (a time of `time.monotonic`), and what the `scans` are ended with when that happens.
    """

    scans: Scans
    crowded: Callable[[], None]
    until: float
    renewed: Callable[[bytes], object]


def opened(family: Rdict, pieces: Pieces) -> RdictIter:
    """An iterator over the present piece, whose view is that of now. It holds the bounds that RocksDB looks at."""
    bounds = ReadOptions()
    if pieces.high is not None:
        bounds.set_iterate_upper_bound(pieces.high)
    if pieces.limited:
        bounds.set_max_skippable_internal_keys(SKIPS)
    return family.iter(bounds)


def pairs(family: Rdict, iterator: RdictIter, pieces: Pieces, among: Among) -> Iterator[Pair]:
    """The pairs of the `pieces`, of which `iterator` is over the first.

    rocksdict's own `items()` ends at a damaged block as if that were all.
    """
    start, scans, ended = pieces.low, among.scans, among.scans.ended
    key_here: Any
    key_here, value_here, step = iterator.key, iterator.value, iterator.next
    try:
        # The seek is the lower bound; with one set and no upper bound rocksdict finds nothing.
        iterator.seek(start)
        while True:
            last = None
            while (key := key_here()) is not None:
                yield key, value_here()
                last = key
                step()
            try:
                iterator.status()
            except Exception as error:
                if _GIVEN_UP not in str(error):
                    raise
                if pieces.whole and among.until > time.monotonic():
                    among.crowded()
                pieces.given_up(pieces.low if last is None else last + b"\0")
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
            iterator = opened(family, pieces)
            key_here, value_here, step = iterator.key, iterator.value, iterator.next
            with scans.turns:
                iterator.seek(pieces.low)
    finally:
        # A stored traceback keeps this frame; it must not keep what holds the folder's lock.
        del family, iterator, key_here, value_here, step
