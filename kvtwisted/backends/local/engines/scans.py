"""Scans that cannot outlive their database.

A live iterator of rocksdict keeps the folder's lock after `close`; one of lbry-rocksdb, used or freed after `close`,
ends the process with a segmentation fault. So the binding's iterator is owned by a `Scan` alone, every engine keeps its
scans in a `Scans`, and `Scans.end` takes the iterators away before the database is closed.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterator
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any, Callable

from ....core.errors import KvError
from .pieces import FairLock
from .translate import EngineClosed, translated

Pair = tuple[bytes, bytes]
#: Pairs that are read in one go, with Python's lock held, unless they are of values of LARGE bytes and more.
AT_ONCE, LARGE = 32, 8_192
#: Seconds that make a go slow: its pairs need the disk, or lie behind many deleted keys.
SLOW = 0.0001
#: Bytes of values at which no further pairs are taken.
TAKEN_BYTES = 262_144
#: Gives the next pairs: see `Pairs.take`. None of them, or StopIteration, says that there are no more.
Take = Callable[[int], "list[Any]"]
#: The same as a generator, for `sending`: it is sent how many at most. At first it yields what is not looked at.
Chunks = Generator["list[Any]", int, None]


class Scan(Iterator[Pair]):
    """Pairs of one range in order. Use it from one thread at a time; `close` it, exhaust it, or drop it."""

    __slots__ = ("__weakref__", "_path", "_seek", "_take", "_upper_bound")

    def __init__(
        self, take: Take, upper_bound: bytes | None, path: str, seek: Callable[[bytes], object] | None = None
    ) -> None:
        """Own the iterator behind `take` and `seek`.

        `upper_bound` lives as long as the iterator: the bindings give RocksDB its address, not a copy.
        `take` must not leave frames that hold the iterator in the traceback of what it raises.
        """
        self._take = take
        self._seek = seek
        self._upper_bound = upper_bound
        self._path = path

    def take(self, most: int) -> list[Pair]:
        """See `Pairs.take`. Raises StorageError (Corruption for a damaged file), or Unavailable once it was closed."""
        try:
            taken = self._take(most)
        except StopIteration:
            taken = []
        except KvError:
            raise
        except Exception as error:
            raise translated(error, self._path) from None
        if not taken:
            self.close()
        return taken

    def seek(self, place: bytes) -> None:
        """See `Pairs.seek`. Raises as `take` does."""
        seek = self._seek
        if seek is not None:
            try:
                seek(place)
            except Exception as error:
                raise translated(error, self._path) from None
            finally:
                del seek

    def __next__(self) -> Pair:
        """The next pair. Raises as `take` does."""
        for pair in self.take(1):
            return pair
        raise StopIteration

    def end(self, error: type[Exception]) -> None:
        """Release the view because the engine closes: unless it was over, what is taken next is `error`, translated.

        Another thread may be in the midst of pairs. So the bound stays, which its iterator may still look at.
        """
        if self._take is not _over:
            self._take, self._seek = partial(_raise, error), None

    def close(self) -> None:
        """Release the view; the scan is over. Harmless when it already is."""
        self._take, self._seek = _over, None
        self._upper_bound = None


class Scans:
    """The scans of one engine that are still in somebody's hands."""

    def __init__(self, path: str) -> None:
        self._path = path
        # Not a WeakSet, which takes longer than a read does.
        self._live: set[weakref.ref[Scan]] = set()
        #: Of those who read over many deleted keys; see Note [Scans over deleted keys].
        self.turns = FairLock()
        #: Times that all scans have been ended, and what the last time was for: a scan that is at it for long looks.
        self.ended = 0
        self.why: type[Exception] = EngineClosed

    def start(
        self, take: Take, upper_bound: bytes | None = None, seek: Callable[[bytes], object] | None = None
    ) -> Scan:
        """A scan over `take` and `seek` (see `Scan`), which `end` ends if nobody has dropped it."""
        scan = Scan(take, upper_bound, self._path, seek)
        self._live.add(weakref.ref(scan, self._live.discard))
        return scan

    def end(self, error: type[Exception] = EngineClosed) -> None:
        """End every live scan, so that nothing of the database is held once those in use have got their pairs."""
        self.why = error
        self.ended += 1
        for reference in list(self._live):
            scan = reference()
            if scan is not None:
                scan.end(error)


def next_pairs(iterator: Iterator[Pair], most: int) -> list[Pair]:
    """The next pairs of an iterator, some in one go, without a step of Python for each.

    The size of one pair of each go stands for that of all, and tells how many may be in the next. Which one it is,
    nobody can foretell: hashes are different in each process. After a slow go the next is of one pair; only after a
    short one it has more.
    """
    pairs: list[Pair] = []
    size, at_once, began = 0, 1, monotonic()
    while size < TAKEN_BYTES and (missing := most - len(pairs)):
        taken = list(islice(iterator, min(missing, at_once)))
        if not taken:
            break
        pairs += taken
        value_bytes = len(taken[hash(taken[-1][0]) % len(taken)][1])
        size += len(taken) * value_bytes
        now = monotonic()
        if value_bytes >= LARGE or now - began > SLOW:
            at_once = 1
        elif 8 * (now - began) < SLOW:
            at_once = min(8 * at_once, AT_ONCE)
        began = now
    return pairs


def sending(chunks: Chunks) -> Take:
    """What takes pairs from a generator. Nobody else may hold it."""
    next(chunks)
    return chunks.send


def _over(most: int) -> list[Pair]:
    return []


def _raise(error: type[Exception], most: int) -> list[Pair]:
    raise error
