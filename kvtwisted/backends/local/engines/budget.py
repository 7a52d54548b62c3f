"""The memory bound of `multi_get`, the same for every engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable

from ....core.errors import ResponseTooLarge


def within(budget: int, values: Iterable[bytes | None], keep: Callable[[bytes], bool]) -> list[bytes | None]:
    """The values as a list; ResponseTooLarge, and no further value is taken, once they exceed `budget` bytes.

    A value that `keep` says no to does not count; it is None in the list unless the values are few anyway.
    """
    if isinstance(values, list) and sum(map(len, filter(None, values))) <= budget:
        return values
    taken: list[bytes | None] = []
    left = budget
    for value in values:
        if value is not None and not keep(value):
            value = None
        if value is not None:
            left -= len(value)
            if left < 0:
                raise ResponseTooLarge(
                    f"keys: the values exceed {budget} bytes, the limit of one answer; ask for fewer"
                )
        taken.append(value)
    return taken
