"""The bindings as they are, without a line of ours between: what the service layer is compared with."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Protocol


class Bare(Protocol):
    """One database of a binding. Keys and values are bytes."""

    name: str

    def get(self, key: bytes) -> object:
        """The value at `key`."""

    def put(self, key: bytes, value: bytes) -> None:
        """Store one value."""

    def multi_get(self, keys: Sequence[bytes]) -> object:
        """The values at `keys`."""

    def multi_put(self, keys: Sequence[bytes], value: bytes) -> None:
        """Store `value` at each key, in one batch."""

    def scan(self) -> int:
        """Read all pairs; returns how many there are."""


class BareRocksdict:
    """rocksdict with its own defaults."""

    name = "rocksdict"

    def __init__(self, folder: str) -> None:
        import rocksdict

        self._batch = rocksdict.WriteBatch
        self._db: Any = rocksdict.Rdict(folder, rocksdict.Options(raw_mode=True))
        self.get, self.put, self.multi_get = self._db.get, self._db.put, self._db.get

    def multi_put(self, keys: Sequence[bytes], value: bytes) -> None:
        """One WriteBatch."""
        batch = self._batch(raw_mode=True)
        for key in keys:
            batch.put(key, value)
        self._db.write(batch)

    def scan(self) -> int:
        """From the first pair to the last."""
        return sum(1 for _ in self._db.items())


class BareLbry:
    """lbry-rocksdb with its own defaults."""

    name = "lbry-rocksdb"

    def __init__(self, folder: str) -> None:
        import rocksdb

        self._batch = rocksdb.WriteBatch
        self._db: Any = rocksdb.DB(folder, rocksdb.Options(create_if_missing=True))
        self.get, self.put, self.multi_get = self._db.get, self._db.put, self._db.multi_get

    def multi_put(self, keys: Sequence[bytes], value: bytes) -> None:
        """One WriteBatch."""
        batch = self._batch()
        for key in keys:
            batch.put(key, value)
        self._db.write(batch)

    def scan(self) -> int:
        """From the first pair to the last."""
        iterator = self._db.iteritems()
        iterator.seek_to_first()
        return sum(1 for _ in iterator)


def open_bare(engine: str, folder: str) -> Bare:
    """The binding that `storage.engine` means: rocksdict, lbry, or auto."""
    if engine == "auto":
        engine = "rocksdict" if importlib.util.find_spec("rocksdict") else "lbry"
    # Any, since the bindings' own methods are taken as they are.
    binding: Any = BareRocksdict if engine == "rocksdict" else BareLbry
    bare: Bare = binding(folder)
    return bare
