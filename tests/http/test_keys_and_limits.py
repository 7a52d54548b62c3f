"""Keys as clients send them, and the sizes of the contract."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ..support.properties import repeatable
from .support import Reply, World, problem

LARGEST = "v" * 1_048_576

#: Keys that a router might decode, merge, split or redirect.
AWKWARD_KEYS = [
    "a/b", "/", "//", "///a//b///", "/a", "a/", "./.", "..", "../..", "../../etc/passwd", "a/../b", ".", "a/./b",
    " ", " a ", "%", "%2F", "%252F", "100%", "%zz", "?", "a?b=c", "#", "a#b", "&=;", "+", "a+b", "\\", "~", "*",
    "<tail:tail>", "http://h/p", "\0", "\n", "\x7f", "é", "e\u0301", "ключ", "キー", "😀", "👩‍👩‍👧", "\u202e",
    "\ufeff", "\uffff", "k" * 1024, "é" * 512, "😀" * 256, "/" * 1024,
]  # fmt: skip


def get(world: World, key: str) -> Reply:
    """GET `key`, all of it percent-encoded."""
    return world.request("GET", f"/api/v1/get/{quote(key, safe='')}")


@pytest.mark.parametrize("key", AWKWARD_KEYS)
def test_awkward_keys(key: str) -> None:
    """What set stores under a key, get finds and delete removes, and the answer names the key."""
    world = World()
    assert world.post("/api/v1/set", {"key": key, "value": "v"}).status == 200
    assert world.stored() == {key.encode(): b"v"}
    answer = get(world, key)
    assert (answer.status, answer.json()) == (200, {"key": key, "value": "v"})
    assert world.request("DELETE", f"/api/v1/delete/{quote(key)}").status == 200
    assert world.stored() == {}


@repeatable
@given(
    key=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
    safe=st.sampled_from(["", "/", "/:@!$&'()*+,;=~"]),
)
def test_any_key_round_trips(key: str, safe: str) -> None:
    """Any Unicode text: written by JSON, read by URL, whatever the client leaves unencoded."""
    world = World()
    world.post("/api/v1/set", {"key": key, "value": key})
    answer = world.request("GET", f"/api/v1/get/{quote(key, safe=safe)}")
    assert (answer.status, answer.json()) == (200, {"key": key, "value": key})


@pytest.mark.parametrize("tail", ["", "%ff", "%", "%2", "%zz", "k" * 1025, "%C3%A9" * 513])
def test_keys_that_are_none(tail: str) -> None:
    """Empty, too long, not UTF-8, or not percent-encoding: 400, on get and on delete."""
    world = World()
    assert problem(world.request("GET", f"/api/v1/get/{tail}"))[:2] == (400, "invalid_key")
    assert problem(world.request("DELETE", f"/api/v1/delete/{tail}"))[:2] == (400, "invalid_key")


def test_a_question_mark_that_was_not_encoded() -> None:
    """The shorter key is neither read nor deleted."""
    world = World()
    world.post("/api/v1/set", {"key": "a", "value": "v"})
    assert problem(world.request("DELETE", "/api/v1/delete/a?b"))[:2] == (400, "invalid_key")
    assert world.stored() == {b"a": b"v"}


def test_an_empty_query_is_no_query() -> None:
    """Some clients end every URL with a question mark."""
    assert World().request("GET", "/api/v1/get/k?").json()["code"] == "key_not_found"


def test_the_largest_value() -> None:
    """1,048,576 bytes go in and come out; one more is 413 and changes nothing."""
    world = World()
    assert world.post("/api/v1/set", {"key": "k", "value": LARGEST}).status == 200
    assert get(world, "k").json()["value"] == LARGEST
    assert problem(world.post("/api/v1/set", {"key": "k", "value": LARGEST + "v"}))[:2] == (413, "too_large")
    assert world.stored() == {b"k": LARGEST.encode()}


def test_batch_limits() -> None:
    """10,000 keys are accepted, one more is 413 on every batch."""
    world = World()
    keys = [str(number) for number in range(10_001)]
    for path in ("mget", "mdelete"):
        assert world.post(f"/api/v1/{path}", {"keys": keys[1:]}).status == 200
        assert problem(world.post(f"/api/v1/{path}", {"keys": keys}))[:2] == (413, "too_large")
    assert problem(world.post("/api/v1/mset", {"key_values": dict.fromkeys(keys, "")}))[:2] == (413, "too_large")
    assert world.stored() == {}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("set", b'{"key":"k","value":"v","ttl":-1}'),
        ("set", b'{"key":"","value":"v"}'),
        ("set", b'{"key":"k","key":"k","value":"v"}'),
        ("set", b'{"key":"k","value":"v","x":1}'),
        ("set", b'{"key":"k","value":1}'),
        ("mset", b'{"key_values":{"a":"1","":"2"}}'),
        ("mset", b'{"key_values":{"a":"1","b":2}}'),
        ("mset", b'{"key_values":{"a":"1"},"ttl":1.5}'),
        ("mset", b'{"key_values":{"a":"1","a":"2"}}'),
        ("mdelete", b'{"keys":["old",""]}'),
        ("mdelete", b'{"keys":["old",1]}'),
        ("mdelete", b""),
    ],
)
def test_nothing_is_written_by_a_bad_request(path: str, body: bytes) -> None:
    """400, and the store is as it was."""
    world = World()
    world.post("/api/v1/set", {"key": "old", "value": "v"})
    assert world.request("POST", f"/api/v1/{path}", body).status == 400
    assert world.stored() == {b"old": b"v"}
