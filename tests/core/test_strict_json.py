"""`strict_json.loads`: agrees with the standard parser on plain JSON, and refuses what has no one clear meaning."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.core.errors import InvalidRequest
from kvtwisted.core.strict_json import MAX_INTEGER_DIGITS, InvalidJson, loads

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**99), 10**99)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=40,
)


def refusal(data: bytes | str, max_depth: int = 32) -> str:
    """The message of the refusal that `data` meets."""
    with pytest.raises(InvalidJson) as refused:
        loads(data, max_depth)
    return str(refused.value)


@given(value=JSON, escaped=st.booleans(), indent=st.none() | st.just(1))
def test_gives_back_every_json_value(value: object, escaped: bool, indent: int | None) -> None:
    """What the standard library writes, escaped or not, is read back the same, from text and from bytes."""
    text = json.dumps(value, ensure_ascii=escaped, indent=indent)
    assert loads(text, 64) == value
    assert loads(text.encode("utf-8"), 64) == value


@given(st.text(alphabet='[]{}",:\\1anullue \n'))
def test_is_never_more_lenient_than_the_standard_parser(text: str) -> None:
    """For any text that the standard parser refuses, so does ours."""
    try:
        json.loads(text)
    except ValueError:
        assert refusal(text)


@given(st.lists(st.integers(0xD7F0, 0xE010) | st.sampled_from([0x5C, 0x22, 0x41]), max_size=6))
def test_finds_every_lone_surrogate_escape(units: list[int]) -> None:
    """UTF-16 units written as escapes are accepted exactly when they are valid UTF-16."""
    text = '"' + "".join("\\\\" if unit == 0x5C else f"\\u{unit:04X}" for unit in units) + '"'
    expected = json.loads(text)
    try:
        expected.encode("utf-8")
    except UnicodeEncodeError:
        assert "lone surrogate" in refusal(text)
    else:
        assert loads(text) == expected


def test_refusals_belong_to_the_error_family() -> None:
    """Transports answer a refusal as a bad request, under its own stable word."""
    assert issubclass(InvalidJson, InvalidRequest)
    assert InvalidJson.code == "invalid_json"


@pytest.mark.parametrize("data", [b"", "", b" \r\n\t "])
def test_empty_input(data: bytes | str) -> None:
    """Nothing, or white space alone, is named as what it is."""
    assert refusal(data) == "JSON is expected, but the input is empty"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{\n  'a': 1}", "invalid JSON at line 2 column 3: "),
        (b"[1, 2", "invalid JSON at line 1 column 6: "),
        (b"[1] 2", "invalid JSON at line 1 column 5: Extra data"),
        (b"[01]", "invalid JSON at line 1 column 3: "),
        (b'"a\nb"', "invalid JSON at line 1 column 3: Invalid control character"),
        (b'["\\ud8"]', "invalid JSON at line 1 column "),
        (b"\xc2\xa0[1]", "invalid JSON at line 1 column 1: "),
    ],
)
def test_syntax_errors_say_where(data: bytes, message: str) -> None:
    """A syntax error gives line and column."""
    assert refusal(data).startswith(message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": "\xff"}', "invalid UTF-8 at byte 7 (0xff)"),
        (b'"\xed\xa0\x80"', "invalid UTF-8 at byte 1 (0xed)"),
        (b'"\xc0\xaf"', "invalid UTF-8 at byte 1 (0xc0)"),
        (b"\xff\xfe[\x00]\x00", "invalid UTF-8 at byte 0 (0xff)"),
        (b'"\xf0\x9f\x98', "invalid UTF-8 at byte 1 (0xf0)"),
    ],
)
def test_invalid_utf8(data: bytes, message: str) -> None:
    """Bytes that are not UTF-8 (other encodings, encoded surrogates, overlong forms) are refused with their place."""
    assert refusal(data) == message


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf{}", "\ufeff{}"])
def test_byte_order_mark(data: bytes | str) -> None:
    """A byte order mark is refused by name."""
    assert "byte order mark" in refusal(data)


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 1}', '[{"x": {"b": 0, "a": 1, "\\u0061": 2}}]', '{"a": 1, "b": 2, "a": 3}']
)
def test_duplicate_keys(text: str) -> None:
    """A key given twice in one object is named, at any depth and however it is written."""
    assert refusal(text) == 'duplicate key "a"'


def test_the_same_key_in_different_objects_is_fine() -> None:
    """Only keys of one object clash."""
    assert loads('[{"a": {"a": 1}}, {"a": 2}]') == [{"a": {"a": 1}}, {"a": 2}]


def test_a_long_duplicate_key_is_cut() -> None:
    """A message never repeats a large input."""
    name = json.dumps("k" * 100_000)
    assert len(refusal(f"{{{name}: 1, {name}: 2}}")) < 100


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("form", ["%s", "[1, %s]", '{"a": %s}'])
def test_constants_that_are_not_json(word: str, form: str) -> None:
    """NaN and the infinities are refused wherever they stand."""
    assert refusal(form % word) == f"{word} is not JSON"


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400 + ".0"])
def test_overflowing_floats(number: str) -> None:
    """A number that would become an infinity is refused."""
    assert refusal(f"[{number}]") == f"the number {number[:60]} is too large"


def test_the_longest_integer() -> None:
    """Integers have a limit in digits, sign apart; one more is refused, and a huge one at no cost."""
    longest = "9" * MAX_INTEGER_DIGITS
    assert loads(f"[{longest}, -{longest}]") == [int(longest), -int(longest)]
    assert refusal(f"-{longest}0") == "an integer may have at most 100 digits; this one has 101"
    assert refusal("1" * 1_000_000) == "an integer may have at most 100 digits; this one has 1000000"


@pytest.mark.parametrize(
    ("data", "code_point"),
    [
        ('"\\ud800"', "D800"),
        ('"\\uDFFF"', "DFFF"),
        ('{"\\uD83D": 1}', "D83D"),
        ('["\\ud83d\\\\\\ude00"]', "D83D"),
        ('"\\ude00\\ud83d"', "DE00"),
        ('"\\ud83d\\ud83d\\ude00\\ude00"', "D83D"),
        ('["\ud800"]', "D800"),
        ('{"\udc00": 1}', "DC00"),
    ],
)
def test_lone_surrogates(data: str, code_point: str) -> None:
    """Half a surrogate pair is refused in keys and values, escaped or not."""
    assert refusal(data) == f"the lone surrogate U+{code_point} is not Unicode text"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\uDBFF\\uDFFF\\ud800\\udc00"', "\U0010ffff\U00010000"),
        (r'"\\ud800"', r"\ud800"),
        (r'"\\\ud83d\ude00\\"', "\\\U0001f600\\"),
    ],
)
def test_what_only_looks_like_a_lone_surrogate(text: str, value: str) -> None:
    """Whole pairs are accepted, and so is an escaped backslash before what is then plain text."""
    assert loads(text) == value


@pytest.mark.parametrize("max_depth", [0, 1, 2, 5, 40])
def test_the_depth_limit_is_exact(max_depth: int) -> None:
    """As many levels as allowed are accepted, arrays and objects alike; one more is refused."""
    text = "1"
    for level in range(max_depth):
        text = f'{{"[": {text}}}' if level % 2 else f"[{text}, []]" if level else f"[{text}]"
    loads(text, max_depth)
    assert (
        refusal(f"[{text}]", max_depth) == f"objects and arrays may be at most {max_depth} levels deep; this is deeper"
    )


@pytest.mark.parametrize(
    "value", [{"[" * 50: "{" * 50}, ['\\"' + "[" * 50], ["\\", "[" * 50], ['"', "[" * 50], {"a": [[], {}] * 50}]
)
def test_brackets_in_strings_and_side_by_side_are_not_depth(value: object) -> None:
    """Only nesting counts: not brackets in strings, behind escaped quotes, or in values that follow each other."""
    assert loads(json.dumps(value), 3) == value


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 100_000, b'["\\"",' * 100_000, b'["\\\\",' + b"[" * 100_000]
)
def test_extreme_depth_is_refused_before_it_is_parsed(data: bytes) -> None:
    """Over-deep input costs neither recursion nor a structure built from it."""
    tracemalloc.start()
    try:
        assert "at most 32 levels deep" in refusal(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(data)
