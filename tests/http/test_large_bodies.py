"""Large bodies: read as small ones are, and refused at the first thing that cannot be right."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvtwisted.core.errors import InvalidRequest, TooLarge
from kvtwisted.http import bodies, large_bodies
from kvtwisted.http.encodings import MAX_CHARACTERS

from ..support.properties import fuzzing

#: Says that these are about no backend.
WITHOUT_BACKEND = True

MANY = 100
Reader = Callable[[bytes], Any]
#: What reads small bodies, and large ones.
READERS: dict[str, tuple[Reader, Reader]] = {
    "set": (bodies.set_arguments, large_bodies.set_arguments),
    "mset": (lambda body: bodies.mset_arguments(body, MANY), lambda body: large_bodies.mset_arguments(body, MANY)),
    "mget": (lambda body: bodies.mget_arguments(body, MANY), lambda body: large_bodies.mget_arguments(body, MANY)),
    "touch": (bodies.touch_arguments, large_bodies.touch_arguments),
    "transact": (lambda body: bodies.transaction(body, MANY), lambda body: large_bodies.transaction(body, MANY)),
}


def outcome(read: Reader, body: bytes) -> Any:
    """What it gives, or what it refuses with."""
    try:
        return read(body)
    except InvalidRequest as error:
        return error


GOOD = {
    "set": [
        b'{"key":"k","value":"v"}',
        b' {\t"ttl" : 5 ,\r\n"value": "" , "key":"a/b" } ',
        '{"key":"é","value":"😀"}'.encode(),
        rb'{"key":"\ud83d\ude00","value":"\u0000\"\\\/\b"}',
        b'{"key":"k","value":"' + b'\\"' * 200_000 + b'","ttl":0}',
        b'{"key":"k","value":"' + "é\\n".encode() * 9_000 + b'"}',
        b'{"key":"k","value":"YQ==","encoding":"base64","condition":{"value":"\\/w=="}}',
        b'{"condition":{"absent":true},"key":"k","value":""}',
        b'{"condition":{"present": true },"key":"k","value":""}',
        b'{"condition" : {"etag":"' + b"0" * 32 + b'"},"key":"k","value":""}',
    ],
    "mset": [
        b'{"key_values":{}}',
        b'{"key_values":{"a":"1","b":"2"},"ttl":9}',
        b'{"ttl":1,"key_values":{"a":"\\u0041"}}',
    ],
    "touch": [b'{"key":"k"}', b'{"key":"k","ttl":5,"condition":{"value":"YQ=="},"encoding":"base64"}'],
    "transact": [
        b"{}",
        b'{"checks":[],"mutations":[]}',
        b'{"checks":[{"key":"a","condition":{"absent":true}},{"condition":{"value":"\\u0041"},"key":"b"}]}',
        b'{"mutations":[{"set":{"key":"a","value":"YQ==","ttl":1}},{"delete":{"key":"b"}},{"touch":{"key":"c"}},'
        b'{"increment":{"key":"d","delta":-9223372036854775808,"ttl":5}}],"encoding":"base64"}',
    ],
    "mget": [
        b'{"keys":[],"encoding":"base64"}',
        b'{"keys":[]}',
        b'{"keys":["b","a","b"]}',
        b'{ "keys" : [ "a" , "\\n" ] }',
        '{"keys":["ключ"]}'.encode(),
    ],
}


@pytest.mark.parametrize(("route", "body"), [(route, body) for route, some in GOOD.items() for body in some])
def test_good_bodies(route: str, body: bytes) -> None:
    """They mean the same, however large they are."""
    small, large = READERS[route]
    assert large(body) == small(body)


BAD = {
    "set": [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"5",
        b"{",
        b'{"key"',
        b'{"key":',
        b'{"key":"k"',
        b'{"key":"k","value":"v"}x',
        b"\xef\xbb\xbf{}",
        b'{"key":"k","value":"v",}',
        b'{"key":"k" "value":"v"}',
        b'{key:"k"}',
        b'{"key":1,"value":"v"}',
        b'{"key":"k","value":null}',
        b'{"key":"k"}',
        b'{"value":"v"}',
        b'{"key":"k","value":"v","x":1}',
        b'{"key":"k","key":"k","value":"v"}',
        b"{}",
        b'{"key":"k","value":"v","ttl":5.0}',
        b'{"key":"k","value":"v","ttl":"5"}',
        b'{"key":"k","value":"v","ttl":null}',
        b'{"key":"k","value":"v","ttl":NaN}',
        b'{"key":"k","value":"v","ttl":[]}',
        b'{"key":"k","value":"v","ttl":05}',
        b'{"key":"k","value":"\n"}',
        b'{"key":"k","value":"\xff"}',
        rb'{"key":"k","value":"\x"}',
        rb'{"key":"k","value":"\ud800"}',
        b'{"key":"k","value":"v\\"}',
        b'{"key":"k","value":"v',
        b'{"key":"k","value":}',
        b'{"key":"k","value":"YQ","encoding":"base64"}',
        b'{"key":"k","value":"YQ==","encoding":"hex"}',
        b'{"key":"k","value":"YQ==","encoding":null}',
        b'{"key":"k","value":"v","condition":null}',
        b'{"key":"k","value":"v","condition":true}',
        b'{"key":"k","value":"v","condition":{}}',
        b'{"key":"k","value":"v","condition":{"absent":true,"present":true}}',
        b'{"key":"k","value":"v","condition":{"absent":true,"absent":true}}',
        b'{"key":"k","value":"v","condition":{"absent":false}}',
        b'{"key":"k","value":"v","condition":{"absent":1}}',
        b'{"key":"k","value":"v","condition":{"present":"true"}}',
        b'{"key":"k","value":"v","condition":{"present":{}}}',
        b'{"key":"k","value":"v","condition":{"value":true}}',
        b'{"key":"k","value":"v","condition":{"etag":5}}',
        b'{"key":"k","value":"v","condition":{"Absent":true}}',
    ],
    "touch": [b"{}", b'{"key":"k","value":"v"}', b'{"key":"k","ttl":"5"}', b'{"key":"k","condition":{"value":1}}'],
    "transact": [
        b"[]",
        b'{"checks":{}}',
        b'{"checks":[1]}',
        b'{"checks":[{}]}',
        b'{"checks":[{"key":"k"}]}',
        b'{"checks":[{"key":"k","condition":{}}]}',
        b'{"checks":[{"key":"k","condition":{"absent":true},"x":1}]}',
        b'{"checks":[{"key":5,"condition":{"absent":true}}]}',
        b'{"mutations":null}',
        b'{"mutations":[[]]}',
        b'{"mutations":[{}]}',
        b'{"mutations":[{"set":{"key":"k"}}]}',
        b'{"mutations":[{"set":[]}]}',
        b'{"mutations":[{"set":{"key":"k","value":"v","condition":{"absent":true}}}]}',
        b'{"mutations":[{"delete":{"key":"a"},"touch":{"key":"a"}}]}',
        b'{"mutations":[{"delete":{"key":"a"}},{"delete":{"key":"a"},"delete":{"key":"a"}}]}',
        b'{"mutations":[{"drop":{"key":"a"}}]}',
        b'{"mutations":[{"touch":{"key":"a","ttl":1.5}}]}',
        b'{"mutations":[{"increment":{"key":"a"}}]}',
        b'{"mutations":[{"increment":{"key":"a","delta":"1"}}]}',
        b'{"mutations":[{"increment":{"key":"a","delta":1.0}}]}',
        b'{"mutations":[{"increment":{"key":"a","delta":true}}]}',
        b'{"mutations":[{"increment":{"key":"a","delta":9223372036854775808}}]}',
        b'{"mutations":[{"set":{"key":"a","value":"YR=="}}],"encoding":"base64"}',
        b'{"mutations":[{"delete":{"key":"a"}},]}',
        b'{"mutations":[{"delete":{"key":"a"}}',
    ],
    "mset": [
        b'{"key_values":[]}',
        b'{"key_values":{"a":1}}',
        b'{"key_values":{"a":"1","a":"2"}}',
        b'{"key_values":{"a"}}',
        b"{}",
        b'{"key_values":{"a":"1",}}',
        b'{"key_values":{1:"a"}}',
        b'{"key_values":{"\\ud800":"a"}}',
        b'{"key_values":{"a":{}}}',
    ],
    "mget": [
        b'{"keys":{}}',
        b'{"keys":"a"}',
        b'{"keys":[1]}',
        b'{"keys":["a",{}]}',
        b'{"keys":["a",[]]}',
        b'{"keys":["a",]}',
        b"{}",
        b'{"keys":["a" "b"]}',
        b'{"keys":["a"',
        b'{"keys":[true]}',
        b'{"keys":["a\x00"]}',
        b'[{"":0}]',
        b'{"keys":["\\ud800"]}',
    ],
}


@pytest.mark.parametrize(("route", "body"), [(route, body) for route, some in BAD.items() for body in some])
def test_bad_bodies(route: str, body: bytes) -> None:
    """They are refused with the same code, and in the same words where the fault is not one of JSON."""
    small, large = READERS[route]
    expected, found = outcome(small, body), outcome(large, body)
    assert isinstance(expected, InvalidRequest)
    assert isinstance(found, InvalidRequest)
    assert found.code == expected.code
    assert found.code == "invalid_json" or str(found) == str(expected)


UNITS = (rb"\"", rb"\\", rb"\n", rb"\u00e9", rb"\ud83d\ude00", "é".encode(), "😀".encode())
HALVES = (rb"\ud83d", rb"\ude00", rb"\ud83d\u0041", rb"\u12", b"\\", b"\xc3", b"\xc3\\n", b"\n", rb"\x")


@pytest.mark.parametrize("unit", UNITS + HALVES)
def test_strings_are_cut_at_no_escape(unit: bytes) -> None:
    """Wherever a piece of a string with escapes would end, it means the same, or is refused as before."""
    small, large = READERS["set"]
    for offset in range(14):
        body = b'{"key":"k","value":"\\t' + b"a" * (large_bodies._PIECE - offset) + unit * 3 + b'"}'
        for sent in (body, body[:-2]):
            expected, found = outcome(small, sent), outcome(large, sent)
            if isinstance(expected, InvalidRequest):
                assert isinstance(found, InvalidRequest)
                assert found.code == expected.code
            else:
                assert found == expected


@pytest.mark.parametrize("unit", [rb"\"", rb"\u000a", rb"\ud83d\ude00", "é\\n".encode()])
def test_the_parser_has_pieces(unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the interpreter for all that it is given: of a long string with escapes that is a part."""
    sizes: list[int] = []

    def scan(text: str, *rest: Any) -> Any:
        sizes.append(len(text))
        return real(text, *rest)

    real = large_bodies.scanstring
    monkeypatch.setattr(large_bodies, "scanstring", scan)
    value = unit * 100_000
    written, _ = large_bodies.set_arguments(b'{"key":"k","value":"' + value + b'"}')
    assert written.value == json.loads(b'"%s"' % value).encode()
    assert len(sizes) > 2
    assert max(sizes) <= large_bodies._PIECE + 1


