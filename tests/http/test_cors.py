"""CORS: the pages of listed origins and of no others, on every answer, with and without the fast lane."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.web.http_headers import Headers

from kvtwisted.http.cors import MAX_AGE, VARY, Cors
from kvtwisted.http.deadlines import LOOK_SECONDS, ByteLimits, Patience
from kvtwisted.http.fields import Hosts
from kvtwisted.sessions import tokens
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.audit import Audit
from kvtwisted.sessions.authority import Authority
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.entries import TokenEntry
from kvtwisted.sessions.gate import Gate
from kvtwisted.sessions.grants import Grant

from .smuggling import GET, SET
from .support import Reply, World, request_bytes

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

ORIGIN, LOCAL = "https://app.example.com", "http://localhost:3000"
LISTED = [ORIGIN, LOCAL]
#: What looks like a listed origin, to somebody who compares beginnings, ends, hosts, or in any case.
OTHERS = [
    "null", "", "*", "https://app.example.com.evil", "https://app.example.com.evil.example", "https://app.example.co",
    "https://evil-app.example.com", "https://evil.example/https://app.example.com", "https://app.example.com@evil.example",
    "http://app.example.com", "HTTPS://APP.EXAMPLE.COM", "https://App.example.com", "https://app.example.com:443",
    "https://app.example.com:8443", "https://app.example.com/", "https://app.example.com.", "https://example.com",
    "https://x.app.example.com", "app.example.com", "https://app.example.com, http://localhost:3000",
    "https://app.example.com http://localhost:3000", "http://localhost", "http://localhost:30000", "http://localhost:300",
    "http://127.0.0.1:3000", "https://app.example.com%00", "https://app.example.com\x0b", "https://app.example.com\x7f",
]  # fmt: skip
SET_BODY = b'{"key":"k","value":"v"}'
GRANTED = ("access-control-allow-origin", "access-control-expose-headers")


@pytest.fixture
def world() -> World:
    """One that lists two origins."""
    return World(cors=Cors(LISTED))


def cors_of(reply: Reply) -> dict[str, str]:
    """The headers of CORS that an answer has, and Vary."""
    return {
        name: value for name, value in reply.headers.items() if name.startswith("access-control-") or name == "vary"
    }


def granted(origin: str = ORIGIN) -> dict[str, str]:
    """Those of an answer that a page of `origin` may read."""
    return {"vary": "Origin", **dict(zip(GRANTED, (origin, "Allow, ETag, Retry-After, WWW-Authenticate")))}


# Answers.


@pytest.mark.parametrize("origin", LISTED)
def test_a_listed_origin_may_read_every_answer(world: World, origin: str) -> None:
    """Good ones and errors, of every way that leads to one."""
    replies = [
        world.request("POST", "/api/v1/set", SET_BODY, origin=origin),
        world.request("GET", "/api/v1/get/k", origin=origin),
        world.request("HEAD", "/api/v1/get/k", origin=origin),
        world.request("GET", "/api/v1/scan", origin=origin),
        world.request("GET", "/metrics", origin=origin),
        world.request("DELETE", "/api/v1/delete/k", origin=origin),
        world.request("GET", "/api/v1/get/k", origin=origin),
        world.request("GET", "/api/v1/get/%", origin=origin),
        world.request("GET", "/nothing", origin=origin),
        world.request("PUT", "/api/v1/set", SET_BODY, origin=origin),
        world.request("POST", "/api/v1/set", SET_BODY, origin=origin, content_type="text/plain"),
        world.request("OPTIONS", "/api/v1/set", origin=origin),
    ]
    assert [reply.status for reply in replies] == [200, 200, 200, 200, 200, 200, 404, 400, 404, 405, 415, 405]
    assert [cors_of(reply) for reply in replies] == [granted(origin)] * len(replies)


def test_refusals_before_a_request_is_whole(world: World) -> None:
    """413, 421, 408, 429 and 400: whatever is refused once Origin has come may be read by its page."""
    large = World(cors=Cors(LISTED), max_body_bytes=10)
    hosts = World(cors=Cors(LISTED), hosts=Hosts([]))
    refused = [
        large.request("POST", "/api/v1/set", origin=ORIGIN, content_length="11"),
        large.request("POST", "/api/v1/set", b"x" * 11, origin=ORIGIN),
        hosts.request("GET", "/api/v1/get/k", origin=ORIGIN, host="evil.example"),
        world.request("GET", "/api/v1/get/k", origin=ORIGIN, host="a b"),
    ]
    chunked = large.wire()
    chunked.send(
        request_bytes("POST", "/api/v1/set", origin=ORIGIN, transfer_encoding="chunked") + b"b\r\n" + b"x" * 11
    )
    refused += chunked.replies()
    slow = World(cors=Cors(LISTED), patience=Patience(head=5, body=5))
    for cut in (-2, -1 - len(SET_BODY), -1):
        wire = slow.wire()
        wire.send(request_bytes("POST", "/api/v1/set", SET_BODY, origin=ORIGIN)[:cut])
        slow.reactor.advance(5 + 2 * LOOK_SECONDS)
        refused += wire.replies()
    busy = world.wire()
    busy.send(request_bytes("POST", "/api/v1/set", origin=ORIGIN, content_length="100000"))
    busy.channel.make_room()
    refused += busy.replies()
    malformed = world.wire()
    malformed.send(f"GET / HTTP/1.1\r\nHost: a\r\nOrigin: {ORIGIN}\r\nX\0: y\r\n\r\n".encode())
    refused += malformed.replies()
    assert [reply.status for reply in refused] == [413, 413, 421, 400, 413, 408, 408, 408, 429, 400]
    assert [cors_of(reply) for reply in refused] == [granted()] * len(refused)


def test_defects_and_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 and 503 and 429: answers from the table of errors, and from outside of every handler."""
    busy = World(cors=Cors(LISTED), capacity=0)
    assert cors_of(reply := busy.request("GET", "/api/v1/get/k", origin=ORIGIN)) == granted()
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    closed = World(cors=Cors(LISTED))
    closed.admission.close()
    assert cors_of(reply := closed.request("GET", "/api/v1/get/k", origin=ORIGIN)) == granted()
    assert reply.status == 503
    broken = World(cors=Cors(LISTED))
    monkeypatch.setattr(broken.site, "resource", None)
    assert cors_of(reply := broken.request("GET", "/api/v1/scan", origin=ORIGIN)) == granted()
    assert reply.status == 500


