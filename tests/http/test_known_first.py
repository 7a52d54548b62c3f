"""What is known of a request without its body comes before the body is read. Note [The order of admission]."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest

from kvtwisted.core import strict_json
from kvtwisted.http import bodies, large_bodies
from kvtwisted.sessions import tokens
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.audit import Audit
from kvtwisted.sessions.authority import Authority
from kvtwisted.sessions.buckets import Addresses, Rate
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.entries import TokenEntry
from kvtwisted.sessions.gate import ClosedGate, Gate, OpenGate
from kvtwisted.sessions.grants import Grant

from .support import Wire, World, problem, request_bytes

TOKEN, DIGEST = tokens.make("one")
#: Bodies that are refused for what they are: of a size that the fast lane takes, of one that it leaves, and large ones.
BAD = {
    "small": b'[{"":0}]', "no fields": b"{}", "medium": b'[{"":0}' + b',{"":0}' * 8000 + b"]",
    "large": b'[{"":0}' + b',{"":0}' * 200_000 + b"]",
}  # fmt: skip
MANY_KEYS = json.dumps({"keys": ["k"] * 10_001}).encode()
ROUTES = ("set", "mset", "mget", "mdelete")


def limited(operations_a_second: float, bytes_a_second: float = 0) -> Callable[[Door, Admission], Gate]:
    """A gate that lets in everybody, at this rate."""
    rate = Rate(operations_a_second, bytes_a_second)
    return lambda door, admission: OpenGate(door, admission, Addresses(rate))


def allowed(*operations: str) -> Callable[[Door, Admission], Gate]:
    """A gate that knows one token, which may do these."""

    def make(behind: Door, admission: Admission) -> Gate:
        authority = Authority(failed_logins=1)
        authority.replace([TokenEntry("one", DIGEST, (Grant(frozenset(operations)),))])
        return ClosedGate(behind, admission, authority, Audit(lambda line: None))

    return make


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of bodies that JSON was read of."""
    sizes: list[int] = []

    def record(module: Any, name: str) -> None:
        real = getattr(module, name)

        def read(data: bytes, *args: Any, **kwargs: Any) -> Any:
            sizes.append(len(data))
            return real(data, *args, **kwargs)

        monkeypatch.setattr(module, name, read)

    record(strict_json, "loads")
    record(large_bodies, "_Reader")
    return sizes


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
@pytest.mark.parametrize("route", ROUTES)
def test_what_is_refused_costs_an_operation(route: str, body: bytes, unread: list[int]) -> None:
    """The next one finds nothing left of the rate, and is not read."""
    world = World(make_gate=limited(1))
    assert world.request("POST", f"/api/v1/{route}", body).status == 400
    read = len(unread)
    for _ in range(3):
        assert problem(world.request("POST", f"/api/v1/{route}", body))[:2] == (429, "rate_limited")
    assert len(unread) == read
    assert problem(world.request("GET", "/api/v1/get/k"))[:2] == (429, "rate_limited")


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_what_is_refused_costs_its_bytes(body: bytes) -> None:
    """As many as were sent: of the next second's nothing is left."""
    world = World(make_gate=limited(0, len(body) / 60))
    assert world.request("POST", "/api/v1/mget", body).status == 400
    for request in (("POST", "/api/v1/mget", body), ("GET", "/api/v1/get/k")):
        assert problem(world.request(*request))[:2] == (429, "rate_limited")


@pytest.mark.parametrize("route", ["mget", "mdelete"])
def test_one_key_too_many_costs_too(route: str) -> None:
    """It is refused by its number."""
    world = World(make_gate=limited(1))
    assert problem(world.request("POST", f"/api/v1/{route}", MANY_KEYS))[:2] == (413, "too_large")
    assert world.request("POST", f"/api/v1/{route}", MANY_KEYS).status == 429


@pytest.mark.parametrize("headers", [{"content_type": "text/plain"}, {"content_encoding": "gzip"}])
def test_a_large_body_of_another_kind_costs_too(headers: dict[str, str]) -> None:
    """It came whole, and is refused without a look at it."""
    world = World(make_gate=limited(1))
    assert world.request("POST", "/api/v1/mget", BAD["large"], **headers).status == 415
    assert world.request("POST", "/api/v1/mget", BAD["large"], **headers).status == 429


def test_what_is_good_costs_what_it_did() -> None:
    """Its keys, and their bytes and those of values: nothing for JSON, small or large, on either lane."""
    world = World(make_gate=limited(4, 400_000))
    large = json.dumps({"key_values": {"a": "x" * 100_000, "b": "y" * 100_000}}).encode()
    assert world.request("POST", "/api/v1/mset", large).status == 200
    assert (
        world.request("POST", "/api/v1/set", b'{"key":"\\u0061","value":"' + b"\\u0061" * 20_000 + b'"}').status == 200
    )
    assert world.request("POST", "/api/v1/mdelete", b'{"keys":["a"]}').status == 200
    assert world.request("POST", "/api/v1/mdelete", b'{"keys":["a"]}').status == 429


