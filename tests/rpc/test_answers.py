"""Answers that are put together by hand are those that protobuf makes, and none has a string that is not text."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvtwisted.commands.conditions import etag_of
from kvtwisted.commands.deciding import Mutated, Outcome
from kvtwisted.commands.delete_range import Removed
from kvtwisted.commands.get import Found
from kvtwisted.commands.scan import Page
from kvtwisted.core.errors import Corruption, ValueNotText
from kvtwisted.rpc import answers
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import METHODS, Call

#: Says that these are about no backend.
WITHOUT_BACKEND = True

_CALL = Call(1.0, 4_194_304)
_SIZES = st.sampled_from([0, 1, 126, 127, 128, 300, 16_383, 16_384])
_text = st.text(max_size=20) | st.sampled_from(["", "k", "ü", "\x00", "\x7f", "\x80"]) | _SIZES.map("v".__mul__)
_key = st.text(max_size=20)
_value = _text.map(str.encode) | st.binary(max_size=5) | st.sampled_from([b"\xff", b"\xc3", b"\xbc", b"\xff" * 300])
_values = st.dictionaries(_key, _value, max_size=8)
_ttl = st.sampled_from([0, 0, 1, 127, 128, 3_155_760_000])
_64_bits = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1, 127, 128])
_revision = st.sampled_from([0, 1, 127, 128, 1_700_000_000_000_000, 2**53, 2**63 - 1])
_etag = st.sampled_from(["", etag_of(b"")])


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(_value, _ttl, st.booleans(), st.booleans())
@example(b"\xff", 7, False, False)
def test_gets(value: bytes, ttl: int, as_data: bool, with_etag: bool) -> None:
    """As text, which a value must be then, or as data; with an etag or without."""
    command: Any = METHODS["Get"].make(kv.GetRequest(as_data=as_data, with_etag=with_etag), _CALL)
    assert command.encode(None) == b""
    if not (as_data or _is_text(value)):
        with pytest.raises(ValueNotText, match="as_data"):
            command.encode(Found(value, ttl))
        return
    expected = kv.GetResponse(found=True, ttl=ttl)
    if as_data:
        expected.data = value
    else:
        expected.value = value.decode()
    if with_etag:
        expected.etag = blake2b(value, digest_size=16).hexdigest()
    assert kv.GetResponse.FromString(command.encode(Found(value, ttl))) == expected


@given(_values, st.booleans())
@example({"a": b"\xc3", "b": b"\xbc"}, False)
@example({str(number): b"\xff" for number in range(8)}, False)
def test_many_values(values: dict[str, bytes], as_data: bool) -> None:
    """MGet's: those that are not text are named when text is asked for, and all others come."""
    command: Any = METHODS["MGet"].make(kv.MGetRequest(as_data=as_data), _CALL)
    answer = kv.MGetResponse.FromString(command.encode({key.encode(): value for key, value in values.items()}))
    if as_data:
        assert answer == kv.MGetResponse(data=values)
        return
    not_text = [key for key, value in values.items() if not _is_text(value)]
    assert list(answer.not_text) == not_text
    assert bool(answer.error) == bool(not_text)
    assert answer.key_values == {key: value.decode() for key, value in values.items() if key not in not_text}


@given(_values, _key, st.integers(0, 300), st.lists(_key, max_size=3), _revision, st.sampled_from([0, 5, 2**62]))
def test_pages(
    values: dict[str, bytes], cursor: str, counted: int, prefixes: list[str], revision: int, at: int
) -> None:
    """Those of scans, whatever they were asked for."""
    keys = [key.encode() for key in values]
    page = Page(
        keys, list(values.values()), cursor.encode(), [at] * len(keys), counted,
        [prefix.encode() for prefix in prefixes], revision,
    )  # fmt: skip
    around: Any = {"next_cursor": cursor, "count": counted, "prefixes": prefixes, "revision": revision}
    scan_keys: Any = METHODS["ScanKeys"].make(kv.ScanRequest(), _CALL)
    assert kv.ScanKeysResponse.FromString(scan_keys.encode(page)) == kv.ScanKeysResponse(keys=list(values), **around)
    entries = [kv.Entry(key=key, data=value, expires_at_ms=at) for key, value in values.items()]
    for asked in ({"as_data": True}, {"reverse": True}):
        command: Any = METHODS["ScanKeyValues"].make(kv.ScanRequest(**asked), _CALL)
        assert command.with_expiries
        answer = kv.ScanKeyValuesResponse.FromString(command.encode(page))
        assert answer == kv.ScanKeyValuesResponse(entries=entries, **around)
    plain: Any = METHODS["ScanKeyValues"].make(kv.ScanRequest(), _CALL)
    assert not plain.with_expiries
    answer = kv.ScanKeyValuesResponse.FromString(plain.encode(page))
    not_text = [key for key, value in values.items() if not _is_text(value)]
    texts = {key: value.decode() for key, value in values.items() if key not in not_text}
    assert bool(answer.error) == bool(not_text)
    answer.ClearField("error")
    assert answer == kv.ScanKeyValuesResponse(key_values=texts, not_text=not_text, **around)


