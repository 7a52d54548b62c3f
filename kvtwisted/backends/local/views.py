"""Whether what a scan passes over is of its view; and text that lies between keys.

Note [One view over deleted keys]: all pairs of a scan are from the view that it began with, but among many deleted keys
an engine looks for the next living one by later views (see `Engine.scan`). What is empty there was empty in the scan's
own view, too, if no key of it was written in between. So the range is guarded before the view is taken, and the scan
ends where that does not hold: at the first key, in its order, that was written in a part that it has just passed over.
A page then ends there, with a cursor, if it may; or is begun again, until its time has run out. A stream says where to
go on. Who reads over few deleted keys needs no guard.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from ...core.limits import MAX_KEY_BYTES
from .engines.engine import Crossed, ScanUnfinished

#: Written keys of a range that are told apart; of more some neighbours are taken for one span. And those that writers
#: only note.
MOST_SPANS, _MOST_FRESH = 4096, 1024
_AFTER_ALL = b"\xff" * (MAX_KEY_BYTES + 1)
_FIRST_SURROGATE, _SURROGATES = 0xD800, 0x800
_CODE_POINTS = 0x110000 - _SURROGATES
_HIGHEST = "\U0010ffff".encode()
#: Bytes that leave room in a key for two code points more.
_LONGEST_HEAD = MAX_KEY_BYTES - 8


class ViewLost(ScanUnfinished):
    """A scan ends at `reached` since nobody can tell what its view has there."""


class WrittenRange:
    """A guarded range of keys: which of them were written since. See `Guards`. Any thread, in bounded memory."""

    __slots__ = ("_end", "_fresh", "_highs", "_lock", "_lows", "_start")

    def __init__(self, start: bytes, end: bytes | None) -> None:
        """Guard start <= key < end."""
        self._start = start
        self._end = _AFTER_ALL if end is None else end
        self._lock = threading.Lock()
        # Keys, and first and last keys of ranges, that were written and are not among the spans yet.
        self._fresh: deque[bytes | tuple[bytes, bytes]] = deque()
        # First and last keys of the spans that were written, in order.
        self._lows: list[bytes] = []
        self._highs: list[bytes] = []

    def difference_update(self, keys: Iterable[bytes]) -> None:
        """These keys are written."""
        self._fresh.extend(keys)
        if len(self._fresh) > _MOST_FRESH:
            with self._lock:
                self._gather()

    def range_update(self, low: bytes, high: bytes | None) -> None:
        """All keys from `low` on and before `high` are written."""
        self._fresh.append((low, _AFTER_ALL if high is None else high))

    def untouched(self, low: bytes, high: bytes | None, *, reverse: bool) -> bytes | None:
        """None if no key from `low` on and before `high` was written; else up to where from `low` on, or from where on
        before `high` with `reverse`, none was."""
        high = _AFTER_ALL if high is None else high
        with self._lock:
            self._gather()
            if reverse:
                place = bisect_left(self._lows, high) - 1
                if place < 0 or self._highs[place] < low:
                    return None
                return min(self._highs[place] + b"\0", high)
            place = bisect_left(self._highs, low)
            if place == len(self._lows) or self._lows[place] >= high:
                return None
            return max(self._lows[place], low)

    def crossing(self, *, reverse: bool) -> Crossed:
        """What raises ViewLost when a scan has passed over what was written. See Note [One view over deleted keys]."""

        def crossed(low: bytes, high: bytes | None) -> None:
            reached = self.untouched(low, high, reverse=reverse)
            if reached is not None:
                raise ViewLost(reached)

        return crossed

    def _gather(self) -> None:
        with suppress(IndexError):
            while True:
                written = self._fresh.popleft()
                self._add(*((written, written) if isinstance(written, bytes) else written))

    def _add(self, low: bytes, high: bytes) -> None:
        low, high = max(low, self._start), min(high, self._end)
        if low > high:
            return
        lows, highs = self._lows, self._highs
        first, behind = bisect_left(highs, low), bisect_right(lows, high)
        if first < behind:  # it meets some
            low, high = min(low, lows[first]), max(high, highs[behind - 1])
        lows[first:behind] = [low]
        highs[first:behind] = [high]
        if len(lows) > MOST_SPANS:
            del lows[1::2]
            del highs[: len(highs) - 1 : 2]

    def clear(self) -> None:
        """All of it may be written."""
        self.range_update(self._start, self._end)


def text_before(position: bytes) -> bytes:
    """UTF-8 text before `position`, and after nearly all that is: a cursor for who has seen all keys before that.

    Empty when there is none.
    """
    try:
        text = position.decode()
        head, rest = text[:-1].encode(), text[-1:].encode()
    except UnicodeDecodeError as error:
        head, rest = position[: error.start], position[error.start :]
    if len(head) > _LONGEST_HEAD:
        return head[:_LONGEST_HEAD].decode("utf-8", "ignore").encode()
    low, high = 0, _CODE_POINTS
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _character(middle) < rest else (low, middle)
    return head + _character(low - 1) + _HIGHEST if low else head


def text_after(position: bytes) -> bytes:
    """UTF-8 text from `position` on, and before nearly all that is: in reverse a cursor for who has seen all keys from
    there on. Empty when there is none.
    """
    try:
        text = position.decode()
    except UnicodeDecodeError as error:
        head = position[: error.start]
        rest = position[error.start :]
    else:
        if len(position) <= MAX_KEY_BYTES:
            return position
        head, rest = text[:-1].encode(), _HIGHEST + b"\xff"
    if len(head) > _LONGEST_HEAD:
        head, rest = head[:_LONGEST_HEAD].decode("utf-8", "ignore").encode(), _HIGHEST + b"\xff"
    while True:
        low, high = 0, _CODE_POINTS
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if _character(middle) < rest else (low, middle)
        if low < _CODE_POINTS:
            return head + _character(low)
        if not head:
            return b""
        # Nothing with that head comes behind: the next one is by its last character.
        text = head.decode()
        head, rest = text[:-1].encode(), text[-1:].encode() + b"\0"


def _character(number: int) -> bytes:
    """The code points that text may have, in order, which is that of their bytes."""
    return chr(number if number < _FIRST_SURROGATE else number + _SURROGATES).encode()