def test_for_want_of_room_nothing_is_taken() -> None:
    """A large body that there is no room for is refused as overload, and costs neither operations nor bytes."""
    world = World(make_gate=limited(4, 10 * len(BAD["large"])), capacity=1)
    world.admission.enter()
    for _ in range(20):
        assert problem(world.request("POST", "/api/v1/mget", BAD["large"]))[:2] == (429, "overloaded")
    world.admission.leave()
    assert [world.request("GET", "/api/v1/get/k").status for _ in range(5)] == [404] * 4 + [429]


@pytest.mark.parametrize("route", ["mset", "mget"])
def test_a_large_body_leaves_when_it_has_been_read(route: str) -> None:
    """Good or bad: only its command is counted in after that, and nothing when all is done."""
    good = {"mset": b'{"key_values":{"k":"%b"}}' % (b"v" * 200_000), "mget": b'{"keys":[%b"k"]}' % (b" " * 200_000)}
    world = World(capacity=2)
    for body in (good[route], BAD["large"]):
        world.request("POST", f"/api/v1/{route}", body)
        assert (world.admission.in_flight, world.admission.bytes) == (0, 0)


def test_a_large_body_of_who_has_gone_is_not_carried_out() -> None:
    """Where it was read only after its client had gone: it costs nothing either."""
    world = World(make_gate=limited(1))
    world.held = True
    wire = world.wire()
    wire.send(request_bytes("POST", "/api/v1/mset", json.dumps({"key_values": {"k": "v" * 200_000}}).encode()))
    assert world.pool.waiting == 1
    wire.transport.disconnect()
    world.work()
    assert world.storage.data() == {}
    assert (world.admission.in_flight, world.admission.bytes) == (0, 0)
    world.held = False
    assert world.request("GET", "/api/v1/get/k").status == 404


DENIED = {"set": "get", "mset": "get", "mget": "set", "mdelete": "get", "config": "config_read"}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
@pytest.mark.parametrize("route", DENIED)
def test_what_a_token_may_never_do_is_not_read(route: str, body: bytes, unread: list[int]) -> None:
    """403, whatever the body is; but the size of a body that is too large for the route goes before."""
    world = World(make_gate=allowed(DENIED[route]))
    reply = world.request("POST", f"/api/v1/{route}", body, authorization=f"Bearer {TOKEN}")
    too_large = route == "config" and len(body) > bodies.LARGE
    assert reply.status == (413 if too_large else 403)
    assert unread == []


def head(route: str, length: str) -> bytes:
    """The head of a request with a body."""
    return (
        f"POST /api/v1/{route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {TOKEN}\r\n{length}\r\n\r\n"
    ).encode()


LENGTHS = ("Content-Length: 1000000", "Transfer-Encoding: chunked")


def refused_at_its_head(wire: Wire) -> tuple[int, str]:
    """Status and code of what was answered before a body came."""
    (reply,) = wire.replies()
    assert wire.transport.half_closed
    return problem(reply)[:2]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_large_body_is_not_waited_for(length: str) -> None:
    """Neither of who may not do that, nor of who is over the rate."""
    world = World(make_gate=allowed("get"))
    wire = world.wire()
    wire.send(head("mset", length))
    assert refused_at_its_head(wire) == (403, "permission_denied")
    world = World(make_gate=limited(1))
    assert world.request("GET", "/api/v1/get/k").status == 404
    wire = world.wire()
    wire.send(head("mset", length))
    assert refused_at_its_head(wire) == (429, "rate_limited")
    assert world.site.refused["not_allowed"] == 1


def test_a_look_at_the_rate_takes_nothing() -> None:
    """A large request within the rate goes on as ever."""
    world = World(make_gate=limited(1))
    wire = world.wire()
    body = json.dumps({"key": "k", "value": "v" * 100_000}).encode()
    request = request_bytes("POST", "/api/v1/set", body)
    wire.send(request[:500])
    wire.send(request[500:])
    assert [reply.status for reply in wire.replies()] == [200]


@pytest.mark.parametrize("route", ["config", "admin/backup", "admin/orphans"])
def test_bodies_without_keys_and_values_are_small(route: str) -> None:
    """More is refused at the head, or where its length is not announced when it has come."""
    size = bodies.LARGE + 1
    wire = World().wire()
    wire.send(head(route, f"Content-Length: {size}"))
    assert refused_at_its_head(wire) == (413, "too_large")
    wire.send(b"")
    chunked = World().wire()
    chunked.send(head(route, "Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (size, b" " * size))
    (reply,) = chunked.replies()
    assert problem(reply)[:2] == (413, "too_large")
