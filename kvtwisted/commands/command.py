"""What all commands have in common."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Callable, ClassVar, NamedTuple, Optional

from ..core.limits import Limits

#: What is counted and timed, as in the metrics' names.
SET, GET, DELETE, SCAN = "set", "get", "delete", "scan"
OPERATIONS = (SET, GET, DELETE, SCAN)

#: A byte that no text of UTF-8 has: records may begin with it.
NEVER_TEXT = b"\xff"

#: What one entry of an answer may cost beside its key and value, in any transport's encoding.
ENTRY_OVERHEAD = 16

#: A change of one key: the value, or None to delete it, and when it expires, in ms since 1970 (0: never).
Change = tuple[bytes, Optional[bytes], int]


class Command:
    """One request for the store, as a value: a codec makes it, the door lets it pass, a backend carries it out.

    A subclass says all that is particular to it. An instance is used once. Once it is carried out, `error` says why it
    failed, or is None, and `result` is what it was asked for.
    """

    __slots__ = (
        "admission", "answered", "awaited", "context", "deadline", "done", "encode", "error", "result", "size",
        "started",
    )  # fmt: skip

    #: What it is called in logs and messages.
    name: ClassVar[str]
    #: The operation that a grant must have (`sessions.grants`).
    right: ClassVar[str]
    #: The operation that it is counted and timed as, one of OPERATIONS; "" for what is about no key.
    metric: ClassVar[str]
    #: What a backend must be able to do for it beyond the ten operations (`Backend.capabilities`); "" for those.
    capability: str = ""
    #: Whether it changes keys: then it is a `WriteCommand`.
    writes: ClassVar[bool] = False
    #: Whether its bytes take room while it is under way.
    takes_room: ClassVar[bool] = True
    #: Keys that it turned out to be about, which a rate is charged with afterwards, one less.
    charged: int = 0
    #: Whether how long it takes says something of the server.
    is_timed: ClassVar[bool] = True
    #: Whether the limits of requests hold for it: how many may be under way, and for how long.
    is_limited: ClassVar[bool] = True

    def __init__(self, size: int, deadline: float = math.inf) -> None:
        """`size` is in bytes of keys and values; waiting ends at `deadline` (`time.monotonic`)."""
        #: Bytes of keys and values that it came with.
        self.size = size
        self.deadline = deadline
        self.error: BaseException | None = None
        self.result: Any = None
        #: Bytes of keys and values in the result, before it was encoded.
        self.answered = 0
        #: Makes of the result what the client is sent, on the thread that made the result: for results that may be
        #: large. None leaves it as it is. It may raise KvErrors.
        self.encode: Callable[[Any], Any] | None = None
        #: Says, on any thread, whether somebody still waits for the result; None: somebody does. A read that nobody
        #: waits for need not be carried out; a write that passed the door always is.
        self.awaited: Callable[[], bool] | None = None

    #: What the one who submits it wants to find again in `done`, when that is one function for many commands.
    context: Any

    # What the door notes while it is under way.

    #: Called with it on the reactor thread when it is done; must not raise.
    done: Callable[[Any], object]
    #: What it was counted into; also whose it is, for turns in the backend.
    admission: Any
    #: When it passed the door (`time.monotonic`).
    started: float

    @property
    def count(self) -> int:
        """How many keys it counts as."""
        return 1

    @property
    def keys(self) -> Collection[bytes]:
        """The keys that it is about; none when it is about a range, or no key."""
        return ()

    @property
    def needs(self) -> Sequence[tuple[str, Collection[bytes]]]:
        """What it needs beside `right`: operations, each with the keys, or prefixes, that it must be granted for."""
        return ()

    @property
    def written(self) -> Sequence[tuple[str, Collection[bytes]]]:
        """What it may change, for the audit log: operations, each with the keys."""
        return ((self.right, self.keys),)

    def check(self, limits: Limits) -> None:
        """Raise InvalidRequest when it asks for what cannot be."""

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """Whether it touches only what begins with one of the prefixes that `right` was granted for."""
        raise NotImplementedError

    def complete(self, result: Any) -> None:
        """It was carried out, with this result. For the backend, on the thread that made it."""
        self.answered = self.weigh(result)
        self.result = result if self.encode is None else self.encode(result)

    def weigh(self, result: Any) -> int:
        """Bytes of keys and values in a result."""
        return 0


class WriteCommand(Command):
    """A command that changes keys, all or none: whatever they were before, but for `deciding.DecidingCommand`."""

    __slots__ = ("ttl",)

    writes = True

    ttl: int

    @property
    def is_plain(self) -> bool:
        """Whether it only stores values, one at least, that never expire and do not begin with NEVER_TEXT."""
        return False

    @property
    def commits(self) -> int:
        """How many revisions it has."""
        return 1

    def singles(self) -> Sequence[WriteCommand]:
        """The commands that it stands for: itself, but for `commands.sets.Sets`."""
        return (self,)

    def changes(self, expires_at_ms: int) -> list[Change]:
        """What it changes, when its `ttl` ends at `expires_at_ms` (0: never)."""
        raise NotImplementedError


class Actor(NamedTuple):
    """Who asks the server itself for something: a name for the audit log, and whether they administer it."""

    name: str
    administers: bool


#: Whoever comes when nobody has to say who they are.
ANONYMOUS = Actor("anonymous", administers=True)


class ServerCommand(Command):
    """A command that is about no key: the server carries it out itself."""

    __slots__ = ("actor",)

    metric = ""

    def __init__(self, size: int = 0) -> None:
        """`size` is in bytes."""
        Command.__init__(self, size)
        #: Who gives it: seen to by the session.
        self.actor = ANONYMOUS

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return bool(prefixes)