def test_a_value_of_escapes_has_its_limit() -> None:
    """What it means counts, and what is over that is not read on."""
    for size, good in ((MAX_CHARACTERS, True), (MAX_CHARACTERS + 1, False)):
        found = outcome(large_bodies.set_arguments, b'{"key":"k","value":"' + rb"\u0041" * size + b'"}')
        assert isinstance(found, TooLarge) != good


#: Names of fields.
NAMES = (
    "key", "value", "keys", "key_values", "ttl", "condition", "encoding", "checks", "mutations", "set", "delete",
    "touch", "increment", "delta", "absent", "present", "etag",
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=()), max_size=6) | st.sampled_from((*NAMES, "base64", "YQ=="))
VALUES = st.recursive(
    TEXT | st.integers() | st.floats() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


KEYS_AND_VALUES = st.sampled_from(("", "a", "é", "YQ==", 'quote"', "\\", 5, None))
CONDITION = st.dictionaries(
    st.sampled_from(("absent", "present", "value", "etag")), KEYS_AND_VALUES | st.just(True), min_size=1, max_size=2
)
CHANGE = st.fixed_dictionaries(
    {"key": KEYS_AND_VALUES},
    optional={"value": KEYS_AND_VALUES, "ttl": st.integers(-1, 5), "delta": st.integers(), "condition": CONDITION},
)
MUTATION = st.dictionaries(st.sampled_from(("set", "delete", "touch", "increment")), CHANGE, min_size=1, max_size=2)
TRANSACTIONS = st.fixed_dictionaries(
    {},
    optional={
        "checks": st.lists(st.fixed_dictionaries({"key": KEYS_AND_VALUES, "condition": CONDITION}), max_size=2),
        "mutations": st.lists(MUTATION, max_size=2),
        "encoding": st.just("base64"),
    },
)


@fuzzing(100)
@given(TRANSACTIONS, st.booleans())
def test_both_readers_agree_on_transactions(document: Any, ascii_only: bool) -> None:
    """Those that are nearly good, too: in the same words, where more than one thing is wrong with the same code."""
    body = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    small, large = READERS["transact"]
    expected, found = outcome(small, body), outcome(large, body)
    if isinstance(expected, InvalidRequest):
        assert isinstance(found, InvalidRequest)
    else:
        assert found == expected


@fuzzing(100)
@given(
    st.sampled_from(sorted(READERS)),
    st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, VALUES)),
    st.booleans(),
    st.none()
    | st.tuples(st.integers(0, 100), st.sampled_from([b"", b'"', b"\\", b",", b"}", b"]", b":", b"\xff", b"1"])),
)
@example("set", {"key": "k", "value": "v"}, True, None)
def test_both_readers_agree(route: str, document: Any, ascii_only: bool, change: tuple[int, bytes] | None) -> None:
    """On anything: they take the same, and refuse the same."""
    body = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    if change is not None:
        at, put = change
        body = body[:at] + put + body[at + 1 :]
    small, large = READERS[route]
    expected, found = outcome(small, body), outcome(large, body)
    if isinstance(expected, InvalidRequest):
        assert isinstance(found, InvalidRequest)
    else:
        assert found == expected


