"""Answers to what commands are completed with, encoded: most of them without protobuf.

protobuf takes five times as long, since text would become a message, and text again. A test holds both together.

Source: https://protobuf.dev/programming-guides/encoding/. Pure functions; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Callable, Optional

from ..commands.conditions import etag_of
from ..commands.deciding import Outcome
from ..commands.delete_range import Removed
from ..commands.get import Found
from ..commands.scan import Page
from ..core.errors import ValueNotText
from ..core.limits import as_text
from .generated import keyvalue_pb2 as kv
from .quick_entries import encoded_entries
from .quick_messages import is_text
from .varints import varint

#: The good answer of every method that has nothing else to say: `success`.
SUCCESS = kv.SetResponse(success=True).SerializeToString()

#: What is said of a condition that did not hold; nothing was written.
CONDITION_FAILED = "the condition does not hold"
#: How such an answer begins, but for the etag: that of a Set or Delete, and that of a Touch.
_NOT_DONE = kv.SetResponse(error=CONDITION_FAILED, condition_failed=True).SerializeToString()
_NOT_TOUCHED = kv.TouchResponse(error=CONDITION_FAILED, condition_failed=True).SerializeToString()
#: How other answers end before the revision.
_DONE, _TOUCHED = SUCCESS + b"\x28", SUCCESS + b"\x18\x01\x30"
_CREATED, _INCREASED = b"\x20\x01\x28", b"\x28"

#: The most bytes of one of Transact's results.
RESULT_BYTES = 17

#: What a Get's answer is made by.
EncodeFound = Callable[[Optional[Found]], bytes]

#: Tags of the pairs in a map of texts, and in one of data.
_TEXTS, _DATA = b"\x0a", b"\x1a"


# Get.


def encoded_get_response(found: Found | None) -> bytes:
    """What Get answers, for a value that is asked for as text. Raises ValueNotText."""
    if found is None:
        return b""
    value, ttl = found
    if ttl or not value:
        return kv.GetResponse(value=value_text(value), found=True, ttl=ttl).SerializeToString()
    if not value.isascii():
        value_text(value)
    return b"\x0a%b%b\x10\x01" % (varint(len(value)), value)


def value_text(value: bytes) -> str:
    """A value that is asked for as text. Raises ValueNotText when it is none."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueNotText("key: the value is not UTF-8 text; it can be had as data, with as_data") from None


def _encoded_data(found: Found | None) -> bytes:
    if found is None:
        return b""
    value, ttl = found
    lasts = b"\x20" + varint(ttl) if ttl else b""
    return b"\x10\x01%b\x2a%b%b" % (lasts, varint(len(value)), value)


def _with_etag(encode: EncodeFound) -> EncodeFound:
    def encoded(found: Found | None) -> bytes:
        return encode(found) if found is None else b"%b\x32\x20%b" % (encode(found), etag_of(found.value).encode())

    return encoded


#: By whether data is asked for, and the etag.
GET_ANSWERS: dict[tuple[bool, bool], EncodeFound] = {
    (False, False): encoded_get_response,
    (True, False): _encoded_data,
    (False, True): _with_etag(encoded_get_response),
    (True, True): _with_etag(_encoded_data),
}


# Many values.


def encoded_values(found: dict[bytes, bytes]) -> bytes:
    """What MGet answers, for values that are asked for as text."""
    pairs, not_text = encoded_pairs(found.items())
    if not_text:
        pairs += kv.MGetResponse(error=_not_text(not_text), not_text=not_text).SerializeToString()
    return pairs


def encoded_data(found: dict[bytes, bytes]) -> bytes:
    """What MGet answers, for values that are asked for as data."""
    return b"".join(_pieces(_DATA, found.items()))


def encoded_keys(page: Page) -> bytes:
    """What ScanKeys answers."""
    return kv.ScanKeysResponse(
        keys=list(map(as_text, page.keys)), next_cursor=as_text(page.next_cursor), count=page.counted,
        prefixes=list(map(as_text, page.prefixes)), revision=page.revision,
    ).SerializeToString()  # fmt: skip


def encoded_page(page: Page) -> bytes:
    """What ScanKeyValues answers, for values that are asked for as text."""
    pairs, not_text = encoded_pairs(zip(page.keys, page.values))
    return pairs + _around(page, not_text)


def encoded_page_of_entries(page: Page) -> bytes:
    """What ScanKeyValues answers by entries, and each message of ScanStream."""
    expiries = page.expiries if any(page.expiries) else ()
    return encoded_entries(page.keys, page.values, expiries) + _around(page)


def _around(page: Page, not_text: Sequence[str] = ()) -> bytes:
    return kv.ScanKeyValuesResponse(
        next_cursor=as_text(page.next_cursor), count=page.counted, prefixes=list(map(as_text, page.prefixes)),
        revision=page.revision, not_text=not_text, error=_not_text(not_text) if not_text else "",
    ).SerializeToString()  # fmt: skip


def _not_text(keys: Sequence[str]) -> str:
    what = "1 value is not UTF-8 text and was" if len(keys) == 1 else f"{len(keys)} values are not UTF-8 text and were"
    return f"key_values: {what} left out, see not_text; with as_data all come as data"


