"""One user's write, on its way into the storage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...commands.command import Change
from ...core.errors import KvError, without_frames
from . import records
from .engines.engine import DATA, EXPIRY, FILES, Mutation
from .records import ENVELOPE, Pointer

#: Shared by all writes without large values, and never changed.
_NO_FILES: dict[bytes, Pointer] = {}


class Write:
    """A user's changes, atomic together, on their way in. `deadline` (of `time.monotonic`) ends waiting.

    Once settled, `error` says why it was not done, or None; after a StorageError it may have been. `revision` is its
    place in the order of commits: greater than that of all before it; 0 until it is in.
    """

    __slots__ = ("changes", "deadline", "error", "large", "plain", "replaced", "revision", "settled", "size", "stores")

    def __init__(self, changes: Sequence[Change], deadline: float = math.inf) -> None:
        self.changes = changes
        self.deadline = deadline
        self.error: KvError | None = None
        self.settled = False
        self.revision = 0
        stores, deletes, plain = 0, 0, True
        for key, value, expires_at_ms in changes:
            if value is None:
                deletes += len(key)
                continue
            stores += len(key) + len(value)
            if expires_at_ms or (value and value[0] == ENVELOPE):
                plain = False
        #: Bytes of its keys and values, and of those that it stores.
        self.size, self.stores = stores + deletes, stores
        #: Whether no value needs an envelope, unless it gets a file.
        self.plain = plain
        #: The files of its large values, and those that it put out of use.
        self.large = _NO_FILES
        self.replaced: list[Pointer] = []

    def fail(self, error: KvError) -> None:
        """It was not done, or nobody knows."""
        self.error = without_frames(error)
        self.settled = True

    def check(self) -> None:
        """Raise `error`, if there is one, and keep it no more: the frames that it then holds have this write."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    def mutations(self) -> list[Mutation]:
        """What the engine is told of it, once its large values have their files."""
        if self.plain and not self.large:
            return [(DATA, key, value) for key, value, _ in self.changes]
        mutations: list[Mutation] = []
        for key, value, expires_at_ms in self.changes:
            if value is None:
                mutations.append((DATA, key, None))
                continue
            pointer = self.large.get(key)
            if pointer is not None:
                mutations.append((DATA, key, records.encode_pointer(pointer, expires_at_ms)))
                mutations.append((FILES, key, pointer.pack()))
            elif expires_at_ms or (value and value[0] == ENVELOPE):
                mutations.append((DATA, key, records.encode(value, expires_at_ms)))
            else:
                mutations.append((DATA, key, value))
            if expires_at_ms:
                mutations.append((EXPIRY, records.index_key(expires_at_ms, key), b""))
        return mutations
