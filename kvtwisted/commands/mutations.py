"""Mutations: the changes of one key that commands which decide are made of. Each does what its command alone does."""

from __future__ import annotations

from typing import NamedTuple, Union

from ..core.errors import NotANumber, NumberOverflow
from ..core.limits import check_key, check_ttl, check_value
from .command import Change
from .deciding import Kept, Mutated, Present, expires_at

LOWEST, HIGHEST = -(2**63), 2**63 - 1
#: Characters of the longest number.
NUMBER_BYTES = 20

#: What a mutation does: the change, None for none, and what is told of it.
Done = tuple["Change | None", Mutated]


class SetValue(NamedTuple):
    """Store `value` for `ttl` seconds (0: for ever)."""

    key: bytes
    value: bytes
    ttl: int = 0

    def check(self, field: str = "") -> None:
        """Raise InvalidRequest for what cannot be; messages begin with `field`."""
        check_key(self.key, f"{field}key")
        check_value(self.value, f"{field}value")
        check_ttl(self.ttl, f"{field}ttl")

    def apply(self, there: Present | None, now_ms: int) -> Done:
        """What it does where that is there."""
        return (self.key, self.value, expires_at(now_ms, self.ttl)), Mutated(there is not None)


class DeleteKey(NamedTuple):
    """Remove the key; a missing one is fine."""

    key: bytes

    def check(self, field: str = "") -> None:
        """See `SetValue.check`."""
        check_key(self.key, f"{field}key")

    def apply(self, there: Present | None, now_ms: int) -> Done:
        """See `SetValue.apply`."""
        return (self.key, None, 0), Mutated(there is not None)


class TouchKey(NamedTuple):
    """Have the key expire in `ttl` seconds (0: never), if it is there."""

    key: bytes
    ttl: int

    def check(self, field: str = "") -> None:
        """See `SetValue.check`."""
        check_key(self.key, f"{field}key")
        check_ttl(self.ttl, f"{field}ttl")

    def apply(self, there: Present | None, now_ms: int) -> Done:
        """See `SetValue.apply`."""
        if there is None:
            return None, Mutated()
        return (self.key, Kept(there.value), expires_at(now_ms, self.ttl)), Mutated(True)


class AddNumber(NamedTuple):
    """Add `delta` to a decimal number; where there is none that is the number, for `ttl` seconds (0: for ever)."""

    key: bytes
    delta: int
    ttl: int = 0

    def check(self, field: str = "") -> None:
        """See `SetValue.check`."""
        check_key(self.key, f"{field}key")
        check_ttl(self.ttl, f"{field}ttl")

    def apply(self, there: Present | None, now_ms: int) -> Done:
        """See `SetValue.apply`. Raises NotANumber and NumberOverflow."""
        if there is None:
            number, ends = self.delta, expires_at(now_ms, self.ttl)
        else:
            number, ends = number_of(there.value) + self.delta, there.expires_at_ms
            if not LOWEST <= number <= HIGHEST:
                raise NumberOverflow(f"delta: the sum would be beyond 64 bits ({LOWEST} to {HIGHEST})")
        return (self.key, b"%d" % number, ends), Mutated(there is not None, number, there is None)


Mutation = Union[SetValue, DeleteKey, TouchKey, AddNumber]


def number_of(value: bytes) -> int:
    """The number that a value is the decimal text of: of 64 bits, as `Increment` writes it. Raises NotANumber."""
    if len(value) <= NUMBER_BYTES and value.removeprefix(b"-").isdigit():
        number = int(value)
        if LOWEST <= number <= HIGHEST and b"%d" % number == value:
            return number
    raise NotANumber("key: the value is not a decimal number of 64 bits, such as -12; it can be set, not incremented")
