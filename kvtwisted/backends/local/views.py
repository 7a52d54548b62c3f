"""Makes one view of several, for scans; and text that lies between keys.

Note [A page from several views]: among many deleted keys an engine may take a new view (see `Engine.scan`), but a page
must be from one view. So a scan that comes to such a place begins again with its range guarded: then it knows the
lowest key of the range that was written since. If that lies behind the page, what was read before is also what the last
view would have shown, and the page is from that one. Otherwise it is cut before that key, or where the view was first
taken anew, whichever comes later, since what lies before either is from one view; its cursor says where to go on. Who
can have no part of it begins again, until the time has run out.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...core.limits import MAX_KEY_BYTES

_FIRST_SURROGATE, _SURROGATES = 0xD800, 0x800
_CODE_POINTS = 0x110000 - _SURROGATES
_HIGHEST = "\U0010ffff".encode()
#: Bytes that leave room in a key for two code points more.
_LONGEST_HEAD = MAX_KEY_BYTES - 8


class WrittenRange:
    """A guarded range of keys: the lowest key of it that was written since. See `Guards`."""

    __slots__ = ("_end", "_start", "lowest")

    def __init__(self, start: bytes, end: bytes | None) -> None:
        """Guard start <= key < end."""
        self._start = start
        self._end = end
        #: None while no key of the range has been written.
        self.lowest: bytes | None = None

    def difference_update(self, keys: Iterable[bytes]) -> None:
        """These keys are written."""
        for key in keys:
            end = self._end if self.lowest is None else self.lowest
            if key >= self._start and (end is None or key < end):
                self.lowest = key

    def clear(self) -> None:
        """All of it may be written."""
        self.lowest = self._start


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


def _character(number: int) -> bytes:
    """The code points that text may have, in order, which is that of their bytes."""
    return chr(number if number < _FIRST_SURROGATE else number + _SURROGATES).encode()
