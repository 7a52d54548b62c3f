"""Values as bodies: bytes, ETags, preconditions, limits, as HTTP has them."""

from __future__ import annotations

import pytest

from kvtwisted.commands.conditions import etag_of
from kvtwisted.core.limits import MAX_VALUE_BYTES
from kvtwisted.http.bodies import LARGE
from kvtwisted.http.preconditions import tag_of

from .support import Reply, World, problem, request_bytes

#: Says that these tests run over every backend at every change.
BACKENDS_DIFFER = True

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

TARGET = "/api/v1/raw/k"
BYTES = bytes(range(256))


def put(world: World, value: bytes = BYTES, target: str = TARGET, **headers: str) -> Reply:
    """A PUT, of no type in particular."""
    return world.request("PUT", target, value, **{"content_type": "image/png", **headers})


def status_of(world: World, method: str, **headers: str) -> int:
    """The status of a request for the key."""
    return world.request(method, TARGET, b"new" if method == "PUT" else None, **headers).status


def test_what_is_put_is_got() -> None:
    """The same bytes, whatever they are; the answers' headers."""
    world = World()
    answer = put(world)
    assert (answer.status, answer.body) == (200, b'{"success":true,"message":"key set successfully"}')
    assert answer.headers["etag"] == tag_of(BYTES)
    answer = world.request("GET", TARGET)
    assert (answer.status, answer.body) == (200, BYTES)
    expected = {
        "content-type": "application/octet-stream",
        "x-content-type-options": "nosniff",
        "etag": tag_of(BYTES),
        "cache-control": "no-cache",
        "content-length": "256",
    }
    assert answer.headers.items() >= expected.items()
    head = world.request("HEAD", TARGET)
    assert (head.status, head.body) == (200, b"")
    assert head.headers.items() >= expected.items()
    answer = world.request("DELETE", TARGET)
    assert (answer.status, answer.body) == (200, b'{"success":true,"message":"key deleted successfully"}')
    assert problem(world.request("GET", TARGET))[:2] == (404, "key_not_found")
    assert world.request("HEAD", TARGET).status == 404
    assert world.request("DELETE", TARGET).status == 200


@pytest.mark.parametrize("size", [0, 1, LARGE, LARGE + 1, MAX_VALUE_BYTES])
def test_sizes(size: int) -> None:
    """Up to the largest, with a length or in chunks."""
    world = World()
    value = b"\xff" * size
    assert put(world, value).headers["etag"] == tag_of(value)
    assert world.request("GET", TARGET).body == value
    wire = world.wire()
    wire.send(request_bytes("PUT", TARGET, transfer_encoding="chunked"))
    for start in range(0, size, 300_000):
        chunk = value[start : start + 300_000]
        wire.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    wire.send(b"0\r\n\r\n")
    assert [reply.headers["etag"] for reply in wire.replies()] == [tag_of(value)]
    assert world.request("GET", TARGET).body == value


def test_larger_ones_are_refused_before_they_come() -> None:
    """By the announced length, also where 100 Continue is asked for; in chunks, at the first byte too many."""
    world = World()
    for expect in ({}, {"expect": "100-continue"}):
        wire = world.wire()
        wire.send(request_bytes("PUT", TARGET, content_length=str(MAX_VALUE_BYTES + 1), **expect))
        (reply,) = wire.replies()
        assert problem(reply)[:2] == (413, "too_large")
        assert "1048577 bytes were sent, the limit is 1048576" in reply.json()["error"]
        assert wire.transport.half_closed
    wire = world.wire()
    wire.send(request_bytes("PUT", TARGET, transfer_encoding="chunked") + b"fffff\r\n" + b"x" * 0xFFFFF + b"\r\n")
    assert wire.replies() == []
    wire.send(b"2\r\nxx")
    (reply,) = wire.replies()
    assert problem(reply)[:2] == (413, "too_large")
    assert "more than 1048576 bytes" in reply.json()["error"]
    assert world.stored() == {}


def test_bodies_of_other_methods_have_their_own_limit() -> None:
    """They mean nothing, and are read as ever."""
    world = World()
    reply = world.request("DELETE", TARGET, b"x" * (MAX_VALUE_BYTES + 1))
    assert reply.status == 200