@pytest.mark.parametrize("pair", [(b"\xff", b"v"), (b"\xc3", b"\xbc")])
def test_a_key_that_is_no_text_is_damage(pair: tuple[bytes, bytes]) -> None:
    """Also where it would be text together with its value."""
    with pytest.raises(Corruption, match="not UTF-8"):
        answers.encoded_pairs([(b"a", b"b"), pair])


def test_what_is_said_of_values_that_are_not_text() -> None:
    """How many there are, which field names them, and what helps."""
    said = kv.MGetResponse.FromString(answers.encoded_values({b"a": b"\xff", b"b": b"x"}))
    rest = "left out, see not_text; with as_data all come as data"
    assert said.error == f"key_values: 1 value is not UTF-8 text and was {rest}"
    said = kv.MGetResponse.FromString(answers.encoded_values({b"a": b"\xff", b"b": b"\xfe"}))
    assert said.error == f"key_values: 2 values are not UTF-8 text and were {rest}"


def test_lengths_without_end_are_forgotten() -> None:
    """What is remembered by length is bounded, and right after it was forgotten."""
    for size in range(5000):
        pairs = {"k": "v" * (size * 13)} if size % 100 == 0 else {"k" * (size % 70): "v" * size}
        encoded, _ = answers.encoded_pairs((key.encode(), value.encode()) for key, value in pairs.items())
        assert kv.MGetResponse.FromString(encoded).key_values == pairs
    assert sum(map(len, answers._heads.values())) <= 2 * answers._REMEMBERED_HEADS


@given(_revision, st.booleans(), st.booleans(), _64_bits)
def test_writes_that_were_done(revision: int, found: bool, created: bool, number: int) -> None:
    """Conditional ones, Touch, Increment and Transact."""
    outcome = Outcome(revision, mutated=[Mutated(found, number, created)])
    done: Any = {"success": True, "revision": revision}
    assert kv.SetResponse.FromString(answers.encoded_write(outcome)) == kv.SetResponse(**done)
    # Of what is there, its deadline is written; of what is not, nothing.
    touched = kv.TouchResponse(found=bool(revision), **done)
    of_touch = Outcome(revision, mutated=[Mutated(bool(revision))])
    assert kv.TouchResponse.FromString(answers.encoded_touch(of_touch)) == touched
    increased = kv.IncrementResponse(value=number, created=created, **done)
    assert kv.IncrementResponse.FromString(answers.encoded_increment(outcome)) == increased
    result = kv.MutationResult(found=found, value=number, created=created)
    assert result.ByteSize() + 2 <= answers.RESULT_BYTES
    three = Outcome(revision, mutated=[Mutated(found, number, created)] * 3)
    transacted = kv.TransactResponse(results=[result] * 3, **done)
    assert kv.TransactResponse.FromString(answers.encoded_transact(three)) == transacted
    assert kv.TransactResponse.FromString(answers.encoded_transact(Outcome())) == kv.TransactResponse(success=True)


@given(_etag, st.integers(1, 10_000))
def test_conditions_that_did_not_hold(etag: str, check: int) -> None:
    """No success, and the present etag; a Transact says which one it was."""
    outcome = Outcome(failed_check=check, etag=etag)
    failed: Any = {"error": "the condition does not hold", "condition_failed": True, "etag": etag}
    assert kv.SetResponse.FromString(answers.encoded_write(outcome)) == kv.SetResponse(**failed)
    assert kv.TouchResponse.FromString(answers.encoded_touch(outcome)) == kv.TouchResponse(**failed)
    assert kv.TransactResponse.FromString(answers.encoded_transact(outcome)) == kv.TransactResponse(
        error=f"the condition of check {check} does not hold", failed_check=check, etag=etag
    )


@given(st.sampled_from([0, 1, 200, 2**40]), _revision)
def test_ranges_that_were_removed(deleted: int, revision: int) -> None:
    """How many keys, and when."""
    answer = kv.DeleteRangeResponse.FromString(answers.encoded_removed(Removed(deleted, revision)))
    assert answer == kv.DeleteRangeResponse(success=True, deleted=deleted, revision=revision)
