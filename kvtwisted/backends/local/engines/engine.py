"""The engine Protocol: what the store needs of an ordered byte map, and nothing of any binding.

What only some engines can do is a Protocol of its own (`CanPeek`, `CanCompact`, ...). Who uses it asks with isinstance,
not at each request, and sees to what there is without. An engine that lacks something has no method for it.

Three implementations stand beside this module; one contract suite (`tests/backends/local/engines/`) runs over all.

Every method may block and may be called from any thread, except that `close` is called once, when no other call runs.
Every failure is a `kvtwisted.core.errors.StorageError` (or `Unavailable` once closed).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Callable, Optional, Protocol, runtime_checkable

from ....core.errors import DeadlineExceeded

#: Column family of the records, keyed by the user's key. Its name is RocksDB's own for the first family.
DATA = "default"
#: Column family of the expiry index: big-endian milliseconds, then the user's key; empty values.
EXPIRY = "expiry"
#: Column family of the server's own few entries (format version, clock mark).
META = "meta"

#: Column family of the large values' pointers by key, for whom the record alone would be slow to find.
FILES = "files"

FAMILIES = (DATA, EXPIRY, META, FILES)
#: All but the one that RocksDB makes by itself.
OTHER_FAMILIES = FAMILIES[1:]

#: Values that an engine may read ahead of a `multi_get`'s budget.
READ_AHEAD = 64

#: One change: family, key, and the new value, or None to delete.
Mutation = tuple[str, bytes, Optional[bytes]]


#: Says whether a value counts, for `Engine.multi_get`.
Keep = Callable[[bytes], bool]
#: Told of a part of a scan's range, from the first key on and before the second, for `Engine.scan`.
Crossed = Callable[[bytes, Optional[bytes]], object]

#: What DeadlineExceeded says of a scan.
TOO_LONG = "the scan took longer than the request's time; ask for less with limit and cursor"


class ScanUnfinished(DeadlineExceeded):
    """A scan's time ran out among deleted keys. Every key of its range before `reached` has been read; of one in
    reverse, every key from there on."""

    def __init__(self, reached: bytes) -> None:
        super().__init__(TOO_LONG)
        self.reached = reached


def everything(value: bytes) -> bool:
    """Says yes to every value, for `Engine.multi_get`."""
    return True


def nothing() -> None:
    """Does nothing, for `CanReopen.reopen`."""


def ignored(low: bytes, high: bytes | None) -> None:
    """Does nothing, for `Engine.scan`."""


class Pairs(Protocol):
    """What a scan gives: pairs in its order, one by one or some at a time. Use it from one thread at a time.

    Exhaust it or let go of it to release its view.
    """

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Itself."""

    def __next__(self) -> tuple[bytes, bytes]:
        """The next pair."""

    def take(self, most: int) -> list[tuple[bytes, bytes]]:
        """The next pairs, from one to `most`; none once it is over. Fewer where the values are large."""

    def seek(self, place: bytes) -> None:
        """Leave out all before `place`, in the same view: it goes on with the first key from there on.

        One in reverse goes on with the last key before it. It is never behind what was taken, and does nothing once the
        scan is over.
        """


def first_pairs(scan: Pairs, most: int) -> list[tuple[bytes, bytes]]:
    """The next pairs, `most` of them unless there are fewer: quicker than one by one."""
    pairs: list[tuple[bytes, bytes]] = []
    while len(pairs) < most and (taken := scan.take(most - len(pairs))):
        pairs += taken
    return pairs


class Engine(Protocol):
    """An ordered byte map with a few column families, atomic batches and consistent reads."""

    @property
    def name(self) -> str:
        """The word that `storage.engine` uses for this engine."""

    @property
    def version(self) -> str:
        """The binding and its version, for build information and the start-up log."""

    @property
    def is_persistent(self) -> bool:
        """Whether it keeps what it is given, in a folder of its own: without, there is no disk to look after."""

    @property
    def writes_wait(self) -> bool:
        """Whether `write` may wait while RocksDB delays or stops writes, instead of raising WriteStalled."""

    @property
    def scans_wait(self) -> bool:
        """Whether other Python code runs while a scan waits for the disk. Where it does not, a thread is no help."""

    def get(self, key: bytes, family: str = DATA) -> bytes | None:
        """The value at `key`, or None."""

    def multi_get(self, keys: Sequence[bytes], budget: int, keep: Keep = everything) -> list[bytes | None]:
        """The DATA values at `keys`, in their order, all from one consistent view; None where there is none.

        `budget` bounds memory: once the values exceed that many bytes, `ResponseTooLarge` is raised instead of reading
        on (an engine may read up to READ_AHEAD values ahead of the check). A value that `keep` says no to does not
        count for that, and may be None in the answer. No more than READ_AHEAD keys are read fastest.
        """

    def scan(
        self, start: bytes, end: bytes | None, family: str = DATA, until: float = math.inf, crossed: Crossed = ignored,
        *, reverse: bool = False,
    ) -> Pairs:  # fmt: skip
        """Pairs with start <= key < end in byte order (end None: to the last), from one view taken by this call.

        With `reverse` from the last to the first. RocksDB is given the end as its bound, and the start to seek, so that
        a scan never reads past its range; one in reverse may look at some more.

        However many deleted keys lie in between, no other Python code waits for RocksDB to read over all of them. For
        that an engine may look for the next living key among them by later views: `crossed` is told of each part of the
        range in which nothing lives in such a view, as soon as that is known. So all pairs are those of the first view
        unless keys of such a part have been written between that and now. It may be told of keys, too, that only live
        in the later view, if that makes its way long. It may raise a KvError, which ends the scan.
        Once it is `until` (a time of `time.monotonic`) among them, ScanUnfinished is raised instead.
        """

    def write(self, mutations: Sequence[Mutation]) -> None:
        """Apply all mutations atomically, in order. Survives the end of the process; see `sync` for power loss.

        Raises `WriteStalled` instead of waiting while RocksDB delays or stops writes (where the binding can tell).
        """

    def sync(self) -> None:
        """Return once every earlier `write` would survive a power loss (fsync of the write-ahead log).

        At once where nothing is persistent.
        """

    def close(self) -> None:
        """Flush where the binding can, release the folder's lock, and refuse every later call with Unavailable."""


