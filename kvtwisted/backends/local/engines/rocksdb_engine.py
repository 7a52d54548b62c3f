"""What both engines on RocksDB have in common: opening, opening again, and what RocksDB tells of itself."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any, Callable, Generic

from ....core.options import EngineOptions
from .engine import Statistics, nothing
from .introspection import effective_options, rocksdb_version, statistics
from .reopening import D, Reopening
from .translate import CLOSED, REOPENING, Translating, check_open


class RocksdbEngine(Generic[D]):
    """An open database, of one of the bindings."""

    is_persistent = True
    #: The package that has the binding.
    package: str

    def __init__(
        self, path: str, options: EngineOptions, opened: Callable[..., D], rehearsed: Callable[[D], D]
    ) -> None:
        """Open the database in folder `path`, which is made when missing. Blocks while the log is replayed.

        Raises StorageLocked when it is open elsewhere, Corruption when it is damaged, else StorageError. See
        `Reopening` for `opened` and `rehearsed`.
        """
        self._path = path
        self._options = options
        self._failures = Translating(path)
        self._refuse(CLOSED)
        with self._failures:
            os.makedirs(path, exist_ok=True)
            self._reopening = Reopening(path, opened, rehearsed, self._use)
        self._scans, self._slow = self._reopening.scans, self._reopening.slow

    @property
    def version(self) -> str:
        """The binding, and the RocksDB inside it."""
        with self._failures:
            return f"{self.package} {version(self.package)} (RocksDB {rocksdb_version(self._path)})"

    def statistics(self) -> Statistics:
        """RocksDB's properties; `figures` has them by short name."""
        with self._failures:
            return statistics(self._property)

    def effective_options(self) -> dict[str, object]:
        """Every `rocksdb.options` name with the value in force, from RocksDB's OPTIONS file."""
        with self._failures:
            return effective_options(self._options, self._path, self._property)

    def reopen(self, closed: Callable[[], None] = nothing) -> None:
        """Close and open again. See Note [Reopening under readers]."""
        with self._failures:
            check_open(self._db)
            self._reopening.reopen(closed)

    def _use(self, database: Any) -> None:
        """Let every call that begins use `database`; with None it is refused as one to try again."""
        if database is None:
            self._refuse(REOPENING)
        else:
            self._take(database)

    def _refuse(self, stand_in: Any) -> None:
        """Let whatever calls use be `stand_in`, which refuses them."""
        self._db: Any = stand_in
        self._families: Any = stand_in
        self._handles: Any = stand_in

    def _take(self, database: Any) -> None:
        """Use the parts of `database`."""
        raise NotImplementedError

    def _property(self, family: str, name: str) -> str | None:
        """A property of RocksDB as text, if it has it."""
        raise NotImplementedError
