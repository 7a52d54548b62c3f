"""The memory bound of `multi_get`, the same for every engine."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.errors import ResponseTooLarge

#: Values that an engine may read ahead of the check.
READ_AHEAD = 64


def within(budget: int, values: Iterable[bytes | None]) -> list[bytes | None]:
    """The values as a list; ResponseTooLarge, and no further value is taken, once they exceed `budget` bytes."""
    taken: list[bytes | None] = []
    left = budget
    for value in values:
        if value is not None:
            left -= len(value)
            if left < 0:
                raise ResponseTooLarge(f"the values exceed {budget} bytes; ask for fewer keys at once")
        taken.append(value)
    return taken
