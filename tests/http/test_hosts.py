"""The Host allow-list of a server that asks nobody who they are."""

from __future__ import annotations

import pytest

from kvtwisted.http.fields import Hosts, host_name

from .support import World, problem, request_bytes

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"localhost", "localhost"),
        (b"LocalHost:8080", "localhost"),
        (b"store.example.", "store.example"),
        (b"127.0.0.1:8080", "127.0.0.1"),
        (b"[::1]", "::1"),
        (b"[::1]:8080", "::1"),
        (b"[::1", "::1"),
        (b"", ""),
        (b"\xff", "\xff"),
    ],
)
def test_the_name_in_a_host(host: bytes, name: str) -> None:
    """Without port, brackets, case and last dot."""
    assert host_name(host) == name


ALLOWED = ["localhost", "127.0.0.1:8080", "[::1]:80", "Store.Example:8080"]
OTHERS = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]"]


@pytest.fixture
def world() -> World:
    """One that is called store.example."""
    return World(hosts=Hosts(["store.example"]))


@pytest.mark.parametrize("host", ALLOWED)
def test_known_names_are_answered(world: World, host: str) -> None:
    """Loopback's, and those that were given."""
    assert world.request("GET", "/api/v1/scan", host=host).status == 200
    assert world.request("GET", "/api/v1/get/k", host=host).status == 404


@pytest.mark.parametrize("host", OTHERS)
@pytest.mark.parametrize("target", ["/api/v1/get/k", "/api/v1/scan", "/nothing"])
def test_other_names_are_refused(world: World, host: str, target: str) -> None:
    """On every path, on either lane, with the setting that would allow it."""
    status, code, sentence = problem(world.request("GET", target, host=host))
    assert (status, code) == (421, "unknown_host")
    assert "http.allowed_hosts" in sentence


def test_nothing_is_written_for_an_unknown_name(world: World) -> None:
    """And nothing that comes behind such a request is looked at."""
    body = b'{"key":"k","value":"v"}'
    wire = world.wire()
    wire.send(request_bytes("POST", "/api/v1/set", body, host="evil.example"))
    wire.send(request_bytes("POST", "/api/v1/set", body, host="localhost"))
    world.work()
    assert [reply.status for reply in wire.replies()] == [421]
    assert world.stored() == {}


def test_no_header_lets_a_page_of_another_origin_in(world: World) -> None:
    """No CORS: a browser shows no answer to a page from elsewhere; and it does not guess types."""
    for target in ("/api/v1/get/k", "/api/v1/scan", "/api/v1/health", "/nothing", "/api/v1/get/%"):
        reply = world.request("GET", target, origin="http://evil.example")
        assert not [name for name in reply.headers if name.startswith("access-control-")]
        assert reply.headers["x-content-type-options"] == "nosniff"
    refused = world.request("GET", "/api/v1/get/k", host="evil.example")
    assert refused.headers["x-content-type-options"] == "nosniff"