def read_of(reader: Reader, body: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """How far a body was looked at when it was refused."""
    readers: list[Any] = []

    class Watched(large_bodies._Reader):
        def __init__(self, data: bytes) -> None:
            super().__init__(data)
            readers.append(self)

    monkeypatch.setattr(large_bodies, "_Reader", Watched)
    with pytest.raises(InvalidRequest):
        reader(body)
    at: int = readers[0]._at
    return at


SIZE = 2_000_000


@pytest.mark.parametrize(
    ("route", "start", "piece"),
    [
        ("mget", b"[", b'{"":0},'),
        ("mget", b'{"keys":[', b'{"":0},'),
        ("mget", b'{"keys":[', b'"",'),
        ("mget", b'{"keys":[', b"[],"),
        ("mget", b'{"x":[', b'"",'),
        ("mget", b'{"keys":["', b"x"),
        ("mget", b'{"keys":["', b'\\"'),
        ("mset", b'{"key_values":{"', b"x"),
        ("mget", b"", b"["),
        ("set", b'{"key":"', b"x"),
        ("set", b'{"key":"k","value":{', b'"a":1,'),
        ("set", b'{"', b"x"),
        ("set", b'{"condition":{', b'"x":{},'),
        ("set", b'{"condition":{"etag":"', b"0"),
        ("transact", b'{"checks":[', b"{},[],"),
        ("transact", b'{"mutations":[', b'{"":0},'),
        ("transact", b'{"mutations":[', b'{"set":{"key":{}}},'),
        ("transact", b'{"mutations":[{"set":{', b'"key":"k",'),
        ("transact", b'{"mutations":[', b'{"delete":{"key":"k"}},'),
    ],
)
def test_a_flood_is_refused_early(route: str, start: bytes, piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not much of it is looked at."""
    body = start + piece * (SIZE // len(piece))
    assert read_of(READERS[route][1], body, monkeypatch) < 10_000


def test_one_key_too_many() -> None:
    """As many as there may be, and one more, of which nothing is made."""
    for count, good in ((MANY, True), (MANY + 1, False)):
        keys = json.dumps({"keys": ["k"] * count}).encode()
        pairs = json.dumps({"key_values": {str(number): "" for number in range(count)}}).encode()
        for route, body in (("mget", keys), ("mset", pairs)):
            for read in READERS[route]:
                assert (not isinstance(outcome(read, body), InvalidRequest)) == good
                assert good or outcome(read, body).code == "too_large"
