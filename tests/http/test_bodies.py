"""Request bodies: what is accepted, and what each refusal says."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest

from kvtwisted.core.errors import InvalidRequest
from kvtwisted.http import bodies
from kvtwisted.http.errors import UnsupportedMediaType

#: Says that these are about no backend.
WITHOUT_BACKEND = True

#: Keys that a body may have.
MANY = 100
#: Reads a body of each kind.
READERS: dict[str, Callable[[bytes], Any]] = {
    "set": bodies.set_arguments,
    "mset": lambda body: bodies.mset_arguments(body, MANY),
    "mget": lambda body: bodies.mget_arguments(body, MANY),
    "config": bodies.config_argument,
}


def refusal(route: str, body: bytes) -> tuple[str, str]:
    """The code and sentence with which a body is refused."""
    with pytest.raises(InvalidRequest) as caught:
        READERS[route](body)
    return caught.value.code, str(caught.value)


def test_set_takes_key_value_and_ttl() -> None:
    """Texts come out as UTF-8, the ttl as it is."""
    body = '{"ttl": 5, "value": "é", "key": "a/b"}'.encode()
    assert bodies.set_arguments(body) == ((b"a/b", "é".encode(), 5), None)


def test_ttl_defaults_to_never() -> None:
    """Without a ttl, set and mset mean 0."""
    assert bodies.set_arguments(b'{"key":"k","value":""}') == ((b"k", b"", 0), None)
    assert bodies.mset_arguments(b'{"key_values":{}}', MANY) == ({}, 0)


def test_mset_takes_pairs() -> None:
    """Pairs keep their order."""
    body = '{"key_values":{"z":"1","ключ":"2"},"ttl":9}'.encode()
    pairs, ttl = bodies.mset_arguments(body, MANY)
    assert (list(pairs.items()), ttl) == ([(b"z", b"1"), ("ключ".encode(), b"2")], 9)


def test_keys_keep_order_and_repetitions() -> None:
    """The list of keys is taken as it stands."""
    assert bodies.mget_arguments(b'{"keys":["b","a","b"]}', MANY) == ([b"b", b"a", b"b"], False)


def test_config_takes_any_object() -> None:
    """What a configuration may hold is not for this room to say."""
    assert bodies.config_argument(b'{"x":{"y":[1.5,null]}}') == {"x": {"y": [1.5, None]}}


def test_escaped_text_means_what_it_encodes() -> None:
    """A surrogate pair in escapes is one character."""
    assert bodies.set_arguments(rb'{"key":"\ud83d\ude00","value":"\u0000"}')[0][:2] == ("😀".encode(), b"\0")


@pytest.mark.parametrize("route", READERS)
@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "empty"),
        (b"{", "invalid JSON"),
        (b'\xef\xbb\xbf{"key":"k","value":"v"}', "byte order mark"),
        (b'{"key":"\xff","value":"v"}', "invalid UTF-8"),
        (b'{"key":"k","key":"k","value":"v"}', "duplicate key"),
        (b'{"key":"k","value":"v","ttl":NaN}', "NaN"),
        (b'{"key":"k","value":"v","ttl":-Infinity}', "Infinity"),
        (rb'{"key":"\ud800","value":"v"}', "lone surrogate"),
        (b'{"key":' + b"[" * 33 + b"]" * 33 + b"}", "levels deep"),
        (b'{"key":"k","value":"v"} {}', "invalid JSON"),
        (b"{'key':'k'}", "invalid JSON"),
    ],
)
def test_json_that_is_not_strict_is_refused(route: str, body: bytes, complaint: str) -> None:
    """Whatever the route, such a body is invalid_json, and the sentence says why."""
    code, sentence = refusal(route, body)
    assert code == "invalid_json"
    assert complaint in sentence


@pytest.mark.parametrize(
    ("route", "body", "code", "sentence"),
    [
        ("set", "[]", "invalid_request", "body: must be an object, but an array was sent"),
        ("set", '"k"', "invalid_request", "body: must be an object, but a string was sent"),
        ("mget", "null", "invalid_request", "body: must be an object, but null was sent"),
        ("config", "1", "invalid_config", "configuration: must be an object, but a number was sent"),
        ("set", '{"key":"k"}', "invalid_request", "value: is missing; set needs key and value"),
        ("set", '{"value":"v"}', "invalid_request", "key: is missing; set needs key and value"),
        ("mset", "{}", "invalid_request", "key_values: is missing; mset needs key_values"),
        ("mget", '{"key":"k"}', "invalid_request", "keys: is missing; mget needs keys"),
        (
            "set", '{"key":"k","value":"v","TTL":1}', "invalid_request",
            '"TTL": is not a field; set takes key, value, ttl, condition and encoding',
        ),
        (
            "mset", '{"key_values":{},"x":1}', "invalid_request",
            '"x": is not a field; mset takes key_values, ttl and encoding',
        ),
        ("mget", '{"keys":[],"ttl":1}', "invalid_request", '"ttl": is not a field; mget takes keys and encoding'),
        ("set", '{"key":1,"value":"v"}', "invalid_key", "key: must be a string, but a number was sent"),
        ("set", '{"key":null,"value":"v"}', "invalid_key", "key: must be a string, but null was sent"),
        ("set", '{"key":"k","value":true}', "invalid_value", "value: must be a string, but a boolean was sent"),
        ("set", '{"key":"k","value":{}}', "invalid_value", "value: must be a string, but an object was sent"),
        ("mset", '{"key_values":[]}', "invalid_request", "key_values: must be an object, but an array was sent"),
        ("mset", '{"key_values":{"a":1}}', "invalid_value", 'key_values["a"]: must be a string, but a number was sent'),
        ("mget", '{"keys":"a"}', "invalid_request", "keys: must be an array, but a string was sent"),
        ("mget", '{"keys":["a",2.5]}', "invalid_key", "keys[1]: must be a string, but a number was sent"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(route: str, body: str, code: str, sentence: str) -> None:
    """Missing, unknown and mistyped fields: which one, what it must be, what was sent."""
    assert refusal(route, body.encode()) == (code, sentence)


@pytest.mark.parametrize(
    ("ttl", "sent"),
    [
        ("5.0", "a number with a fraction or exponent"),
        ("1e3", "a number with a fraction or exponent"),
        ("true", "a boolean"),
        ('"5"', "a string"),
        ("null", "null"),
        ("[5]", "an array"),
    ],
)
def test_ttl_must_be_an_integer(ttl: str, sent: str) -> None:
    """Nothing but a JSON integer is a ttl, on set and on mset."""
    expected = ("invalid_ttl", f"ttl: must be a whole number of seconds, but {sent} was sent")
    assert refusal("set", f'{{"key":"k","value":"v","ttl":{ttl}}}'.encode()) == expected
    assert refusal("mset", f'{{"key_values":{{}},"ttl":{ttl}}}'.encode()) == expected


def test_sentences_cut_long_names() -> None:
    """A name of a megabyte is not sent back."""
    _, sentence = refusal("set", json.dumps({"key": "k", "value": "v", "x" * 1_000_000: 1}).encode())
    assert sentence == '"' + "x" * 60 + '...": is not a field; set takes key, value, ttl, condition and encoding'


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF8",
        'application/json ; charset="utf-8"',
        "application/json;",
    ],
)
def test_json_content_types_are_accepted(content_type: str) -> None:
    """JSON in UTF-8, however it is written."""
    bodies.check_content_type(content_type)


@pytest.mark.parametrize(
    ("content_type", "sent"),
    [
        (None, "but there is none"),
        ("", 'but "" was sent'),
        ("text/plain", 'but "text/plain" was sent'),
        ("application/x-www-form-urlencoded", 'but "application/x-www-form-urlencoded" was sent'),
        ("application/jsonp", 'but "application/jsonp" was sent'),
        ("application/json; charset=latin-1", 'but "application/json; charset=latin-1" was sent'),
        ("application/json; profile=x", 'but "application/json; profile=x" was sent'),
    ],
)
def test_other_content_types_are_refused(content_type: str | None, sent: str) -> None:
    """Anything else is named in the refusal."""
    with pytest.raises(UnsupportedMediaType) as caught:
        bodies.check_content_type(content_type)
    assert str(caught.value).endswith(sent)
