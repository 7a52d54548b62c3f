"""The engine Protocol: what the store needs of an ordered, persistent byte map, and nothing of any binding.

Three implementations live in `kvtwisted.engines`; one contract suite (`tests/engines/`) runs over all of them.

Every method may block and may be called from any thread, except that `close` is called once, when no other call runs.
Every failure is a `kvtwisted.core.errors.StorageError` (or `Unavailable` once closed).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Callable, Optional, Protocol

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

#: One change: family, key, and the new value, or None to delete.
Mutation = tuple[str, bytes, Optional[bytes]]


def everything(value: bytes) -> bool:
    """Says yes to every value, for `Engine.multi_get`."""
    return True


class Engine(Protocol):
    """An ordered byte map with three column families, atomic batches and consistent reads."""

    @property
    def name(self) -> str:
        """The word that `storage.engine` uses for this engine."""

    @property
    def version(self) -> str:
        """The binding and its version, for build information and the start-up log."""

    def get(self, key: bytes, family: str = DATA) -> bytes | None:
        """The value at `key`, or None."""

    def multi_get(
        self, keys: Sequence[bytes], budget: int, keep: Callable[[bytes], bool] = everything
    ) -> list[bytes | None]:
        """The DATA values at `keys`, in their order, all from one consistent view; None where there is none.

        A value that `keep` says no to is left out as if it were not there. `budget` bounds memory: once the values
        kept exceed that many bytes, `ResponseTooLarge` is raised instead of reading on (an engine may read up to 64
        values ahead of the check).
        """

    def scan(self, start: bytes, end: bytes | None, family: str = DATA) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < end in byte order (end None: to the last), from one view taken by this call.

        RocksDB is given the start to seek and the end as its bound, so that a scan never reads past its range. One
        thread at a time uses a scan; exhaust it or let go of it to release the view.
        """

    def write(self, mutations: Sequence[Mutation]) -> None:
        """Apply all mutations atomically, in order. Survives the end of the process; see `sync` for power loss.

        Raises `WriteStalled` instead of waiting while RocksDB delays or stops writes (where the binding can tell).
        """

    def sync(self) -> None:
        """Return once every earlier `write` would survive a power loss (fsync of the write-ahead log)."""

    def compact(self, start: bytes, end: bytes) -> None:
        """Compact the DATA range and flush the other families. Blocks until done.

        That gives back the space of deleted keys, and of the write-ahead log, which goes when no family needs it.
        """

    def statistics(self) -> Mapping[str, float]:
        """RocksDB's own figures by short name (`estimate-num-keys`, `block-cache-usage`, ...); those it has."""

    def effective_options(self) -> Mapping[str, object]:
        """Every `rocksdb.options` name with the value in force, defaults included."""

    def close(self) -> None:
        """Flush where the binding can, release the folder's lock, and refuse every later call with Unavailable."""
