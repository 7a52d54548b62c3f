"""Which keys and values there may be, on both interfaces, and what is refused."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from .clients import Grpc, Http
from .harness import Server

KEYS = [
    "a/b//c/",
    "/",
    "//leading",
    "..",
    "a/../b",
    "with space",
    " ",
    "100%",
    "%2F",
    "%25%",
    "a+b",
    "a?b=c&d#e",
    "semi;colon",
    'quote"back\\slash',
    "tab\tnewline\r\n",
    "nul\0",
    "\x7f\x80",
    "ключ/鍵",
    "👩‍👩‍👧",
    "e\u0301",
    "x" * 1024,
    "é" * 512,
    "🗝" * 256,
]


@pytest.mark.parametrize("key", KEYS, ids=[ascii(key[:12]) for key in KEYS])
def test_keys(server: Server, key: str) -> None:
    """Any text of up to 1,024 bytes is a key: each interface reads what the other wrote under it."""
    path = quote(key, safe="")
    with server.http() as http, server.grpc() as client:
        assert http.post("/api/v1/set", {"key": key, "value": key}).status == 200
        assert client.call("Get", key=key).value == key
        assert client.call("Set", key=key, value="2").success
        assert http.get(f"/api/v1/get/{path}").body == {"key": key, "value": "2"}
        assert http.get(f"/api/v1/scan?prefix={path}").body["results"][key] == "2"
        assert http.post("/api/v1/mget", {"keys": [key]}).body == {"results": {key: "2"}}
        assert list(client.call("ScanKeys", prefix=key, limit=1).keys) == [key]
        assert http.call("DELETE", f"/api/v1/delete/{path}").status == 200
        assert not client.call("Get", key=key).found


@pytest.mark.parametrize("value", ["", "\0", "x" * 1_048_576, "é" * 524_288, "🗝" * 262_144], ids=lambda v: ascii(v[:1]))
def test_values(server: Server, value: str) -> None:
    """Any text of 0 to 1,048,576 bytes is a value, in both directions."""
    with server.http() as http, server.grpc() as client:
        assert http.post("/api/v1/set", {"key": "value", "value": value}).status == 200
        assert client.call("Get", key="value").value == value
        assert client.call("Set", key="value", value=value + "").success
        assert http.get("/api/v1/get/value").body == {"key": "value", "value": value}
        assert http.get("/api/v1/scan?prefix=value").body["results"] == {"value": value}
        assert dict(client.call("ScanKeyValues", prefix="value", limit=1).key_values) == {"value": value}
        assert dict(client.call("MGet", keys=["value"]).key_values) == {"value": value}


@pytest.mark.parametrize(
    ("key", "value", "status", "named", "sizes"),
    [
        ("x" * 1025, "1", 400, "key: ", ("1025", "1024")),
        ("é" * 512 + "x", "1", 400, "key: ", ("1025", "1024")),
        ("", "1", 400, "key: ", ("1024",)),
        ("big", "x" * 1_048_577, 413, "value: ", ("1048577", "1048576")),
        ("big", "é" * 524_288 + "x", 413, "value: ", ("1048577", "1048576")),
    ],
    ids=["key", "multi-byte key", "empty key", "value", "multi-byte value"],
)
def test_one_byte_too_much(
    server: Server, key: str, value: str, status: int, named: str, sizes: tuple[str, ...]
) -> None:
    """One byte more, or no key at all, is an error that names the field, the limit and what was sent."""
    with server.http() as http, server.grpc() as client:
        answer = http.post("/api/v1/set", {"key": key, "value": value})
        assert (answer.status, answer.body["success"]) == (status, False)
        refusal = client.call("Set", key=key, value=value)
        assert not refusal.success
        for sentence in (answer.body["error"], refusal.error):
            assert sentence.startswith(named)
            assert all(size in sentence for size in sizes)
        batch = {"fine": "1", key: value}
        assert http.post("/api/v1/mset", {"key_values": batch}).status == status
        assert not client.call("MSet", key_values=batch).success
        _assert_nothing_was_written(http, client)


REFUSED_BODIES = {
    "not JSON": b'{"key": "bad"',
    "empty": b"",
    "duplicate key": b'{"key": "bad", "key": "bad", "value": "1"}',
    "NaN": b'{"key": "bad", "value": "1", "ttl": NaN}',
    "Infinity": b'{"key": "bad", "value": "1", "ttl": Infinity}',
    "fraction": b'{"key": "bad", "value": "1", "ttl": 1.5}',
    "whole number as a fraction": b'{"key": "bad", "value": "1", "ttl": 1.0}',
    "negative ttl": b'{"key": "bad", "value": "1", "ttl": -1}',
    "boolean ttl": b'{"key": "bad", "value": "1", "ttl": true}',
    "huge ttl": b'{"key": "bad", "value": "1", "ttl": 99999999999999999999}',
    "lone surrogate": b'{"key": "bad\\ud800", "value": "1"}',
    "lone surrogate in the value": b'{"key": "bad", "value": "\\udfff"}',
    "not UTF-8": b'{"key": "bad\xff", "value": "1"}',
    "number as a key": b'{"key": 1, "value": "1"}',
    "null as a value": b'{"key": "bad", "value": null}',
    "no value": b'{"key": "bad"}',
    "unknown field": b'{"key": "bad", "value": "1", "tll": 5}',
    "array": b'["bad", "1"]',
    "too deep": b'{"key": "bad", "value": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "something after it": b'{"key": "bad", "value": "1"} {}',
    "byte order mark": b'\xef\xbb\xbf{"key": "bad", "value": "1"}',
    "single quotes": b"{'key': 'bad', 'value': '1'}",
}


@pytest.mark.parametrize("body", REFUSED_BODIES.values(), ids=REFUSED_BODIES)
def test_bodies_that_are_refused(server: Server, body: bytes) -> None:
    """A body that is not exactly what is asked for is a 400 with a sentence, and nothing is written."""
    with server.http() as http, server.grpc() as client:
        answer = http.call("POST", "/api/v1/set", body)
        assert (answer.status, answer.body["success"]) == (400, False)
        assert answer.body["error"]
        assert answer.body["code"].startswith("invalid_")
        _assert_nothing_was_written(http, client)


def test_batches_that_are_refused(server: Server) -> None:
    """A batch with one bad key, or with too many, changes nothing; nor does a body that is too long."""
    with server.http() as http, server.grpc() as client:
        assert http.post("/api/v1/mset", {"key_values": {"fine": "1", "": "2"}}).status == 400
        assert http.call("POST", "/api/v1/mset", b'{"key_values": {"bad": "1", "bad": "2"}}').status == 400
        assert not client.call("MSet", key_values={"fine": "1", "": "2"}).success
        many = {f"bad{number}": "" for number in range(10_001)}
        assert http.post("/api/v1/mset", {"key_values": many}).status == 413
        assert "limits.max_batch_keys is 10000" in client.call("MSet", key_values=many).error
        assert http.post("/api/v1/mset", {"key_values": {"bad": "x" * 17_000_000}}).status == 413
        _assert_nothing_was_written(http, client)
        client.call("Set", key="fine", value="1")
        assert http.post("/api/v1/mdelete", {"keys": ["fine", ""]}).status == 400
        assert not client.call("MDelete", keys=["fine", "x" * 1025]).success
        assert client.call("Get", key="fine").found
        client.call("Delete", key="fine")


def _assert_nothing_was_written(http: Http, client: Grpc) -> None:
    assert list(client.call("ScanKeys", prefix="bad").keys) == []
    assert http.post("/api/v1/mget", {"keys": ["fine", "big"]}).body == {"results": {}}


def test_statuses(server: Server) -> None:
    """Wrong paths, methods and types have their own statuses, all as JSON."""
    with server.http() as http:
        answer = http.get("/api/v1/nothing")
        assert (answer.status, answer.body["code"]) == (404, "not_found")
        answer = http.call("PUT", "/api/v1/set", b"{}")
        assert (answer.status, answer.headers["allow"], answer.body["code"]) == (405, "POST", "method_not_allowed")
        assert http.get("/api/v1/scan?limit=10001").status == 400
        assert http.get("/api/v1/scan?limit=-1").status == 400
        assert http.get("/api/v1/get/a%00%ff").status == 400
    with server.http() as http:
        assert http.call("POST", "/api/v1/set", b'{"key": "bad", "value": "1"}', "text/plain").status == 415