@runtime_checkable
class CanPeek(Protocol):
    """Tells what memory has, apart from what the disk has."""

    def peek(self, key: bytes) -> tuple[bool, bytes | None]:
        """The DATA value at `key` if that can be told without reading the disk: (True, the value or None).

        (False, None) when only `get` can tell. Never blocks.
        Source: RocksDB's DB::KeyMayExist, which looks at memtables, filters and the block cache alone.
        """


@runtime_checkable
class CanDeleteRange(Protocol):
    """Deletes a range of keys without being told each."""

    def delete_range(self, start: bytes, end: bytes | None) -> None:
        """Delete all start <= key < end (end None: to the last) from DATA and FILES, atomically. As `write` otherwise.

        However many they are, it takes no time. Their space comes back by `CanCompact.compact`.
        """


@runtime_checkable
class CanCompact(Protocol):
    """Keeps what was deleted or overwritten until it is compacted away."""

    def compact(self, start: bytes, end: bytes, family: str = DATA) -> None:
        """Compact a range of one family and flush the others. Blocks until done.

        That gives back the space of deleted keys, and of the write-ahead log, which goes when no family needs it.
        """


@runtime_checkable
class CanCheckpoint(Protocol):
    """Copies itself while it is open."""

    @property
    def copies(self) -> int:
        """How many times over `checkpoint` writes the whole database on the data's disk, at the moment that it takes
        most; 0 where it makes hard links, if the file system has them."""

    def checkpoint(self, folder: str) -> None:
        """Make a copy of the database in `folder`, which must not exist, from one moment within this call.

        Every write that returned before is in it, each batch whole or not at all; reads and writes go on. `folder`
        should be on the file system of the data, or whole files are copied while Python's lock may be held. It is
        opened like any data folder. Raises StorageError, or WriteStalled when compaction does not catch up, and then
        leaves nothing behind. Meanwhile `folder` with `.tmp` behind its name is used; a crash may leave both.
        """


@runtime_checkable
class CanReopen(Protocol):
    """Gets over errors by being opened anew."""

    def reopen(self, closed: Callable[[], None] = nothing) -> None:
        """Close the database and open it again behind this object, which clears errors that RocksDB never forgets.

        Reads and writes go on around it: calls in the gap between are refused with Unavailable, having done nothing,
        and scans under way end with it; a `sync` in the gap is a StorageError, since what it should cover was written.
        What `write` has returned from is there afterwards; a write that failed may be there too. `closed` is called in
        the gap, when nothing can be read.

        Raises StorageError, and leaves the database open as it was, while its folder cannot be written, has no room to
        replay the log, or cannot be opened anew, and while calls do not end. When it can then not be opened after all,
        every call is Unavailable until a later `reopen` succeeds. One call at a time; not beside `close`.
        """


@dataclass(frozen=True)
class Statistics:
    """What an engine says of itself."""

    #: Records, as it estimates.
    keys: float = 0
    #: Bytes of its files of data, without those that are only held for scans; None where it does not tell.
    file_bytes: float | None = None
    #: Bytes of what is not deleted or overwritten in them, as it estimates.
    live_bytes: float = 0
    #: All that it tells, for people, by its own names: bytes for sizes, bytes a second for rates, else counts.
    figures: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class HasStatistics(Protocol):
    """Tells figures of itself."""

    def statistics(self) -> Statistics:
        """The figures of now."""


def statistics_of(engine: Engine) -> Statistics:
    """The figures of an engine; of one that tells none, those of an empty one."""
    return engine.statistics() if isinstance(engine, HasStatistics) else Statistics()


@runtime_checkable
class HasOptions(Protocol):
    """Is tuned by `rocksdb.options`."""

    def effective_options(self) -> Mapping[str, object]:
        """Every `rocksdb.options` name with the value in force, defaults included."""
