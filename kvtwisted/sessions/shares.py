"""Counts what stays open, in all and by owner, so that no owner has all: Note [A share for each principal]."""

from __future__ import annotations

#: Why one more is refused: there are too many in all, or of its owner.
IN_ALL, OF_OWNER = "all", "owner"


def three_quarters(capacity: int) -> int:
    """What one owner may have of a capacity where nothing else is configured; one at least."""
    return max(1, capacity * 3 // 4)


class Shares:
    """The counts. Not for several threads at once."""

    __slots__ = ("_by_owner", "open")

    def __init__(self) -> None:
        self._by_owner: dict[str, int] = {}
        #: Those that have entered and not left.
        self.open = 0

    def enter(self, owner: str | None, limit: int, limit_of_owner: int) -> str | None:
        """Count one in, or say why not (IN_ALL, OF_OWNER). None is an owner without a limit of its own."""
        if self.open >= limit:
            return IN_ALL
        if owner is not None:
            has = self._by_owner.get(owner, 0)
            if has >= limit_of_owner:
                return OF_OWNER
            self._by_owner[owner] = has + 1
        self.open += 1
        return None

    def of(self, owner: str) -> int:
        """How many of `owner` are open."""
        return self._by_owner.get(owner, 0)

    def leave(self, owner: str | None) -> None:
        """Count it out; for each that entered there must be one."""
        self.open -= 1
        if owner is not None:
            left = self._by_owner[owner] - 1
            if left:
                self._by_owner[owner] = left
            else:
                del self._by_owner[owner]
