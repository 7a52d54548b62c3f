"""Conditions: what must hold of a key before it is written."""

from __future__ import annotations

from enum import Enum
from hashlib import blake2b
from typing import NamedTuple

from ..core.errors import InvalidRequest
from ..core.limits import check_value

#: Hexadecimal digits of an etag.
ETAG_DIGITS = 32
#: Makes a digest of nothing: a third cheaper than to make one with its length each time.
_new_digest = blake2b(digest_size=ETAG_DIGITS // 2).copy


class Test(Enum):
    """What a condition asks of the key: see `Condition`."""

    ABSENT = "absent"
    PRESENT = "present"
    VALUE = "value"
    ETAG = "etag"


class Condition(NamedTuple):
    """`ABSENT`, `PRESENT`, this `VALUE` (`operand`), or a value of this `ETAG` (`operand`, its digits in ASCII)."""

    test: Test
    operand: bytes = b""

    def holds(self, value: bytes | None) -> bool:
        """Whether it does where this value is (None: there is none, or it has expired). Up to 1.2 ms, for an etag."""
        if self.test is Test.ABSENT:
            return value is None
        if value is None:
            return False
        if self.test is Test.VALUE:
            return value == self.operand
        return self.test is Test.PRESENT or etag_of(value).encode() == self.operand

    def check(self, field: str = "condition") -> None:
        """Raise InvalidRequest for an etag that is none, and TooLarge for a value that none can be."""
        if self.test is Test.VALUE:
            check_value(self.operand, f"{field}.value")
        elif self.test is Test.ETAG and not _is_etag(self.operand):
            raise InvalidRequest(
                f"{field}.etag: must be {ETAG_DIGITS} hexadecimal digits in lower case, as answers give it"
            )


def etag_of(value: bytes) -> str:
    """The hex of BLAKE2b-128 over the value's bytes: 1.2 ms for the largest value."""
    digest = _new_digest()
    digest.update(value)
    return digest.hexdigest()


def _is_etag(operand: bytes) -> bool:
    return len(operand) == ETAG_DIGITS and not operand.strip(b"0123456789abcdef")
