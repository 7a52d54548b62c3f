"""Lines of an import: what they mean, how they are put together, and what is wrong with them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kvtwisted.core.errors import KvError
from kvtwisted.core.limits import MAX_KEY_BYTES, MAX_TTL_SECONDS, MAX_VALUE_BYTES
from kvtwisted.http import import_lines
from kvtwisted.http.import_lines import BATCH_BYTES, BATCH_KEYS, MAX_LINE, Bad, Batch, Entry, LineReader

#: Says that these are about no backend.
WITHOUT_BACKEND = True

NOW = 1_700_000_000_000


def read(data: bytes, skip_lines: int = 0, max_keys: int = 10_000) -> list[Batch | Bad]:
    """What lines are."""
    return list(LineReader(skip_lines, max_keys).read(data, NOW))


def entries(data: bytes) -> list[Entry]:
    """The entries of good lines."""
    found: list[Entry] = []
    for item in read(data):
        assert isinstance(item, Batch)
        found += item.entries
    return found


def line_of(document: Any) -> bytes:
    """A line of JSON."""
    return json.dumps(document).encode() + b"\n"


def test_what_lines_mean() -> None:
    """Text, bytes, deadlines; spaces and empty lines mean nothing, and neither does the last line of an export."""
    data = (
        b'{"key":"a","value":"1"}\n'
        b'\n \r\n{ "data" : "/w==", "key" : "b" }\r\n'
        b'{"key":"\\u00e4","value":"","expires_at_ms":1700000000001}\n'
        b'{"end":true,"count":3,"revision":7}\n'
        b'{"key":"c","value":"no newline"}'
    )
    assert entries(data) == [
        Entry(1, b"a", b"1", 0),
        Entry(4, b"b", b"\xff", 0),
        Entry(5, "\u00e4".encode(), b"", NOW + 1),
        Entry(7, b"c", b"no newline", 0),
    ]


def test_what_has_expired_is_left_out() -> None:
    """And counted."""
    data = line_of({"key": "a", "value": "1", "expires_at_ms": NOW}) + line_of({"key": "b", "value": "2"})
    (batch,) = read(data)
    assert isinstance(batch, Batch)
    assert (batch.expired, [entry.key for entry in batch.entries]) == (1, [b"b"])
    assert (batch.line, batch.end) == (2, len(data))


@pytest.mark.parametrize(
    ("line", "code", "beginning"),
    [
        (b"nonsense", "invalid_json", "invalid JSON at column 1"),
        (b'{"key":"a","value":"1"', "invalid_json", "invalid JSON"),
        (b'{"key":"a","key":"b","value":"1"}', "invalid_json", "duplicate"),
        (b'{"key":"a","value":"\xff"}', "invalid_json", "invalid UTF-8"),
        (b'{"key":"a","value":"\\ud800"}', "invalid_json", "the lone surrogate"),
        (b"[]", "invalid_request", "the line"),
        (b"{}", "invalid_request", "key: is missing"),
        (b'{"end":1}', "invalid_request", "key: is missing"),
        (b'{"next_cursor":"k","count":1}', "incomplete_export", "the export ended here"),
        (b'{"error":"x","code":"y"}', "incomplete_export", "the export ended here"),
        (b'{"key":"","value":""}', "invalid_key", "key: must not be empty"),
        (b'{"key":1,"value":""}', "invalid_key", "key"),
        (line_of({"key": "k" * (MAX_KEY_BYTES + 1), "value": ""}), "invalid_key", "key: too long"),
        (line_of({"key": "k", "value": "v" * (MAX_VALUE_BYTES + 1)}), "too_large", "value: too large"),
        (b'{"key":"k"}', "invalid_value", "value: a line needs either"),
        (b'{"key":"k","value":"","data":""}', "invalid_value", "value: a line needs either"),
        (b'{"key":"k","value":null}', "invalid_value", "value"),
        (b'{"key":"k","data":7}', "invalid_value", "data"),
        (b'{"key":"k","data":"a"}', "invalid_value", "data: is not base64"),
        (b'{"key":"k","data":"a-_="}', "invalid_value", "data: is not base64"),
        (b'{"key":"k","value":"","ttl":1}', "invalid_request", '"ttl": is not a field'),
        (b'{"key":"k","value":"","expires_at_ms":-1}', "invalid_ttl", "expires_at_ms: must not"),
        (b'{"key":"k","value":"","expires_at_ms":1.5}', "invalid_ttl", "expires_at_ms"),
        (b'{"key":"k","value":"","expires_at_ms":true}', "invalid_ttl", "expires_at_ms"),
        (
            line_of({"key": "k", "value": "", "expires_at_ms": NOW + MAX_TTL_SECONDS * 1000 + 1}),
            "invalid_ttl",
            "expires_at_ms: is more",
        ),
        (b'{"key":"k","value":"' + b"x" * MAX_LINE + b'"}', "too_large", "the line is too long"),
    ],
)
def test_what_is_wrong_with_lines(line: bytes, code: str, beginning: str) -> None:
    """It is told by number and sentence, and what is before and behind it is read."""
    good = line_of({"key": "a", "value": "1"})
    data = good + line.rstrip(b"\n") + b"\n" + good
    before, bad, behind = read(data)
    assert isinstance(before, Batch)
    assert isinstance(behind, Batch)
    assert isinstance(bad, Bad)
    assert (bad.line, bad.error.code) == (2, code)
    assert str(bad.error).startswith(beginning)
    assert [entry.line for entry in before.entries + behind.entries] == [1, 3]
    assert (before.line, before.end) == (1, len(good))
    assert bad.end == len(data) - len(good)
    assert (behind.line, behind.end) == (3, len(data))


def test_batches_are_bounded() -> None:
    """In keys and in bytes; a large value is one by itself."""
    small = b"".join(line_of({"key": f"k{number}", "value": ""}) for number in range(2 * BATCH_KEYS + 1))
    assert [len(item.entries) for item in read(small) if isinstance(item, Batch)] == [BATCH_KEYS, BATCH_KEYS, 1]
    assert [len(item.entries) for item in read(small, max_keys=900) if isinstance(item, Batch)] == [500, 500, 1]
    assert {len(item.entries) for item in read(small, max_keys=7) if isinstance(item, Batch)} == {7}
    large = b"".join(line_of({"key": f"k{number}", "value": "x" * (BATCH_BYTES // 2)}) for number in range(3))
    assert [len(item.entries) for item in read(large) if isinstance(item, Batch)] == [1, 1, 1]


def test_lines_that_are_left_out_are_not_read() -> None:
    """But counted, so that numbers are those of the whole body."""
    data = b"nonsense\n" * 3 + line_of({"key": "a", "value": "1"}) + b"nonsense\n"
    reader = LineReader(3, 10_000)
    first, second = data[:20], data[20:]
    # As whole lines only.
    first, second = data[:18], data[18:]
    items = [*reader.read(first, NOW), *reader.read(second, NOW)]
    assert [entry for item in items if isinstance(item, Batch) for entry in item.entries] == [Entry(4, b"a", b"1", 0)]
    assert [item.line for item in items if isinstance(item, Bad)] == [5]


_text = st.text(max_size=5) | st.sampled_from(["", "k", "\u00fc", '"', "\\", "\x00", "\n", "\r", "\x7f"])


@st.composite
def _lines(draw: Any) -> bytes:
    """Lines as they are, or nearly."""
    line = draw(
        st.builds(lambda key, value: json.dumps({"key": key, "value": value}, separators=(",", ":")), _text, _text)
        | st.builds(lambda key, value: f'{{"key":"{key}","value":"{value}"}}', _text, _text)
        | st.builds(lambda key, value: json.dumps({"value": value, "key": key}), _text, _text)
        | st.sampled_from(['{"key":"a","value":"b"}}', '{"key":"a","valuE":"b"}', '{"key":"a","value":"b"} ', "{}"])
    )
    return str(line).encode() + draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\xff\n", b"\x00\n"]))


@settings(suppress_health_check=[HealthCheck.too_slow])  # beside other tests
@given(st.lists(_lines(), max_size=4).map(b"".join) | st.binary(max_size=40))
@example(b'{"key":"a","value":"\xc3"}\n{"key":"\xbc","value":"b"}\n')
@example(b'{"key":"a","value":"\xc3\n\xbc"}\n')
@example(b'{"key":"","value":""}\n')
def test_the_quick_way_means_the_same(data: bytes) -> None:
    """Whatever lines are, plain ones are what JSON says that they are."""
    quick = read(data)
    plain_pair = import_lines._plain_pair
    try:
        import_lines._plain_pair = lambda line: None
        slow = read(data)
    finally:
        import_lines._plain_pair = plain_pair
    assert list(map(_shown, quick)) == list(map(_shown, slow))


def _shown(item: Batch | Bad) -> object:
    return item if isinstance(item, Batch) else (item.line, _said(item.error), item.end)


def _said(error: KvError) -> tuple[str, str]:
    return error.code, str(error)


def test_plain_lines_are_read_at_once() -> None:
    """So that the property above is about two ways."""
    assert import_lines._plain_pair(b'{"key":"a","value":"b"}') == (b"a", b"b", 0)


_LARGE_VALUES = ["x" * 70_000, '"' * 70_000, "\u00fc" * 40_000, "\x01" * 20_000, "\U0001f600" * 20_000]


@pytest.mark.parametrize("value", _LARGE_VALUES, ids=range(len(_LARGE_VALUES)))
def test_large_lines_mean_the_same(value: str) -> None:
    """Whatever has to be escaped, and in base64."""
    for escaped in (True, False):
        line = json.dumps({"key": "\u00fc", "value": value, "expires_at_ms": NOW + 5}, ensure_ascii=escaped).encode()
        assert entries(line) == [Entry(1, "\u00fc".encode(), value.encode(), NOW + 5)]
    in_base64 = base64.b64encode(value.encode()).decode()
    assert entries(line_of({"data": in_base64, "key": "k"})) == [Entry(1, b"k", value.encode(), 0)]


@pytest.mark.parametrize(
    "end", [b'"', b'"}}', b'","value":"x"}', b'","ttl":1}', b'","expires_at_ms":-1}', b'\xff"}', b'\\ud800"}', b'\\x"}']
)
def test_what_is_wrong_with_large_lines(end: bytes) -> None:
    """Is said of that line alone."""
    good = line_of({"key": "a", "value": "1"})
    for line in (b'{"key":"k","value":"' + b"x" * 70_000 + end, b'{"value":"' + b"x" * 70_000 + b'"}'):
        _, bad, _ = read(good + line + b"\n" + good)
        assert isinstance(bad, Bad)
        assert bad.line == 2


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.binary(max_size=5), max_size=5))
def test_base64_comes_back(values: dict[str, bytes]) -> None:
    """Any bytes."""
    data = b"".join(line_of({"key": k, "data": base64.b64encode(v).decode()}) for k, v in values.items())
    assert {entry.key.decode(): entry.value for entry in entries(data)} == values
