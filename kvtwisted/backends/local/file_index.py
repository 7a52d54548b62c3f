"""The files of large values that records name: kept in memory, so that a write need not read before it replaces one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ...commands.administration import Collected
from ...commands.ranges import KeyRange
from ...core.errors import KvError, Unavailable
from . import records
from .engines.engine import FILES, Engine, Mutation
from .large_values import ValueFiles
from .records import Pointer

if TYPE_CHECKING:
    from .write import Write


class FileIndex:
    """The pointers by key, and the files that were replaced. For the commit point, under its lock but where noted."""

    def __init__(self, engine: Engine, files: ValueFiles | None, lock: threading.Lock) -> None:
        """`lock` is the commit point's. Reads the column family FILES, unless there is no folder of files."""
        self._engine = engine
        self._files = files or ValueFiles("")
        self._lock = lock
        self.pointers = {} if files is None else _read(engine)
        self._files.count(self.pointers.values())
        # Files that no record names any more, once what says so is durable.
        self._replaced: list[Pointer] = []
        # Files of writes that failed: a record that the log brings back may name them.
        self._doubtful: list[Pointer] = []
        # The replaced ones, while the engine is being reopened: what it has then may name them again.
        self._aside: list[Pointer] = []

    def prepare(self, write: Write, pending: dict[bytes, Pointer | None]) -> list[Mutation]:
        """What a write changes in the column family FILES, beside the pointers that it stores itself.

        `pending` has the pointers of the writes before it in the same batch (None: no file any more), and gets its own.
        """
        mutations: list[Mutation] = []
        write.replaced = []
        for key, _, _ in write.changes:
            before = pending[key] if key in pending else self.pointers.get(key)
            after = write.large.get(key) or write.kept.get(key)
            if before is not None or after is not None:
                pending[key] = after
                if before is not None and before is not after:
                    write.replaced.append(before)
                if after is None:
                    mutations.append((FILES, key, None))
        return mutations

    def kept(self, keys: Iterable[bytes], pending: Mapping[bytes, Pointer | None]) -> dict[bytes, Pointer]:
        """The files that these keys have now, after the writes that `pending` is of."""
        found = {key: pending[key] if key in pending else self.pointers.get(key) for key in keys}
        return {key: pointer for key, pointer in found.items() if pointer is not None}

    def keep(self, batch: Iterable[Write], pending: dict[bytes, Pointer | None]) -> None:
        """The batch is in the engine."""
        for write in batch:
            self._replaced += write.replaced
        for key, pointer in pending.items():
            if pointer is None:
                self.pointers.pop(key, None)
            else:
                self.pointers[key] = pointer
                self._files.named(pointer)

    def failed(self, write: Write, error: KvError) -> None:
        """The engine failed the write, for `error`. Only a reopening tells what became of its record."""
        if isinstance(error, Unavailable):
            self._replaced += write.large.values()  # it was refused, and nothing done
        else:
            self._doubtful += write.large.values()

    def forget(self, keys: Iterable[bytes]) -> bool:
        """These keys have been deleted; whether any had a file."""
        gone = [self.pointers.pop(key) for key in keys if key in self.pointers]
        self._replaced += gone
        return bool(gone)

    def forget_range(self, range: KeyRange) -> bool:
        """The keys of a range have been deleted; whether any had a file."""
        return self.forget([key for key in self.pointers if range.has(key)])

    def replaced(self) -> list[Pointer]:
        """The files that go with the next fsync: ask before it begins. Without the lock."""
        return list(self._replaced)

    def retire(self, replaced: list[Pointer]) -> None:
        """What `replaced` gave, after the fsync. Without the lock, one thread at a time."""
        if replaced:
            self._files.retire(replaced)
            with self._lock:
                gone = {pointer.name for pointer in replaced}
                self._replaced = [pointer for pointer in self._replaced if pointer.name not in gone]

    def set_aside(self) -> None:
        """The engine is being reopened: no file that was replaced may go."""
        self._aside += self._replaced
        self._replaced = []

    def put_back(self) -> None:
        """It was not reopened."""
        self._replaced += self._aside
        self._aside = []

    def read_again(self) -> None:
        """It was. What it names counts; other files go after the next fsync. Raises StorageError."""
        self.put_back()
        gone = {pointer.name: pointer for pointer in (*self.pointers.values(), *self._replaced, *self._doubtful)}
        self.pointers = _read(self._engine)
        for pointer in self.pointers.values():
            gone.pop(pointer.name, None)
            self._files.named(pointer)
        self._replaced, self._doubtful = list(gone.values()), []

    def names(self) -> set[bytes]:
        """The names of the files that records point to. Without the lock."""
        with self._lock:
            return {pointer.name for pointer in self.pointers.values()}

    def collect_orphans(self) -> Collected:
        """Remove the files that no record names. Blocks, without the lock; raises StorageError."""
        return self._files.collect_orphans(self._in_use)

    def _in_use(self) -> set[bytes]:
        with self._lock:
            return {pointer.name for pointer in (*self.pointers.values(), *self._replaced, *self._aside)}


def _read(engine: Engine) -> dict[bytes, Pointer]:
    return {key: records.unpack_pointer(pointer) for key, pointer in engine.scan(b"", None, FILES)}
