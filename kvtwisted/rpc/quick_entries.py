"""The field `entries` of scans' answers, put together by hand: a quick way, beside protobuf.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..core.limits import as_text
from .varints import varint

#: By the lengths of key and value: tags and lengths of the entry and the key, and of the value.
_heads: dict[tuple[int, int], tuple[bytes, bytes]] = {}
_REMEMBERED_HEADS = 4096


def encoded_entries(keys: Sequence[bytes], values: Iterable[bytes], expiries: Sequence[int] = ()) -> bytes:
    """Entries of these keys and values, in order; without `expiries` none of them expires.

    Raises Corruption when a key is not UTF-8 text.
    """
    if not b"".join(keys).isascii():
        for key in keys:
            as_text(key)
    pieces: list[bytes] = []
    known = _heads.get
    if expiries:
        for key, value, expires_at_ms in zip(keys, values, expiries):
            pieces.append(_entry(key, value, expires_at_ms))
        return b"".join(pieces)
    for key, value in zip(keys, values):
        before, between = known((len(key), len(value))) or _heads_of(len(key), len(value))
        pieces += before, key, between, value
    return b"".join(pieces)


def _entry(key: bytes, value: bytes, expires_at_ms: int) -> bytes:
    end = b"\x18" + varint(expires_at_ms) if expires_at_ms else b""
    between = b"\x12" + varint(len(value)) if value else b""
    before = b"\x0a" + varint(len(key)) if key else b""
    size = len(before) + len(key) + len(between) + len(value) + len(end)
    return b"\x32%b%b%b%b%b%b" % (varint(size), before, key, between, value, end)


def _heads_of(key: int, value: int) -> tuple[bytes, bytes]:
    between = b"\x12" + varint(value) if value else b""
    before = b"\x0a" + varint(key) if key else b""
    before = b"\x32" + varint(len(before) + key + len(between) + value) + before
    if len(_heads) >= _REMEMBERED_HEADS:
        _heads.clear()
    return _heads.setdefault((key, value), (before, between))