@pytest.mark.parametrize("origin", OTHERS)
def test_no_other_origin_may_read_anything(world: World, origin: str) -> None:
    """It is not echoed, and a preflight of it gets what any OPTIONS gets; a cache keeps its answer for it alone."""
    body = request_bytes("POST", "/api/v1/set", content_length="99999999", origin=origin)
    refused = world.wire()
    refused.send(body)
    preflights = {"origin": origin, "access_control_request_method": "POST"}
    replies = [
        world.request("GET", "/api/v1/get/k", origin=origin),
        world.request("GET", "/api/v1/scan", origin=origin),
        world.request("OPTIONS", "/api/v1/set", **preflights),
        world.request("OPTIONS", "/nothing", **preflights),
        *refused.replies(),
    ]
    # What is no text at all is refused, or answered like any other.
    assert {reply.status for reply in replies} <= {200, 400, 404, 405, 413}
    assert [cors_of(reply) for reply in replies] == [{"vary": "Origin"}] * len(replies)
    if origin not in ("", "*"):
        assert not [reply for reply in replies if origin in str(reply.headers)]


@pytest.mark.parametrize("target", ["/api/v1/get/k", "/api/v1/scan"])
@pytest.mark.parametrize("pair", [(ORIGIN, LOCAL), (ORIGIN, ORIGIN), ("null", ORIGIN), (ORIGIN, "")])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_several_origins_are_nobodys(world: World, target: str, pair: tuple[str, str], method: str) -> None:
    """Whichever comes first: a browser sends one."""
    wire = world.wire()
    lines = "".join(f"Origin: {origin}\r\n" for origin in pair)
    asked = "Access-Control-Request-Method: GET\r\n"
    wire.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{lines}{asked}\r\n".encode())
    (reply,) = wire.replies()
    assert reply.status != 204
    assert cors_of(reply) == {"vary": "Origin"}


@pytest.mark.parametrize("end", ["\r\nX: y", "\nX: y", "\rX: y", "\0", "\r\n X: y"])
def test_nothing_is_injected(world: World, end: str) -> None:
    """By what ends lines in some reader: it is another header, or a malformed request."""
    wire = world.wire()
    wire.send(f"GET /api/v1/get/k HTTP/1.1\r\nHost: localhost\r\nOrigin: {ORIGIN}{end}\r\n\r\n".encode("latin-1"))
    (reply,) = wire.replies()
    assert "x" not in reply.headers
    assert cors_of(reply) in ({"vary": "Origin"}, granted())


