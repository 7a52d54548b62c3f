"""Ranges of keys, in the order of their bytes."""

from __future__ import annotations

from typing import NamedTuple


class KeyRange(NamedTuple):
    """Keys from `start` on and before `end`; without an end (None) to the last one."""

    start: bytes
    end: bytes | None

    @property
    def is_empty(self) -> bool:
        """Whether no key can lie in it."""
        return self.end is not None and self.start >= self.end

    def has(self, key: bytes) -> bool:
        """Whether a key lies in it."""
        return self.start <= key and (self.end is None or key < self.end)

    def is_within(self, prefixes: tuple[bytes, ...]) -> bool:
        """Whether all keys that can lie in it begin with one of the prefixes."""
        if self.is_empty:
            return bool(prefixes)
        for prefix in prefixes:
            last = prefix_end(prefix)
            if self.start >= prefix and (last is None or (self.end is not None and self.end <= last)):
                return True
        return False

    def clipped(self, other: KeyRange) -> KeyRange:
        """What lies in both."""
        ends = [end for end in (self.end, other.end) if end is not None]
        return KeyRange(max(self.start, other.start), min(ends) if ends else None)


def key_range(prefix: bytes = b"", start: bytes = b"", end: bytes = b"") -> KeyRange:
    """The keys under a prefix from `start` on and before `end`; an empty end is none."""
    return KeyRange(prefix, prefix_end(prefix)).clipped(KeyRange(start, end or None))


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key after all those that start with `prefix`, or None when there is no such key."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def first_text(bound: bytes) -> bytes | None:
    """The first key from this one on that is UTF-8 text, as all keys are; None when there is none."""
    try:
        bound.decode()
    except UnicodeDecodeError as error:
        head, rest = bound[: error.start], bound[error.start :]
    else:
        return bound
    # The order of characters is that of their bytes.
    low, high = 0, _CHARACTERS
    while low < high:
        middle = (low + high) // 2
        if chr(middle).encode("utf-8", "surrogatepass") < rest:
            low = middle + 1
        else:
            high = middle
    text = head.decode()
    while low == _CHARACTERS and text:
        text, low = text[:-1], ord(text[-1]) + 1
    if low == _CHARACTERS:
        return None
    return (text + chr(_AFTER_SURROGATES if _SURROGATES <= low < _AFTER_SURROGATES else low)).encode()


#: Numbers of characters, of which some in between are none.
_CHARACTERS, _SURROGATES, _AFTER_SURROGATES = 0x110000, 0xD800, 0xE000
