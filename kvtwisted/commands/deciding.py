"""Writes that depend on what is there: what conditional writes, Touch, Increment and Transact have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

from .command import Change, WriteCommand
from .conditions import Condition, etag_of


class Present(NamedTuple):
    """What is at a key: the value, and when it expires, in ms since 1970 (0: never)."""

    value: bytes
    expires_at_ms: int


#: Tells what is at a key now; None: nothing, or what has expired.
Look = Callable[[bytes], Optional[Present]]


class Kept(bytes):
    """In a Change: the value that is there already, of which nothing has to be stored anew but when it expires."""


class Mutated(NamedTuple):
    """What one mutation did: whether the key was there, and of an Increment the new number, and whether it is new."""

    found: bool = False
    value: int = 0
    created: bool = False


class Outcome(NamedTuple):
    """The result of a command that decides. `revision` is 0 if nothing was written."""

    revision: int = 0
    #: Which check did not hold, from 1 on; 0: all did. A command with one condition has one check.
    failed_check: int = 0
    #: After a failed check: the etag of the value at its key; empty for none.
    etag: str = ""
    #: What was done: one of each mutation, in order.
    mutated: Sequence[Mutated] = ()

    @property
    def only(self) -> Mutated:
        """Of a command with one mutation: what that did; nothing, if the check failed."""
        return self.mutated[0] if self.mutated else Mutated()


class Decision(NamedTuple):
    """What a command does, after it was told what is there. Without changes nothing is written."""

    changes: Sequence[Change]
    outcome: Outcome


class DecidingCommand(WriteCommand):
    """A write that depends on what is at its keys.

    The backend tells it what is there, has it decide, and carries the changes out: all in one step, so that nothing is
    written to its keys in between. What it completes it with is an `Outcome` that has the revision.
    """

    __slots__ = ("condition_failed",)

    capability = "conditions"

    def __init__(self, size: int, deadline: float) -> None:
        """See `Command`."""
        WriteCommand.__init__(self, size, deadline)
        #: Whether it was carried out, and wrote nothing since a condition did not hold. For metrics.
        self.condition_failed = False

    def decide(self, look: Look, now_ms: int) -> Decision:
        """What it does, given what is there; it may look at its `keys` alone. `now_ms` is the time that ttls begin at.

        It may be called again, with what is there then. Takes long where values are digested: 1.2 ms for 1 MiB. Raises
        KvErrors when it cannot be done.
        """
        raise NotImplementedError

    def changes(self, expires_at_ms: int) -> list[Change]:
        """What it may store or delete at most, for quotas and for what needs files; what it does `decide` says."""
        raise NotImplementedError


def expires_at(now_ms: int, ttl: int) -> int:
    """The deadline of a key that is set now for `ttl` seconds; 0 without one."""
    return now_ms + ttl * 1000 if ttl else 0


def failed(check: int, condition: Condition, there: Present | None) -> Outcome | None:
    """The outcome if a condition does not hold, where that is there; None if it does."""
    value = None if there is None else there.value
    if condition.holds(value):
        return None
    return Outcome(failed_check=check, etag="" if value is None else etag_of(value))