def test_spaces_around_an_origin(world: World) -> None:
    """They are not part of any header's value (RFC 9110, section 5.5)."""
    wire = world.wire()
    wire.send(f"GET /api/v1/get/k HTTP/1.1\r\nHost: localhost\r\noRiGiN:\t {ORIGIN} \t\r\n\r\n".encode())
    assert cors_of(wire.replies()[0]) == granted()


def test_answers_to_nobody_vary_too(world: World) -> None:
    """So that no cache gives them to a page that would then not be let in, or the other way round."""
    for target in ("/api/v1/get/k", "/api/v1/scan", "/nothing"):
        assert cors_of(world.request("GET", target)) == {"vary": "Origin"}
    assert cors_of(world.request("POST", "/api/v1/set", SET_BODY)) == {"vary": "Origin"}
    world.engine.slow = False
    reply = world.request("GET", "/api/v1/get/k")
    assert (reply.status, cors_of(reply)) == (200, {"vary": "Origin"})
    assert cors_of(world.request("POST", "/api/v1/set", content_length="99999999")) == {"vary": "Origin"}


def test_without_origins_nothing_changes() -> None:
    """No header, no preflight, and the fast lane takes what has an Origin."""
    world = World()
    for origin in (*LISTED, "null"):
        asked = {"origin": origin, "access_control_request_method": "POST"}
        assert world.request("OPTIONS", "/api/v1/set", **asked).status == 405
        assert world.request("OPTIONS", "/nothing", **asked).status == 404
        for target in ("/api/v1/get/k", "/api/v1/scan", "/nothing"):
            assert cors_of(world.request("GET", target, **asked)) == {}
    if world.fast_lane:
        world.site.resource = None  # type: ignore[assignment]  # whoever asks it fails
        assert world.request("GET", "/api/v1/get/k", origin=ORIGIN).status == 404


def test_every_origin() -> None:
    """`*` lets everybody read, without naming anybody, and lets nobody show what a browser adds by itself."""
    world = World(cors=Cors("*"))
    for origin in ("https://anything.example", "null"):
        assert cors_of(world.request("GET", "/api/v1/get/k", origin=origin)) == granted("*")
        assert world.request("OPTIONS", "/x", origin=origin, access_control_request_method="PUT").status == 204
    assert cors_of(world.request("GET", "/api/v1/get/k")) == {"vary": "Origin"}


# Preflights.


def preflight(world: World, target: str = "/api/v1/set", method: str = "POST", **headers: str) -> Reply:
    """What is answered to the preflight of a listed origin."""
    return world.request("OPTIONS", target, origin=ORIGIN, access_control_request_method=method, **headers)


def test_a_preflight_of_a_listed_origin(world: World) -> None:
    """204 without a body or what belongs to one; never with credentials, nor for private networks."""
    reply = preflight(
        world,
        access_control_request_headers="authorization,content-type",
        access_control_request_private_network="true",
    )
    assert (reply.status, reply.body) == (204, b"")
    assert cors_of(reply) == {
        **granted(),
        "access-control-allow-methods": "GET, HEAD, POST, PUT, DELETE",
        "access-control-allow-headers": "authorization, content-type, if-match, if-none-match, last-event-id",
        "access-control-max-age": str(MAX_AGE),
    }
    assert not {"content-length", "content-type", "transfer-encoding", "allow"} & reply.headers.keys()
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["PUT", "post", "TRACE", "x" * 1000])
@pytest.mark.parametrize("target", ["/api/v1/set", "/nothing", "//", "*", "/api/v1/get/%ff", "/metrics", "/?x"])
def test_preflights_are_all_answered_alike(world: World, target: str, method: str) -> None:
    """Whatever they are about: the answer is constant, tells nothing of what exists, and the browser compares."""
    expected, reply = preflight(world), preflight(world, target, method)
    assert (reply.status, cors_of(reply)) == (204, cors_of(expected))


def test_a_preflight_reaches_nothing(world: World) -> None:
    """No route, no operation, no admission, on a connection that goes on; its body is nobody's."""
    world.admission.close()
    world.site.resource = None  # type: ignore[assignment]  # whoever asks it fails
    wire = world.wire()
    asked = {"origin": ORIGIN, "access_control_request_method": "POST"}
    wire.send(request_bytes("OPTIONS", "/api/v1/set", SET_BODY, **asked))
    wire.send(request_bytes("OPTIONS", "/api/v1/delete/k", **asked) * 2)
    assert [reply.status for reply in wire.replies()] == [204, 204, 204]
    assert wire.open
    assert world.recorder.operations == []
    assert world.stored() == {}


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "options", "OPTIONSX"])
def test_what_is_no_preflight(world: World, method: str) -> None:
    """Another method, or no method asked for, is answered as ever."""
    asked = {"origin": ORIGIN, "access_control_request_method": "POST"}
    assert world.request(method, "/api/v1/scan", **asked).status in (200, 405)
    assert world.request("OPTIONS", "/api/v1/scan", origin=ORIGIN).status == 405
    assert world.request("OPTIONS", "/api/v1/scan", origin=ORIGIN, access_control_request_method="").status == 405
    assert world.request("OPTIONS", "/api/v1/scan", access_control_request_method="GET").status == 405