def test_a_client_is_told_to_go_on() -> None:
    """Expect: 100-continue, as curl sends it with every upload."""
    world = World()
    wire = world.wire()
    wire.send(request_bytes("PUT", TARGET, content_length="2", expect="100-continue"))
    assert wire.transport.value().startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    wire.transport.clear()
    wire.send(b"ab")
    assert [reply.status for reply in wire.replies()] == [200]
    assert world.request("GET", TARGET).body == b"ab"


def test_ttl() -> None:
    """In the query; zero or none is for ever, and other parameters are keys that were not encoded."""
    world = World()
    for query, left in (("?ttl=9", 9), ("?ttl=0", None), ("?ttl=1", 1), ("", None)):
        assert put(world, b"v", TARGET + query).status == 200
        assert world.request("GET", "/api/v1/get/k").json().get("ttl") == left
    for query, code in (
        ("?ttl=", "invalid_ttl"), ("?ttl=x", "invalid_ttl"), ("?ttl=5.0", "invalid_ttl"), ("?ttl=-1", "invalid_ttl"),
        ("?ttl=%35", "invalid_ttl"), ("?ttl=" + "9" * 5000, "invalid_ttl"), ("?ttl=3155760001", "invalid_ttl"),
        ("?ttl=5&ttl=5", "invalid_key"), ("?TTL=5", "invalid_key"), ("?ttl", "invalid_key"), ("?x=1", "invalid_key"),
        ("?encoding=base64", "invalid_key"),
    ):  # fmt: skip
        assert problem(put(world, b"x", TARGET + query))[:2] == (400, code), query
    assert world.request("GET", TARGET).body == b"v"


def test_keys_are_paths() -> None:
    """As elsewhere."""
    world = World()
    assert put(world, b"v", "/api/v1/raw/a//b%3F%20%C3%A9").status == 200
    assert world.stored() == {"a//b? é".encode(): b"v"}
    assert world.request("GET", "/api/v1/raw/a//b%3f %C3%A9".replace(" ", "%20")).body == b"v"
    for bad in ("/api/v1/raw/", "/api/v1/raw/%", "/api/v1/raw/" + "k" * 1025):
        for method in ("GET", "PUT", "DELETE"):
            assert problem(world.request(method, bad, b""))[:2] == (400, "invalid_key")


def test_types_and_codings() -> None:
    """Any type is taken, or none; of codings only identity."""
    world = World()
    for headers in ({"content_type": "text/html"}, {"content_type": ""}, {"content_encoding": "identity"}):
        assert put(world, b"v", **headers).status == 200
    reply = put(world, b"x", content_encoding="gzip")
    assert (problem(reply)[:2], reply.headers["accept-encoding"]) == ((415, "unsupported_media_type"), "identity")
    assert world.request("GET", TARGET).body == b"v"


def test_parts() -> None:
    """Range is ignored, as every server may; a part is not taken for the whole."""
    world = World()
    put(world, b"0123456789")
    answer = world.request("GET", TARGET, range="bytes=0-1", if_range=tag_of(b"0123456789"))
    assert (answer.status, answer.body) == (200, b"0123456789")
    assert problem(put(world, b"x", content_range="bytes 0-0/10"))[:2] == (400, "invalid_request")
    assert world.request("GET", TARGET).body == b"0123456789"


