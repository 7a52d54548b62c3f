"""Watch: every change of a key, or of the keys under a prefix, in the order of commits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import Any, Callable, NamedTuple

from ..core.errors import InvalidRequest
from ..core.limits import Limits, check_key, check_prefix
from .ranges import KeyRange, prefix_end
from .streams import StreamCommand


class EventType(IntEnum):
    """What happened to a key, or to a range."""

    SET = 1
    DELETE = 2
    EXPIRE = 3
    EVICT = 4
    DELETE_RANGE = 5


class Event(NamedTuple):
    """One change. Of a DELETE_RANGE `key` is where it begins, and `end` where it ends; both are UTF-8.

    An empty `end` says that it ends where what is watched does.
    """

    type: EventType
    key: bytes
    end: bytes = b""
    value: bytes = b""
    #: In ms since 1970; 0: never.
    expires_at_ms: int = 0


class Changes(NamedTuple):
    """Events of one commit, or a part of them: `end` says that it is the last part.

    Without events it says that everything up to `revision` was told. With `compacted` changes that were asked for are
    no longer known: it is the stream's last part, and nothing was told in their place.
    """

    revision: int
    events: Sequence[Event] = ()
    end: bool = True
    compacted: bool = False


class Watch(StreamCommand):
    """The changes of `key`, or else of the keys under `prefix`, after a revision: lists of `Changes`.

    After revision 0 means from now on. `encode` makes bytes of a list, on the reactor thread; Watches that have the
    same function share what it makes. A part has up to `budget` bytes of keys and values.
    """

    __slots__ = ("after_revision", "budget", "key", "prefix", "with_values")

    name = "watch"
    right = "scan"
    #: Counted by metrics of its own.
    metric = ""
    capability = "watch"

    def __init__(
        self,
        *,
        key: bytes = b"",
        prefix: bytes = b"",
        after_revision: int = 0,
        with_values: bool = False,
        budget: int,
        encode: Callable[[Any], Any] | None = None,
    ) -> None:
        """UTF-8 both."""
        StreamCommand.__init__(self, len(key) + len(prefix), encode)
        self.key = key
        self.prefix = prefix
        self.after_revision = after_revision
        self.with_values = with_values
        self.budget = budget

    @property
    def range(self) -> KeyRange:
        """The keys that are watched."""
        return KeyRange(self.key, self.key + b"\0") if self.key else KeyRange(self.prefix, prefix_end(self.prefix))

    @property
    def needs(self) -> Sequence[tuple[str, Collection[bytes]]]:
        """See `Command.needs`: values are told of only to who may read them."""
        return (("get", (self.key or self.prefix,)),) if self.with_values else ()

    def check(self, limits: Limits) -> None:
        """See `Command.check`."""
        if self.key and self.prefix:
            raise InvalidRequest("key: must be empty where there is a prefix")
        if self.key:
            check_key(self.key)
        check_prefix(self.prefix)
        if self.after_revision < 0:
            raise InvalidRequest(f"after_revision: must not be negative: {self.after_revision} was sent")

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return (self.key or self.prefix).startswith(prefixes)
