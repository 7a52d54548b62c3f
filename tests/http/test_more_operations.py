"""Bytes, conditions, numbers, ttls and transactions over JSON: the exact answers of the contract."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kvtwisted.commands.conditions import etag_of
from kvtwisted.http.bodies import LARGE
from kvtwisted.http.routes import TRANSACT_LARGE

from .support import Reply, World, problem

#: Says that these tests run over every backend at every change.
BACKENDS_DIFFER = True

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

BYTES = b"\xff\x00\xc3("


def written(reply: Reply) -> dict[str, Any]:
    """The good answer of a write, without its revision, which is one."""
    assert reply.status == 200, reply.body
    document: dict[str, Any] = reply.json()
    assert document.pop("success") is True
    assert document.pop("revision") > 0
    return document


def refused(reply: Reply) -> tuple[str | None, int | None]:
    """The etag in the answer to a condition that does not hold, and the number of the check."""
    assert problem(reply)[:2] == (412, "condition_failed")
    document = reply.json()
    assert reply.headers.get("etag") == (f'"{document["etag"]}"' if document["etag"] else None)
    return document["etag"], document.get("failed_check")


def set_if(world: World, key: str, value: str, condition: Any, **more: Any) -> Reply:
    """A Set with a condition."""
    return world.post("/api/v1/set", {"key": key, "value": value, "condition": condition, **more})


# Bytes.


def test_bytes_in_base64() -> None:
    """They go in and out as they are, and an answer that has base64 says so."""
    world = World()
    text = base64.b64encode(BYTES).decode()
    assert world.post("/api/v1/set", {"key": "k", "value": text, "ttl": 9, "encoding": "base64"}).status == 200
    answer = world.request("GET", "/api/v1/get/k?encoding=base64")
    assert answer.body == b'{"key":"k","value":"%b","encoding":"base64","ttl":9}' % text.encode()
    answer = world.request("GET", "/api/v1/get/k?etag=true&encoding=base64")
    assert answer.json()["etag"] == etag_of(BYTES)
    assert world.post("/api/v1/mset", {"key_values": {"a": "YQ==", "b": text}, "encoding": "base64"}).status == 200
    assert world.request("GET", "/api/v1/get/a").body == b'{"key":"a","value":"a"}'
    answer = world.post("/api/v1/mget", {"keys": ["b", "a", "x"], "encoding": "base64"})
    assert answer.body == b'{"results":{"b":"%b","a":"YQ=="},"encoding":"base64"}' % text.encode()
    page = world.request("GET", "/api/v1/scan?encoding=base64&limit=2").json()
    assert (page["results"], page["encoding"], page["count"]) == ({"a": "YQ==", "b": text}, "base64", 2)


def test_bytes_that_are_asked_for_as_text() -> None:
    """A get is refused; mget and scan leave that key out, and say so."""
    world = World()
    for key, value in ((b"a", b"1"), (b"b", BYTES), (b"c", b"3")):
        world.storage.store.set(key, value)
    for query in ("", "?etag=true"):
        assert problem(world.request("GET", f"/api/v1/get/b{query}"))[:2] == (409, "value_not_text")
    answer = world.post("/api/v1/mget", {"keys": ["c", "b", "a"]})
    document = answer.json()
    assert (answer.status, list(document)) == (200, ["results", "not_text", "error"])
    assert (document["results"], document["not_text"]) == ({"c": "3", "a": "1"}, ["b"])
    page = world.request("GET", "/api/v1/scan?limit=2").json()
    assert list(page) == ["prefix", "limit", "count", "results", "not_text", "error", "next_cursor"]
    assert (page["count"], page["results"], page["not_text"], page["next_cursor"]) == (1, {"a": "1"}, ["b"], "b")
    page = world.request("GET", "/api/v1/scan?keys_only=true").json()
    assert (page["keys"], page["count"]) == (["a", "b", "c"], 3)


@pytest.mark.parametrize(
    "query", ["x", "encoding=text", "encoding=base64&encoding=base64", "etag=1", "etag=true&", "ttl=5"]
)
def test_other_queries_of_get_are_keys_that_were_not_encoded(query: str) -> None:
    """As ever: a key is not cut at its question mark."""
    world = World()
    for path in ("get/k", "delete/k", "raw/k"):
        reply = world.request("DELETE" if path == "delete/k" else "GET", f"/api/v1/{path}?{query}")
        status, code, sentence = problem(reply)
        assert (status, code) == (400, "invalid_key")
        assert "%3F" in sentence


def test_an_etag_is_the_value_s() -> None:
    """Blake2b over the bytes, whatever the ttl."""
    world = World()
    world.post("/api/v1/set", {"key": "k", "value": "é", "ttl": 5})
    answer = world.request("GET", "/api/v1/get/k?etag=true")
    assert answer.body == '{{"key":"k","value":"é","ttl":5,"etag":"{}"}}'.format(etag_of("é".encode())).encode()


# Conditions.


def test_conditions_of_a_set() -> None:
    """Each kind, as it holds and as it does not; what failed has written nothing and tells what is there."""
    world = World()
    there, other = {"value": "1"}, {"value": "2"}
    assert refused(set_if(world, "k", "1", {"present": True})) == (None, None)
    assert refused(set_if(world, "k", "1", there)) == (None, None)
    assert refused(set_if(world, "k", "1", {"etag": etag_of(b"1")})) == (None, None)
    assert world.request("GET", "/api/v1/get/k").status == 404
    assert written(set_if(world, "k", "1", {"absent": True})) == {"message": "key set successfully"}
    assert refused(set_if(world, "k", "2", {"absent": True})) == (etag_of(b"1"), None)
    assert refused(set_if(world, "k", "2", other)) == (etag_of(b"1"), None)
    assert refused(set_if(world, "k", "2", {"etag": etag_of(b"2")})) == (etag_of(b"1"), None)
    assert world.request("GET", "/api/v1/get/k").json()["value"] == "1"
    for condition in ({"present": True}, there, {"etag": etag_of(b"1")}):
        assert written(set_if(world, "k", "1", condition, ttl=5)) == {"message": "key set successfully"}
    assert world.request("GET", "/api/v1/get/k").json() == {"key": "k", "value": "1", "ttl": 5}
    world.storage.time.advance(5_000)
    assert refused(set_if(world, "k", "1", {"present": True})) == (None, None)


def test_a_condition_in_base64() -> None:
    """The encoding is that of all values of a request."""
    world = World()
    world.storage.store.set(b"k", BYTES)
    text = base64.b64encode(BYTES).decode()
    assert refused(set_if(world, "k", "YQ==", {"value": "AAAA"}, encoding="base64")) == (etag_of(BYTES), None)
    written(set_if(world, "k", "YQ==", {"value": text}, encoding="base64"))
    assert world.request("GET", "/api/v1/get/k").json()["value"] == "a"


def test_revisions_grow() -> None:
    """From write to write, of whatever kind."""
    world = World()
    replies = [
        set_if(world, "k", "1", {"absent": True}),
        world.post("/api/v1/increment", {"key": "k", "delta": 1}),
        world.post("/api/v1/touch", {"key": "k", "ttl": 5}),
        world.post("/api/v1/transact", {"mutations": [{"delete": {"key": "k"}}]}),
        world.request("PUT", "/api/v1/raw/k", b"v", if_none_match="*"),
        world.request("DELETE", "/api/v1/delete/k", if_match="*"),
    ]
    revisions = [reply.json()["revision"] for reply in replies]
    assert revisions == sorted(set(revisions))
    assert max(revisions) < 2**53


def test_a_condition_with_a_large_value() -> None:
    """It is read in a thread, and means the same."""
    world = World()
    large = "é" * LARGE
    written(set_if(world, "k", large, {"absent": True}))
    assert refused(set_if(world, "k", "v", {"value": large + "x"})) == (etag_of(large.encode()), None)
    written(set_if(world, "k", large[1:], {"value": large}))
    written(world.post("/api/v1/touch", {"key": "k", "ttl": 9, "condition": {"value": large[1:]}}))
    assert world.request("GET", "/api/v1/get/k").json()["ttl"] == 9


# Numbers and ttls.


def test_increment() -> None:
    """The number, whether it is new, and a ttl that only a new one takes."""
    world = World()
    assert written(world.post("/api/v1/increment", {"key": "n", "delta": 5, "ttl": 9})) == {"value": 5, "created": True}
    assert written(world.post("/api/v1/increment", {"key": "n", "delta": -7, "ttl": 99})) == {
        "value": -2,
        "created": False,
    }
    assert world.request("GET", "/api/v1/get/n").json() == {"key": "n", "value": "-2", "ttl": 9}


def test_numbers_of_64_bits_are_exact() -> None:
    """At both ends; beyond them nothing is written."""
    world = World()
    for bound, beyond in ((2**63 - 1, 1), (-(2**63), -1)):
        reply = world.request("POST", "/api/v1/increment", b'{"key":"%d","delta":%d}' % (beyond, bound))
        assert b'"value":%d,' % bound in reply.body
        reply = world.post("/api/v1/increment", {"key": str(beyond), "delta": beyond})
        assert problem(reply)[:2] == (409, "number_overflow")
        assert world.request("GET", f"/api/v1/get/{beyond}").json()["value"] == str(bound)
        status, code, sentence = problem(world.post("/api/v1/increment", {"key": "k", "delta": bound + beyond}))
        assert (status, code) == (400, "invalid_request")
        assert sentence.startswith("delta: must be of 64 bits")


@pytest.mark.parametrize("value", ["", "x", "1.0", " 1", "+1", "01", "-0", "9223372036854775808", "1\n"])
def test_what_is_no_number(value: str) -> None:
    """Only what an increment writes is incremented."""
    world = World()
    world.post("/api/v1/set", {"key": "k", "value": value})
    assert problem(world.post("/api/v1/increment", {"key": "k", "delta": 1}))[:2] == (409, "not_a_number")
    assert world.request("GET", "/api/v1/get/k").json()["value"] == value


def test_touch() -> None:
    """The ttl changes, ends or begins, and the value stays; a missing key is told of."""
    world = World()
    answer = world.post("/api/v1/touch", {"key": "k", "ttl": 5})
    assert (answer.status, answer.body) == (200, b'{"success":true,"found":false,"revision":0}')
    world.post("/api/v1/set", {"key": "k", "value": "v"})
    for ttl in (5, 50, 0):
        assert written(world.post("/api/v1/touch", {"key": "k", "ttl": ttl})) == {"found": True}
        assert world.request("GET", "/api/v1/get/k").json() == {
            "key": "k",
            "value": "v",
            **({"ttl": ttl} if ttl else {}),
        }
    reply = world.post("/api/v1/touch", {"key": "k", "ttl": 5, "condition": {"value": "x"}})
    assert refused(reply) == (etag_of(b"v"), None)
    assert "ttl" not in world.request("GET", "/api/v1/get/k").json()


# Transactions.


def test_a_transaction() -> None:
    """Checks of what was there before, changes in order, also of one key, and a result for each."""
    world = World()
    world.post("/api/v1/mset", {"key_values": {"a": "1", "b": "x"}})
    answer = world.post(
        "/api/v1/transact",
        {
            "checks": [{"key": "a", "condition": {"value": "1"}}, {"key": "c", "condition": {"absent": True}}],
            "mutations": [
                {"increment": {"key": "a", "delta": 41}},
                {"set": {"key": "c", "value": "new", "ttl": 50}},
                {"touch": {"key": "c", "ttl": 9}},
                {"delete": {"key": "b"}},
                {"delete": {"key": "b"}},
                {"increment": {"key": "d", "delta": -1}},
                {"touch": {"key": "e"}},
            ],
        },
    )
    assert written(answer)["results"] == [
        {"found": True, "value": 42, "created": False},
        {"found": False},
        {"found": True},
        {"found": True},
        {"found": False},
        {"found": False, "value": -1, "created": True},
        {"found": False},
    ]
    assert world.post("/api/v1/mget", {"keys": list("abcde")}).json() == {"results": {"a": "42", "c": "new", "d": "-1"}}
    assert world.request("GET", "/api/v1/get/c").json()["ttl"] == 9


def test_a_transaction_that_fails_does_nothing() -> None:
    """The first check that does not hold is named, and what is at its key; an error names the mutation."""
    world = World()
    world.post("/api/v1/mset", {"key_values": {"a": "1", "b": "x"}})
    checks = [{"key": "a", "condition": {"present": True}}, {"key": "b", "condition": {"absent": True}}]
    mutations = [{"set": {"key": "c", "value": "v"}}, {"increment": {"key": "b", "delta": 1}}]
    answer = world.post("/api/v1/transact", {"checks": checks, "mutations": mutations})
    assert refused(answer) == (etag_of(b"x"), 2)
    assert answer.json()["error"].startswith("checks[1].condition:")
    answer = world.post("/api/v1/transact", {"checks": checks[:1], "mutations": mutations})
    status, code, sentence = problem(answer)
    assert (status, code) == (409, "not_a_number")
    assert sentence.startswith("mutations[1].increment.key:")
    assert world.stored() == {b"a": b"1", b"b": b"x"}


@pytest.mark.parametrize("size", [TRANSACT_LARGE - 200, TRANSACT_LARGE + 1, LARGE + 1])
def test_large_transactions(size: int) -> None:
    """However large, and whatever reads it, it does the same."""
    world = World()
    mutations = [{"set": {"key": f"k{number}", "value": "YQ=="}} for number in range(size // 60)]
    document = {"mutations": mutations, "encoding": "base64"}
    body = json.dumps(document).encode()
    body += b" " * (size - len(body))
    assert len(written(world.request("POST", "/api/v1/transact", body))["results"]) == len(mutations)
    assert world.stored() == {f"k{number}".encode(): b"a" for number in range(size // 60)}


@pytest.mark.parametrize(
    ("document", "code", "sentence"),
    [
        ({"mutations": [{"delete": {"key": ""}}]}, "invalid_key", "mutations[0].delete.key: must not be empty"),
        ({"mutations": [{"set": {"key": "k", "value": "v", "ttl": -1}}]}, "invalid_ttl", "mutations[0].set.ttl: must"),
        ({"checks": [{"key": "k", "condition": {"etag": "X"}}]}, "invalid_request", "checks[0].condition.etag: must"),
        ({"checks": [{"key": "k" * 1025, "condition": {"absent": True}}]}, "invalid_key", "checks[0].key: too long"),
        (
            {"mutations": [{"delete": {"key": "a"}}, {"set": {"key": "k", "value": 5}}]},
            "invalid_value", "mutations[1].set.value: must be a string, but a number was sent",
        ),
        (
            {"mutations": [{"set": {"key": "k", "value": "!"}}], "encoding": "base64"},
            "invalid_value", "mutations[0].set.value: is not base64",
        ),
        ({"mutations": [{"increment": {"key": "k"}}]}, "invalid_request", "mutations[0].increment.delta: is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_transaction_is_named(document: Any, code: str, sentence: str) -> None:
    """By its place in the document, whoever notices it; nothing is done."""
    world = World()
    status, found, words = problem(world.post("/api/v1/transact", document))
    assert (status, found) == (400, code)
    assert words.startswith(sentence)
    assert world.stored() == {}


def test_as_many_checks_and_mutations_as_there_may_be() -> None:
    """And one more, of which nothing is done."""
    world = World()
    world.bounds.max_batch_keys = 4
    checks = [{"key": "k", "condition": {"absent": True}}] * 2
    for count, status in ((2, 200), (3, 413)):
        mutations = [{"set": {"key": "a", "value": ""}}] * count
        for padding in ("", " " * LARGE):
            body = json.dumps({"checks": checks, "mutations": mutations}) + padding
            assert world.request("POST", "/api/v1/transact", body.encode()).status == status


# Preconditions of routes that have none.


@pytest.mark.parametrize("name", ["if_match", "if_none_match"])
@pytest.mark.parametrize("route", ["set", "mset", "increment", "touch", "transact", "mdelete", "mget"])
def test_preconditions_are_not_passed_over(route: str, name: str) -> None:
    """Where they are not heeded they are refused."""
    world = World()
    status, code, sentence = problem(world.request("POST", f"/api/v1/{route}", b"{}", **{name: "*"}))
    assert (status, code) == (400, "invalid_request")
    assert "condition" in sentence


def test_a_get_is_answered_whatever_is_asked_of_etags() -> None:
    """Its answers have none."""
    world = World()
    world.post("/api/v1/set", {"key": "k", "value": "v"})
    assert world.request("GET", "/api/v1/get/k", if_none_match="*").status == 200


def test_deletes_heed_preconditions() -> None:
    """Those of keys, by either path."""
    for path in ("delete", "raw"):
        world = World()
        target = f"/api/v1/{path}/k"
        assert refused(world.request("DELETE", target, if_match="*")) == (None, None)
        world.post("/api/v1/set", {"key": "k", "value": "v"})
        assert refused(world.request("DELETE", target, if_match='"x"')) == (etag_of(b"v"), None)
        assert refused(world.request("DELETE", target, if_none_match="*")) == (etag_of(b"v"), None)
        reply = world.request("DELETE", target, if_match=f'"{etag_of(b"v")}"')
        assert written(reply) == {"message": "key deleted successfully"}
        assert world.stored() == {}


# Ranges.


@pytest.fixture
def folders() -> World:
    """Keys that look like paths."""
    world = World()
    keys = ["a", "d/1", "d/e/2", "d/e/3", "d/f/4", "d/é", "z"]
    world.post("/api/v1/mset", {"key_values": {key: key.upper() for key in keys}})
    return world


@pytest.mark.local_backend
@pytest.mark.parametrize(
    ("query", "keys", "rest"),
    [
        ("start=d/e/3&end=z", ["d/e/3", "d/f/4", "d/é"], {}),
        ("prefix=d/&start=a&end=d/f", ["d/1", "d/e/2", "d/e/3"], {}),
        ("prefix=d/&reverse=true&limit=2", ["d/é", "d/f/4"], {"limit": 2, "next_cursor": "d/f/4"}),
        ("prefix=d/&reverse=true&limit=2&cursor=d/f/4", ["d/e/3", "d/e/2"], {"limit": 2, "next_cursor": "d/e/2"}),
        ("prefix=d/&delimiter=/", ["d/1", "d/é"], {"prefixes": ["d/e/", "d/f/"]}),
        ("delimiter=/", ["a", "z"], {"prefixes": ["d/"]}),
        ("prefix=d/&delimiter=/&reverse=true", ["d/é", "d/1"], {"prefixes": ["d/f/", "d/e/"]}),
        ("start=%C3%BF", [], {}),
        ("revision=true&limit=1", ["a"], {"limit": 1, "next_cursor": "a"}),
    ],
)
def test_scans_of_ranges(folders: World, query: str, keys: list[str], rest: dict[str, Any]) -> None:
    """In their order, with and without values; the answer has the snapshot's revision."""
    expected = {"limit": 100, "count": len(keys), "next_cursor": "", **rest}
    for more in ("", "&keys_only=true", "&encoding=base64"):
        page = folders.request("GET", f"/api/v1/scan?{query}{more}").json()
        assert page.pop("revision") > 0
        found = page.pop("keys") if more == "&keys_only=true" else list(page.pop("results").items())
        values = [(key, key.upper()) for key in keys]
        if more == "&encoding=base64":
            assert page.pop("encoding") == "base64"
            values = [(key, base64.b64encode(value.encode()).decode()) for key, value in values]
        assert found == (keys if more == "&keys_only=true" else values)
        page.pop("prefix")
        assert page == expected


