"""A write: a user's changes on their way to the commit point, and what became of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set

from ...commands.command import Change
from ...core.errors import KvError, without_frames
from . import records
from .engines.engine import DATA, EXPIRY, FILES, Mutation
from .records import ENVELOPE, Pointer

#: Shared by all writes without large values, and by those that know no deadlines; never changed.
NO_FILES: dict[bytes, Pointer] = {}
NO_DEADLINES: dict[bytes, int] = {}


class Write:
    """A user's changes, atomic together, on their way in. `deadline` (of `time.monotonic`) ends waiting.

    Once settled, `error` says why it was not done, or None; after a StorageError it may have been. `revision` is its
    place in the order of commits: greater than that of all before it; 0 until it is in. A write that stands for several
    `commits` has the last of theirs.
    """

    __slots__ = (
        "changes", "commits", "deadline", "error", "kept", "large", "parts", "plain", "replaced", "revision", "settled",
        "size", "stores",
    )  # fmt: skip

    # What only those of `deciding_write` have.

    #: Whether its changes are decided under the lock, and whether several of them may be of one key.
    decides = is_gathered = False

    #: Whether it has to be decided apart, by who took it up.
    is_apart = False
    #: Whether its error came before the storage was asked to write.
    was_unread = False
    #: Keys whose value stays as it is.
    keeps: Set[bytes] = frozenset()
    #: When what is stored at its keys expires, as far as that is known: in ms since 1970, and 0 for never.
    before: Mapping[bytes, int] = NO_DEADLINES

    def __init__(
        self,
        changes: Sequence[Change],
        deadline: float = math.inf,
        *,
        commits: int = 1,
        parts: Sequence[int] | None = None,
        plain_bytes: int | None = None,
    ) -> None:
        """`plain_bytes` are those of keys and values, where it is known that it stores nothing but plain values.

        Of several commits each has one change, or as many as `parts` says.
        """
        self.changes = changes
        self.commits = commits
        self.parts = parts
        self.deadline = deadline
        self.error: KvError | None = None
        self.settled = False
        self.revision = 0
        #: The files of its large values, and those that it put out of use.
        self.large = NO_FILES
        #: The files of values that stay as they are.
        self.kept = NO_FILES
        self.replaced: list[Pointer] = []
        if plain_bytes is None:
            self.measure()
        else:
            self.size = self.stores = plain_bytes
            self.plain = True

    def measure(self) -> None:
        """Note what there is to know of its changes."""
        stores, deletes, plain = 0, 0, True
        for key, value, expires_at_ms in self.changes:
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

    def mutations(self, changes: Iterable[Change]) -> list[Mutation]:
        """What the engine is told of some of its changes, once its large values have their files."""
        mutations: list[Mutation] = []
        for key, value, expires_at_ms in changes:
            if value is None:
                mutations.append((DATA, key, None))
                continue
            pointer = self.large.get(key)
            if pointer is not None:
                mutations.append((DATA, key, records.encode_pointer(pointer, expires_at_ms)))
                mutations.append((FILES, key, pointer.pack()))
            elif key in self.kept:
                mutations.append((DATA, key, records.encode_pointer(self.kept[key], expires_at_ms)))
            elif expires_at_ms or (value and value[0] == ENVELOPE):
                mutations.append((DATA, key, records.encode(value, expires_at_ms)))
            else:
                mutations.append((DATA, key, value))
            if expires_at_ms:
                mutations.append((EXPIRY, records.index_key(expires_at_ms, key), b""))
        return mutations
