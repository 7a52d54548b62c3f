"""The port: what the door needs of a backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, NamedTuple, Protocol, runtime_checkable

from ..commands.command import Command
from ..commands.get import Found


class Hot(Protocol):
    """What memory has for a key. Its `answer` may be used as it is; whoever uses it sets `used`."""

    answer: Found | None
    used: bool


#: Called, on the reactor thread, with commands that are done.
Settled = Callable[[Sequence[Command]], None]


class Backend(Protocol):
    """Carries out commands that have passed the door. Reactor thread, and asynchronous by nature.

    It decides what runs at once, in a pool, or over a socket; it may answer in any order. Each command that it is given
    it settles once: with `Command.complete`, or with `Command.error`; then it tells. What comes later on a key sees
    what came before it and was settled. A read is not begun after its deadline (DeadlineExceeded), nor when nobody
    awaits it any more: that one is told of without a result. A write is carried out whether anybody awaits it or not.

    A `commands.streams.StreamCommand` is given its `flow`, and its parts are told as they are asked for, also in a
    later turn; it is settled once, when the last was told.
    """

    #: What it can do beyond the ten operations: see `Command.capability`.
    capabilities: frozenset[str]

    #: What memory has for a key, if anything. Its `answer` may be used as it is: the quickest way, for backends that
    #: have one. Any thread.
    hot: Callable[[bytes], Hot | None]

    def start(self, settled: Settled) -> None:
        """Take commands from now on, and tell `settled` of those that are done."""

    def stop(self) -> None:
        """Nothing waits for the reactor any more. What is under way is settled."""

    def get_now(self, key: bytes) -> tuple[bool, Found | None]:
        """(True, the value at `key`) if that can be told without blocking, else (False, None). Raises KvErrors."""

    def submit(self, commands: Sequence[Command]) -> None:
        """Carry these out: all that passed the door in one turn of the reactor, in their order.

        A `commands.sets.Sets` stands for many commands, and so does a `commands.decisions.Decisions`: it is carried out
        as one, or each of its `singles` is instead.
        """

    @property
    def waiting(self) -> int:
        """Commands that nothing has taken up yet."""

    def health(self) -> str | None:
        """Why it cannot serve, or None. Blocks, on the thread of health checks; for as long as it may take."""


class Measured(NamedTuple):
    """A piece of a count: bytes of keys and values, keys, and the key to go on with (None: that was the last piece)."""

    size: int
    keys: int
    following: bytes | None


#: Told sizes, or what kept them from being known.
Sizes = Callable[["Sequence[int] | BaseException"], object]


@runtime_checkable
class CanMeasure(Protocol):
    """Tells how much is stored, which quotas need. Sizes are bytes of keys and values as clients know them."""

    def size_now(self, key: bytes) -> int | None:
        """What is at `key`, 0 for nothing, if that can be told without blocking; else None. Reactor thread."""

    def sizes(self, keys: Sequence[bytes], owner: object, told: Sizes) -> None:
        """Tell what is at each of `keys`, in `owner`'s turn, or why that cannot be told. Reactor thread."""

    def measure(self, prefix: bytes, start: bytes) -> Measured:
        """Count the keys under `prefix` from `start` on, some hundreds of them. Blocks, on any thread."""
