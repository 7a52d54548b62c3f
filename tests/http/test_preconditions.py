"""If-Match and If-None-Match: what they mean, and what is refused."""

from __future__ import annotations

import pytest

from kvtwisted.commands.conditions import Condition, etag_of
from kvtwisted.commands.conditions import Test as Asked
from kvtwisted.core.errors import InvalidRequest
from kvtwisted.http.preconditions import Preconditions, tag_of

#: Says that these are about no backend.
WITHOUT_BACKEND = True

VALUE = b"some value"
ETAG = etag_of(VALUE)
TAG = tag_of(VALUE).encode()
OTHERS = [b'"x"', b'""', b'"' + ETAG.upper().encode() + b'"', b"W/" + TAG, b'W/"x"', b'"a,b"', b'"\xe9"']


def if_match(*lines: bytes) -> Preconditions:
    """A request with If-Match."""
    return Preconditions(if_match=lines)


def if_none_match(*lines: bytes) -> Preconditions:
    """A request with If-None-Match."""
    return Preconditions(if_none_match=lines)


def test_nothing_is_asked_without_them() -> None:
    """Of neither reads nor writes."""
    assert Preconditions().for_writing() is Preconditions().for_reading() is None


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        (if_match(b"*"), Condition(Asked.PRESENT)),
        (if_match(b" \t* "), Condition(Asked.PRESENT)),
        (if_none_match(b"*"), Condition(Asked.ABSENT)),
        (if_match(TAG), Condition(Asked.ETAG, ETAG.encode())),
        (if_match(b"\t" + TAG + b" "), Condition(Asked.ETAG, ETAG.encode())),
    ],
)
def test_conditions_of_writes(sent: Preconditions, condition: Condition) -> None:
    """Each is a condition as JSON and gRPC have them."""
    assert sent.for_writing() == condition


@pytest.mark.parametrize("tag", OTHERS)
def test_other_tags_match_nothing(tag: bytes) -> None:
    """Weak ones, and such as the server never gives: the condition is a good one, and never holds."""
    condition = if_match(tag).for_writing()
    assert condition is not None
    condition.check()
    assert [condition.holds(value) for value in (VALUE, b"", b"x", None)] == [False] * 4
    asked = if_none_match(tag).for_reading()
    assert asked is not None
    assert not asked.answers(ETAG)
    asked = if_match(tag).for_reading()
    assert asked is not None
    assert (asked.status, asked.answers(ETAG)) == (412, True)


@pytest.mark.parametrize(
    ("sent", "status", "is_answered"),
    [
        (if_match(b"*"), 412, False),
        (if_match(TAG), 412, False),
        (if_none_match(b"*"), 304, True),
        (if_none_match(TAG), 304, True),
    ],
)
def test_reads(sent: Preconditions, status: int, is_answered: bool) -> None:
    """If-Match that holds changes nothing; If-None-Match that does not is 304."""
    asked = sent.for_reading()
    assert asked is not None
    assert (asked.status, asked.answers(ETAG)) == (status, is_answered)


@pytest.mark.parametrize(
    ("lines", "matches"),
    [
        ((TAG, b'"x"'), True),
        ((b'"x"', TAG), True),
        ((b'"x" , ,\t' + TAG + b" ,",), True),
        ((b'W/"a",W/' + TAG,), False),
        ((b'W/"a","b"',), False),
        ((b'"a,' + TAG[1:] + b',"b"',), False),
    ],
)
def test_lists_of_reads(lines: tuple[bytes, ...], matches: bool) -> None:
    """One of them is enough, unless it is weak."""
    for make, status in ((if_match, 412), (if_none_match, 304)):
        asked = make(*lines).for_reading()
        assert asked is not None
        assert (asked.status, asked.answers(ETAG)) == (status, matches is (status == 304))


@pytest.mark.parametrize("lines", [(TAG, TAG), (TAG + b", " + TAG,), (b'W/"a","b"',)])
@pytest.mark.parametrize("make", [if_match, if_none_match])
def test_several_for_a_write(make: type[Preconditions], lines: tuple[bytes, ...]) -> None:
    """Are not one condition."""
    with pytest.raises(InvalidRequest, match=r"^If-(None-)?Match: several ETags"):
        make(*lines).for_writing()


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ((TAG + TAG + b"x",), "must be"),
        ((b"*, *",), "must be"),
        ((b"*, " + TAG,), "must be"),
        ((b"",), "must be"),
        ((b'"',), "must be"),
        ((ETAG.encode(),), "must be"),
        ((TAG + b"x",), "must be"),
        ((b'w/"a"',), "must be"),
        ((b'"a b"',), "must be"),
        ((b'"a\x7f"',), "must be"),
        ((b"," * 8000,), "must be"),
        ((b'W/"' * 2001,), "must be"),
    ],
)
@pytest.mark.parametrize("make", [if_match, if_none_match])
def test_what_is_refused(make: type[Preconditions], lines: tuple[bytes, ...], sentence: str) -> None:
    """Several tags, and what is none: a field that is not understood is not passed over."""
    for ask in (make(*lines).for_writing, make(*lines).for_reading):
        with pytest.raises(InvalidRequest, match=rf"^If-(None-)?Match: {sentence}"):
            ask()


def test_not_both_at_once() -> None:
    """For no method."""
    both = Preconditions((b"*",), (b"*",))
    for ask in (both.for_writing, both.for_reading):
        with pytest.raises(InvalidRequest, match="only one of them"):
            ask()


def test_what_no_condition_can_say() -> None:
    """If-None-Match with a tag, where something is written."""
    with pytest.raises(InvalidRequest, match="only \\*"):
        if_none_match(TAG).for_writing()
