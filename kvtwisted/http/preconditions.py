"""If-Match and If-None-Match of requests for one key (RFC 9110, sections 8.8.3, 13.1.1, 13.1.2 and 13.2).

A value's entity-tag is its etag in quotes: a strong one, since it is made from all of the value's bytes. Tags are
compared character by character, and weak ones are never equal to anything. What cannot be one condition of a write is
refused: several tags in a field, both fields in one request, and If-None-Match with a tag where something is written.

A field without a meaning would be worse than a refused one: who sends it counts on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..commands.conditions import ETAG_DIGITS, Condition, Test, etag_of
from ..core.errors import InvalidRequest

#: The condition of a tag that no value of ours can have: nobody finds a value with this digest.
_NEVER = Condition(Test.ETAG, b"0" * ETAG_DIGITS)
_ETAG = re.compile(rb"[0-9a-f]{%d}" % ETAG_DIGITS)

# One tag, which may have a comma in it; and a list of them.
_TAG = rb'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"'
_ONE = re.compile(_TAG)
_SEVERAL = re.compile(rb"(?:%b|[ \t]|,)+" % _TAG)
_LIST = re.compile(rb"[ \t,]*%b(?:[ \t]*,[ \t,]*%b)*[ \t,]*" % (_TAG, _TAG))


class Preconditions(NamedTuple):
    """The lines of both fields, as they were sent."""

    if_match: Sequence[bytes] = ()
    if_none_match: Sequence[bytes] = ()

    def for_writing(self) -> Condition | None:
        """What must hold of the key before it is written; None: nothing. Raises InvalidRequest."""
        if not (self.if_match or self.if_none_match):
            return None
        self._check()
        if self.if_none_match:
            if _tag_of("If-None-Match", self.if_none_match) is not None:
                raise InvalidRequest("If-None-Match: only * is taken where something is written")
            return Condition(Test.ABSENT)
        tag = _tag_of("If-Match", self.if_match)
        if tag is None:
            return Condition(Test.PRESENT)
        return Condition(Test.ETAG, tag) if _ETAG.fullmatch(tag) else _NEVER

    def for_reading(self) -> ForReading | None:
        """What they ask of the value that is read; None: nothing. Raises InvalidRequest."""
        if not (self.if_match or self.if_none_match):
            return None
        self._check()
        if self.if_match:
            return ForReading(_tags_of("If-Match", self.if_match), 412)
        return ForReading(_tags_of("If-None-Match", self.if_none_match), 304)

    def _check(self) -> None:
        if self.if_match and self.if_none_match:
            raise InvalidRequest("If-Match and If-None-Match: only one of them is taken at once")


#: Without either.
UNCONDITIONAL = Preconditions()


class ForReading(NamedTuple):
    """What a read is answered with in place of a value that is there: `status` 412 unless it has one of the tags (None:
    any will do), or 304 if it has.
    """

    tags: frozenset[bytes] | None
    status: int

    def answers(self, etag: str) -> bool:
        """Whether that is the answer."""
        matches = self.tags is None or etag.encode() in self.tags
        return matches == (self.status == 304)


def quoted(etag: str) -> str:
    """The entity-tag, as the header ETag has it."""
    return f'"{etag}"'


def tag_of(value: bytes) -> str:
    """The entity-tag of a value. Up to 1.2 ms."""
    return quoted(etag_of(value))


def _tags_of(field: str, lines: Sequence[bytes]) -> frozenset[bytes] | None:
    """The tags in a field that something may have; None for `*`."""
    text = b",".join(lines)
    if text.strip(b" \t") == b"*":
        return None
    if not _LIST.fullmatch(text):
        raise _no_tag(field)
    return frozenset(tag for is_weak, tag in _ONE.findall(text) if not is_weak)


def _tag_of(field: str, lines: Sequence[bytes]) -> bytes | None:
    """The tag in a field; empty for one that nothing has, None for `*`."""
    text = b",".join(lines).strip(b" \t")
    if text == b"*":
        return None
    tag = _ONE.fullmatch(text)
    if tag is not None:
        return b"" if tag[1] else tag[2]
    if _SEVERAL.fullmatch(text) and text.count(b'"') > 2:
        raise InvalidRequest(f"{field}: several ETags were sent; one is taken")
    raise _no_tag(field)


def _no_tag(field: str) -> InvalidRequest:
    return InvalidRequest(f'{field}: must be * or one ETag in double quotes, such as "{etag_of(b"")}"')