def test_a_huge_preflight(world: World) -> None:
    """Headers have their limit; what is asked for is neither kept nor echoed."""
    reply = preflight(world, access_control_request_headers=",".join(["x-header"] * 1000))
    assert reply.status == 204
    assert len(str(reply.headers)) < 1000
    refused = preflight(world, access_control_request_headers="x" * 20_000)
    assert refused.status == 400


def test_a_preflight_to_another_host() -> None:
    """The Host of an open server must be one of its own; DNS rebinding does not become CORS."""
    world = World(cors=Cors(LISTED), hosts=Hosts([]))
    assert preflight(world, host="evil.example").status == 421
    assert preflight(world, host="localhost").status == 204


# Tokens.

TOKEN, DIGEST = tokens.make("app")


def closed(door: Door, admission: Admission) -> Gate:
    """A gate that knows one token."""
    authority = Authority(failed_logins=1)
    authority.replace([TokenEntry("app", DIGEST, (Grant(frozenset(("get", "set")), b"a/"),))])
    return Gate(door, admission, authority, Audit(lambda line: None))


def test_with_tokens() -> None:
    """A preflight needs none; what follows needs one, and what refuses it can be read: 401, 403, 429."""
    world = World(cors=Cors("*"), make_gate=closed)
    assert preflight(world).status == 204
    good, wrong = f"Bearer {TOKEN}", "Bearer kv1_app_" + "0" * 43
    replies = [
        world.request("GET", "/api/v1/get/a/k", origin=ORIGIN, authorization=good),
        world.request("GET", "/api/v1/get/b", origin=ORIGIN, authorization=good),
        world.request("GET", "/api/v1/get/a/k", origin=ORIGIN),
        world.request("POST", "/api/v1/set", origin=ORIGIN, content_length=str(ByteLimits().unauthenticated_body + 1)),
        world.request("GET", "/api/v1/get/a/k", origin=ORIGIN, authorization=wrong),
        world.request("GET", "/api/v1/get/a/k", origin=ORIGIN, authorization=wrong),
    ]
    assert [reply.status for reply in replies] == [404, 403, 401, 401, 401, 429]
    assert [cors_of(reply) for reply in replies] == [granted("*")] * len(replies)
    assert preflight(world).status == 204


# The class by itself, and the lanes.


def test_headers_of_any_request() -> None:
    """Without origins none; with some, those that it is granted, beside Vary."""
    request: Any = Headers({b"origin": [ORIGIN.encode()]})
    assert (Cors().headers(request), Cors().always, bool(Cors())) == ((), (), False)
    cors = Cors(LISTED)
    assert (cors.headers(Headers()), cors.always, bool(cors)) == ((VARY,), (VARY,), True)
    assert cors.headers(request)[:2] == (VARY, ("Access-Control-Allow-Origin", ORIGIN))


def test_who_answers(world: World) -> None:
    """The fast lane what has no Origin; twisted.web what has one, a listed one or not."""
    if not world.fast_lane:
        return
    world.site.resource = None  # type: ignore[assignment]  # whoever asks it fails
    assert world.request("GET", "/api/v1/get/k").status == 404
    for origin in (ORIGIN, "https://evil.example", ""):
        assert world.request("GET", "/api/v1/get/k", origin=origin).status == 500


def test_mixed_on_one_connection(world: World) -> None:
    """Each answer has what its own request is granted, not what one before or behind it is."""
    wire = world.wire()
    theirs = request_bytes("GET", "/api/v1/get/k", origin=ORIGIN)
    evil = request_bytes("GET", "/api/v1/get/k", origin="https://evil.example")
    wire.send(SET + theirs + GET + evil + GET + theirs + evil + SET)
    yes, no = granted(), {"vary": "Origin"}
    assert [cors_of(reply) for reply in wire.replies()] == [no, yes, no, no, no, yes, no, no]
