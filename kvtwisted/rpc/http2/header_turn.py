"""The turn of one connection at header blocks that are not known.

Note [Header blocks take turns]: a block that is not known has to be decoded, and who calls to be looked up. A peer may
send such blocks without end, at no cost of its own. So all connections together have HEADERS_WORK for them in a turn
of the reactor; a connection that comes to one when that is used up reads nothing more until it has its turn, those with
a small one before those with a large one. If others wait it is a short turn, of one block at least. Known blocks never
wait. Work is counted by bytes (`HpackDecoder.work`), not by a clock, so that the same bytes always do the same.
"""

from __future__ import annotations

from .turns import Turns

#: Work on header blocks that are not known in a turn of the reactor, some 4 ms; see Note [Header blocks take turns].
HEADERS_WORK = 128 * 1024
#: What a connection has of that in its turn, if others wait: one block at least.
SLICE_WORK = HEADERS_WORK // 8
#: What each block takes beside what it takes to decode it.
BLOCK_WORK = 1024
#: Bytes of a block that is a small one.
_SMALL_BLOCK = 2048


class HeaderTurn:
    """Whether the connection may look at one more block. Reactor thread."""

    __slots__ = ("_ends", "_had_block", "_turns", "is_long", "waiting")

    def __init__(self, turns: Turns) -> None:
        """`turns` has HEADERS_WORK in each, for all connections together."""
        self._turns = turns
        #: Whether a block waits for its turn, and whether it is a large one.
        self.waiting = self.is_long = False
        #: In the connection's turn: what is left to all when it ends, and whether it has had a block yet.
        self._ends: int | None = None
        self._had_block = False

    def begin(self) -> None:
        """It is the connection's turn."""
        self.waiting = self._had_block = False
        self._ends = self._turns.left - SLICE_WORK

    def end(self) -> None:
        """Its turn is over."""
        self._ends = None

    def must_wait(self, size: int) -> bool:
        """Whether a block of so many bytes has to wait for a turn, or for the next one; then `waiting` says so."""
        turns = self._turns
        if self._ends is None:
            self.waiting = turns.left <= 0
        elif not self._had_block:
            self._had_block = True
        else:
            self.waiting = turns.left <= (self._ends if turns.wanted else 0)
        self.is_long = size > _SMALL_BLOCK
        return self.waiting

    def spend(self, work: int) -> None:
        """A block took so much work to decode."""
        self._turns.spend(BLOCK_WORK + work)