def encoded_pairs(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, list[str]]:
    """The field `key_values` of MGet's answer, and of ScanKeyValues'; and the keys of values that are not text.

    The values of those are left out. Raises Corruption when a key is not UTF-8 text.
    """
    pieces = _pieces(_TEXTS, pairs)
    not_text: list[str] = []
    texts = pieces[1::2]
    if not b"".join(texts).isascii():
        # The last ones first, so that those before them stay where they are.
        for place in range(len(pieces) - 4, -1, -4):
            key = as_text(pieces[place + 1])
            if not is_text(pieces[place + 3]):
                not_text.append(key)
                del pieces[place : place + 4]
    return b"".join(pieces), not_text[::-1]


def _pieces(tag: bytes, pairs: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """A message of each pair: its head, the key, the head of the value, and the value."""
    pieces: list[bytes] = []
    heads = _heads[tag]
    known = heads.get
    for key, value in pairs:
        before, between = known((len(key), len(value))) or _heads_of(tag, heads, len(key), len(value))
        pieces += before, key, between, value
    return pieces


def _heads_of(
    tag: bytes, heads: dict[tuple[int, int], tuple[bytes, bytes]], key: int, value: int
) -> tuple[bytes, bytes]:
    """Tags and lengths, for a key and a value of these lengths: the message's and the key's, and the value's."""
    between = b"\x12" + varint(value)
    before = b"\x0a" + varint(key)
    before = tag + varint(len(before) + key + len(between) + value) + before
    if len(heads) >= _REMEMBERED_HEADS:
        heads.clear()
    return heads.setdefault((key, value), (before, between))


#: By the tag, and the lengths of key and value. So many of them are remembered for each tag.
_heads: dict[bytes, dict[tuple[int, int], tuple[bytes, bytes]]] = {_TEXTS: {}, _DATA: {}}
_REMEMBERED_HEADS = 4096


# Writes that depend on what is there.


def encoded_write(outcome: Outcome) -> bytes:
    """What Set and Delete answer where they had a condition."""
    revision, failed_check, etag, _ = outcome
    if failed_check:
        return _NOT_DONE + _etag(b"\x22", etag)
    # What `_revision` does, without the call.
    return _DONE_LOW[revision & 127] + _high(revision >> 7) if revision > 127 else _DONE + varint(revision)


def encoded_touch(outcome: Outcome) -> bytes:
    """What Touch answers."""
    if outcome.failed_check:
        return _NOT_TOUCHED + _etag(b"\x2a", outcome.etag)
    if not outcome.revision:
        return SUCCESS
    return _TOUCHED + _revision(outcome.revision)


def encoded_increment(outcome: Outcome) -> bytes:
    """What Increment answers."""
    revision, _, _, mutated = outcome
    _, value, created = mutated[0]
    added = SUCCESS if not value else b"\x08\x01\x18" + varint(value & _64_BITS)
    added += _CREATED if created else _INCREASED
    # What `_revision` does, without the call.
    return added + _LOW[revision & 127] + _high(revision >> 7) if revision > 127 else added + varint(revision)


def encoded_transact(outcome: Outcome) -> bytes:
    """What Transact answers."""
    if outcome.failed_check:
        error = f"the condition of check {outcome.failed_check} does not hold"
        return kv.TransactResponse(
            error=error, failed_check=outcome.failed_check, etag=outcome.etag
        ).SerializeToString()
    results = b"".join([_NO_NUMBER[found] if not (value or created) else _result(found, value, created)
                        for found, value, created in outcome.mutated])  # fmt: skip
    return b"%b%b%b" % (SUCCESS, results, _number(b"\x28", outcome.revision))


def _result(found: bool, value: int, created: bool) -> bytes:
    fields = b"%b%b%b" % (
        b"\x08\x01" if found else b"", _number(b"\x10", value), b"\x18\x01" if created else b"",
    )  # fmt: skip
    return b"\x22%b%b" % (varint(len(fields)), fields)


def encoded_removed(removed: Removed) -> bytes:
    """What DeleteRange answers."""
    return b"%b%b%b" % (SUCCESS, _number(b"\x18", removed.deleted), _number(b"\x20", removed.revision))


def _etag(tag: bytes, etag: str) -> bytes:
    """A field with an etag; nothing for none."""
    return b"%b\x20%b" % (tag, etag.encode()) if etag else b""


def _revision(number: int) -> bytes:
    """`varint` for numbers that come one after the other: all but the first byte is remembered."""
    return _LOW[number & 127] + _high(number >> 7) if number > 127 else varint(number)


_LOW = [bytes((number | 128,)) for number in range(128)]
_DONE_LOW = [_DONE + low for low in _LOW]
_high = lru_cache(64)(varint)


def _number(tag: bytes, number: int) -> bytes:
    """A field with a number of 64 bits; nothing for 0."""
    return tag + varint(number & _64_BITS) if number else b""


_64_BITS = (1 << 64) - 1
#: Results of mutations that have no number, by whether the key was there.
_NO_NUMBER = {found: _result(found, 0, created=False) for found in (False, True)}
