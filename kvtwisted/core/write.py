"""One user's write, on its way into the storage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Optional

from . import records
from .engine import DATA, EXPIRY, FILES, Mutation
from .errors import KvError
from .records import ENVELOPE, Pointer

#: A user's change of one key: the value, or None to delete, and its deadline in ms since 1970 (0: never).
Change = tuple[bytes, Optional[bytes], int]


class Write:
    """A user's changes, atomic together, on their way in. `deadline` (of `time.monotonic`) ends waiting.

    Once settled, `error` says why it was not done, or None; after a StorageError it may have been.
    """

    __slots__ = ("changes", "deadline", "error", "large", "replaced", "settled", "size")

    def __init__(self, changes: Sequence[Change], deadline: float = math.inf) -> None:
        self.changes = changes
        self.deadline = deadline
        self.error: KvError | None = None
        self.settled = False
        #: Bytes of its keys and values.
        self.size = 0
        for key, value, _ in changes:
            self.size += len(key) + len(value) if value is not None else len(key)
        #: The files of its large values, and those that it put out of use.
        self.large: dict[bytes, Pointer] = {}
        self.replaced: list[Pointer] = []

    def settle(self, error: KvError | None = None) -> None:
        """It is done, or it failed."""
        self.error = error
        self.settled = True

    def mutations(self) -> list[Mutation]:
        """What the engine is told of it, once its large values have their files."""
        mutations: list[Mutation] = []
        for key, value, expires_at_ms in self.changes:
            if value is None:
                mutations.append((DATA, key, None))
                continue
            pointer = self.large.get(key) if self.large else None
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