@pytest.mark.local_backend
def test_counting(folders: World) -> None:
    """All keys, unless a limit is sent; nothing else is in the answer."""
    page = folders.request("GET", "/api/v1/scan?prefix=d/&count_only=true").json()
    assert page.pop("revision") > 0
    assert page == {"prefix": "d/", "limit": 0, "count": 5, "next_cursor": ""}
    page = folders.request("GET", "/api/v1/scan?prefix=d/&count_only=true&limit=2").json()
    assert (page["count"], page["limit"]) == (2, 2)


def test_old_scans_are_answered_as_ever() -> None:
    """Byte by byte, whatever scans can do besides."""
    world = World()
    world.post("/api/v1/set", {"key": "k", "value": "v"})
    for query in ("", "?limit=100", "?prefix=&cursor=", "?keys_only=false"):
        answer = world.request("GET", f"/api/v1/scan{query}")
        assert answer.body == b'{"prefix":"","limit":100,"count":1,"results":{"k":"v"},"next_cursor":""}'


@pytest.mark.local_backend
def test_deleting_a_range(folders: World) -> None:
    """Counted first, then done; what lies beside stays. Everything goes only when that is said."""
    answer = folders.post("/api/v1/delete_range", {"prefix": "d/", "dry_run": True})
    assert (answer.status, answer.body) == (200, b'{"success":true,"deleted":5,"revision":0}')
    assert written(folders.post("/api/v1/delete_range", {"prefix": "d/", "start": "d/e", "end": "d/g"})) == {
        "deleted": 3
    }
    assert list(folders.stored()) == [key.encode() for key in ("a", "d/1", "d/é", "z")]
    for document in ({}, {"all": False}, {"all": True, "prefix": "d"}):
        assert problem(folders.post("/api/v1/delete_range", document))[:2] == (400, "invalid_request")
    for document in ({"all": 1}, {"prefix": None}, {"end": ["z"]}, {"dry_run": "true", "all": True}, {"keys": []}):
        assert folders.post("/api/v1/delete_range", document).status == 400
    assert written(folders.post("/api/v1/delete_range", {"all": True})) == {"deleted": 4}
    assert folders.stored() == {}