def test_preconditions_of_reads() -> None:
    """If-None-Match is for those who have the value already, and comes with what 200 would say of it."""
    world = World()
    for headers in ({"if_none_match": "*"}, {"if_match": "*"}):
        assert status_of(world, "GET", **headers) == 404
    put(world)
    tag = tag_of(BYTES)
    for method in ("GET", "HEAD"):
        for headers, status in (
            ({"if_none_match": tag}, 304),
            ({"if_none_match": "*"}, 304),
            ({"if_none_match": "W/" + tag}, 200),
            ({"if_none_match": '"x"'}, 200),
            ({"if_match": tag}, 200),
            ({"if_match": "*"}, 200),
            ({"if_match": '"x"'}, 412),
            ({"if_match": "W/" + tag}, 412),
            ({"if_match": f'"x", {tag}'}, 200),
            ({"if_none_match": f'"x", {tag}'}, 304),
            ({"if_match": tag, "if_none_match": tag}, 400),
            ({"if_modified_since": "Sun, 29 Nov 2026 00:00:00 GMT"}, 200),
            ({"if_unmodified_since": "Sun, 29 Nov 1926 00:00:00 GMT"}, 200),
        ):
            assert status_of(world, method, **headers) == status, headers
    answer = world.request("GET", TARGET, if_none_match=tag)
    assert (answer.body, answer.headers["etag"], answer.headers["cache-control"]) == (b"", tag, "no-cache")
    assert not answer.headers.keys() & {"content-length", "content-type", "transfer-encoding"}
    refusal = world.request("GET", TARGET, if_match='"x"')
    assert (problem(refusal)[:2], refusal.json()["etag"]) == ((412, "condition_failed"), etag_of(BYTES))


def test_preconditions_of_writes() -> None:
    """201 if the key was not there, else 200; 412 with what is there, and nothing done."""
    world = World()
    assert status_of(world, "PUT", if_match="*") == 412
    assert world.stored() == {}
    created = put(world, b"1", if_none_match="*")
    assert (created.status, created.headers["etag"]) == (201, tag_of(b"1"))
    assert created.json()["revision"] > 0
    for headers in (
        {"if_none_match": "*"},
        {"if_match": tag_of(b"2")},
        {"if_match": "W/" + tag_of(b"1")},
        {"if_match": '"x"'},
    ):
        refusal = put(world, b"2", **headers)
        assert (problem(refusal)[:2], refusal.headers["etag"]) == ((412, "condition_failed"), tag_of(b"1"))
    for headers in ({"if_none_match": '"x"'}, {"if_match": "x"}, {"if_match": "*", "if_none_match": "*"}):
        assert problem(put(world, b"2", **headers))[:2] == (400, "invalid_request")
    assert world.stored() == {b"k": b"1"}
    for value, headers in ((b"2", {"if_match": tag_of(b"1")}), (b"3" * (LARGE + 1), {"if_match": "*"})):
        replaced = put(world, value, **headers)
        assert (replaced.status, replaced.headers["etag"]) == (200, tag_of(value))
        assert world.stored() == {b"k": value}


def test_other_methods() -> None:
    """405, with those that there are."""
    world = World()
    reply = world.request("POST", TARGET, b"v")
    assert (reply.status, reply.headers["allow"]) == (405, "DELETE, GET, HEAD, PUT")


def test_requests_in_a_row() -> None:
    """Pipelined, with plain ones between: the answers come in order."""
    world = World()
    wire = world.wire()
    get, plain = request_bytes("GET", TARGET), request_bytes("GET", "/api/v1/get/k")
    known = request_bytes("GET", TARGET, if_none_match=tag_of(b"v"))
    wire.send(request_bytes("PUT", TARGET, b"v") + plain + get + known + plain + request_bytes("DELETE", TARGET) + get)
    world.work()
    assert [reply.status for reply in wire.replies()] == [200, 200, 200, 304, 200, 200, 404]


@pytest.mark.local_backend
@pytest.mark.parametrize("target", [TARGET, "/api/v1/get/k?etag=true&encoding=base64"])
def test_large_values_that_memory_has(target: str) -> None:
    """They are digested in a thread, and answered as ever; whoever has gone is told nothing."""
    world = World()
    world.engine.slow = False
    for size, at_once in ((LARGE, True), (LARGE + 1, False)):
        put(world, b"x" * size)
        expected = world.request("GET", target)
        world.held = True
        wire, gone = world.wire(), world.wire()
        for one in (wire, gone):
            one.send(request_bytes("GET", target))
        assert bool(wire.transport.value()) == at_once
        gone.transport.disconnect()
        world.held = False
        world.work()
        assert [reply.body for reply in wire.replies()] == [expected.body]
        wire.transport.disconnect()
        assert world.admission.in_flight == 0
