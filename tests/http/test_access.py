"""Tokens on the HTTP interface, on both lanes: who is who on a connection that many share, and when that ends."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest

from kvtwisted.http.deadlines import ByteLimits
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.audit import Audit
from kvtwisted.sessions.authority import Authority
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.entries import OwnRate, TokenEntry
from kvtwisted.sessions.gate import Gate
from tests.sessions.support import grant, made

from .slow import NONE_CUT_OFF
from .support import Wire, World, request_bytes

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

ROOT, _ROOT = made("root")
APP, _APP = made("app", grant("get,set,delete", b"a/"))
WRONG = made("app")[0]
#: Bytes of a body that is read from anybody.
UNKNOWN_BODY = ByteLimits().unauthenticated_body

#: What each of them is answered when it gets the key `b`.
STATUS = {ROOT: 200, APP: 403, None: 401, WRONG: 401}


class Guarded:
    """A world whose gate is closed."""

    def __init__(self, *entries: TokenEntry, failed_logins: int = 0) -> None:
        self.authority = Authority(failed_logins=failed_logins)
        self.authority.replace(entries or (_ROOT, _APP))
        self.counted: list[str] = []
        self.lines: list[dict[str, Any]] = []
        self.world = World(make_gate=self._close)
        self.world.storage.store.set(b"b", b"secret")

    def _close(self, door: Door, admission: Admission) -> Gate:
        audit = Audit(lambda line: self.lines.append(json.loads(line)))
        self.gate = Gate(door, admission, self.authority, audit, count=self.counted.append)
        return self.gate

    def replace(self, *entries: TokenEntry) -> None:
        """Go by these tokens, and look."""
        self.authority.replace(entries)
        self.gate.look()


def get(token: bytes | None, target: str = "/api/v1/get/b", **headers: str) -> bytes:
    """A request of somebody's."""
    shown = {} if token is None else {"authorization": token.decode()}
    return request_bytes("GET", target, **shown, **headers)


def put(token: bytes | None, key: str, value: str = "v", **headers: str) -> bytes:
    """A Set of somebody's."""
    shown = {} if token is None else {"authorization": token.decode()}
    return request_bytes("POST", "/api/v1/set", json.dumps({"key": key, "value": value}).encode(), **shown, **headers)


def statuses(wire: Wire) -> list[int]:
    """Of the answers since the last call."""
    return [reply.status for reply in wire.replies()]


@pytest.mark.parametrize(
    "order", list(permutations(STATUS)), ids=lambda order: "-".join(str(STATUS[one]) for one in order)
)
def test_requests_of_many_on_one_connection(order: tuple[bytes | None, ...]) -> None:
    """As behind a proxy: each has the rights of its own token and none of those before it, one by one and pipelined."""
    guarded = Guarded()
    everybody = [*order, *order, order[0]]
    expected = [STATUS[one] for one in everybody]
    wire = guarded.world.wire()
    found = []
    for one in everybody:
        wire.send(get(one))
        found += statuses(wire)
    assert found == expected
    wire.send(b"".join(map(get, everybody)))
    assert statuses(wire) == expected


def test_lanes_take_turns() -> None:
    """Requests that only twisted.web answers between plain ones, all pipelined: nobody gets another's rights."""
    guarded = Guarded()
    wire = guarded.world.wire()
    others = ("/api/v1/scan", "/api/v1/config", "/metrics", "/api/v1/admin/backups")
    pipeline, expected = [], []
    for target in others:
        for one in (ROOT, None, APP, WRONG, ROOT, APP):
            pipeline += [get(one, target), get(one)]
            expected += [STATUS[one], STATUS[one]]
    wire.send(b"".join(pipeline))
    assert statuses(wire) == expected


@pytest.mark.parametrize("kind", ["twice", "two", "long", "empty", "comma"])
def test_strange_headers(kind: str) -> None:
    """Two are none, even if they are the same; nothing that is nearly a token is one."""
    guarded = Guarded()
    root, app = ROOT.decode(), APP.decode()
    shown = {
        "twice": {"authorization": root, "Authorization": root},
        "two": {"authorization": app, "AUTHORIZATION": root},
        "long": {"authorization": "Bearer " + "x" * 6000},
        "empty": {"authorization": ""},
        "comma": {"authorization": f"{root}, {root}"},
    }[kind]
    wire = guarded.world.wire()
    wire.send(get(ROOT))
    wire.send(request_bytes("GET", "/api/v1/get/b", **shown))
    assert statuses(wire) == [200, 401]


def test_a_failed_login_is_one() -> None:
    """Counted, audited and taken from what an address may fail once, whichever lane saw it first."""
    guarded = Guarded(failed_logins=2)
    wire = guarded.world.wire()
    for status, reason in ((401, "unauthenticated"), (401, "unauthenticated"), (429, "rate_limited")):
        guarded.counted.clear()
        wire.send(get(WRONG))
        assert statuses(wire) == [status]
        assert guarded.counted == [reason]
    assert [line["event"] for line in guarded.lines] == ["login_failed"] * 2
    wire.send(get(APP, "/api/v1/get/a/1"))
    assert statuses(wire) == [404]


def test_what_is_public_is_so_whatever_is_shown() -> None:
    """Health, with a wrong token too; it counts as no login."""
    guarded = Guarded(failed_logins=1)
    wire = guarded.world.wire()
    for one in STATUS:
        wire.send(get(one, "/api/v1/health"))
    assert statuses(wire) == [200] * 4
    assert guarded.counted == []


def test_refusals_do_not_tell_what_exists() -> None:
    """The same answer for a key that is there and one that is not."""
    guarded = Guarded()
    wire = guarded.world.wire()
    wire.send(get(APP) + get(APP, "/api/v1/get/nothing"))
    there, missing = wire.replies()
    assert (there.status, there.body) == (missing.status, missing.body)
    assert guarded.counted == ["permission_denied"] * 2


def test_revocation_between_requests() -> None:
    """On an open connection, from the next request on; others go on, and a new token under the id is another."""
    guarded = Guarded()
    wire, other = guarded.world.wire(), guarded.world.wire()
    for one in (wire, other):
        one.send(put(APP if one is wire else ROOT, "a/1"))
        assert statuses(one) == [200]
    guarded.replace(_ROOT)
    wire.send(get(APP, "/api/v1/get/a/1") + put(APP, "a/1", "later"))
    assert statuses(wire) == [401, 401]
    other.send(get(ROOT, "/api/v1/get/a/1"))
    assert other.replies()[0].json()["value"] == "v"
    guarded.replace(_ROOT, _APP)
    wire.send(get(APP, "/api/v1/get/a/1"))
    assert statuses(wire) == [200]


@pytest.mark.parametrize("cut", [10, -30, -1])
def test_revocation_in_the_middle_of_a_request(cut: int) -> None:
    """In its head or in its body: what is not whole is not carried out."""
    guarded = Guarded()
    wire = guarded.world.wire()
    wire.send(put(APP, "a/1"))
    request = put(APP, "a/2")
    wire.send(request[:cut])
    guarded.replace(_ROOT)
    wire.send(request[cut:])
    assert statuses(wire) == [200, 401]
    assert b"a/2" not in guarded.world.stored()


def test_revocation_while_a_request_runs() -> None:
    """What was begun is done and answered; what waits behind it on the connection is refused."""
    guarded = Guarded()
    guarded.world.held = True
    wire = guarded.world.wire()
    wire.send(put(APP, "a/1") + put(APP, "a/2") + put(ROOT, "b", "new"))
    guarded.replace(_ROOT)
    guarded.world.held = False
    guarded.world.work()
    assert statuses(wire) == [200, 401, 200]
    assert set(guarded.world.stored()) == {b"a/1", b"b"}


def test_the_end_of_a_connection_whose_lane_was_forgotten() -> None:
    """While its write runs: nothing is answered, and nothing is left behind."""
    guarded = Guarded()
    guarded.world.held = True
    wire = guarded.world.wire()
    wire.send(put(APP, "a/1"))
    guarded.replace(_ROOT)
    wire.transport.disconnect()
    guarded.world.work()
    assert guarded.world.stored()[b"a/1"] == b"v"
    assert guarded.world.site.connections == guarded.world.admission.in_flight == 0


def test_a_rate_is_the_token_s_on_all_connections() -> None:
    """On either lane; the answer says when to come back."""
    shown, entry = made("slow", rate=OwnRate(2, 0))
    guarded = Guarded(entry)
    replies = []
    for _ in range(4):
        wire = guarded.world.wire()
        wire.send(get(shown))
        replies += wire.replies()
    assert sorted(reply.status for reply in replies) == [200, 200, 429, 429]
    assert replies[-1].headers["retry-after"] == "1"
    assert guarded.counted == ["rate_limited"] * 2


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("token", [None, WRONG, ROOT], ids=["none", "wrong", "good"])
def test_large_bodies_of_the_unknown_are_not_read(chunked: bool, token: bytes | None) -> None:
    """The head is refused at once, and the connection closed; whoever is known may go on."""
    guarded = Guarded()
    wire = guarded.world.wire()
    shown = {} if token is None else {"authorization": token.decode()}
    length = {"transfer_encoding": "chunked"} if chunked else {"content_length": str(UNKNOWN_BODY + 1)}
    wire.send(request_bytes("POST", "/api/v1/set", content_type="application/json", **shown, **length))
    if token == ROOT:
        assert statuses(wire) == []
        assert guarded.counted == []
        return
    (reply,) = wire.replies()
    assert (reply.status, reply.headers["connection"]) == (401, "close")
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert guarded.counted == ["unauthenticated"]
    assert wire.transport.half_closed
    wire.send(b"x" * 100_000 + put(ROOT, "c"))
    assert statuses(wire) == []
    assert b"c" not in guarded.world.stored()


def test_how_large_the_bodies_of_the_unknown_may_be() -> None:
    """As large as is configured, from the change on; what is refused for it is counted. 0: none is read."""
    guarded = Guarded()
    deadlines = guarded.world.site.deadlines
    for limit in (0, 100):
        deadlines.retune(ByteLimits(unauthenticated_body=limit))
        wire = guarded.world.wire()
        body = b"x" * limit
        wire.send(request_bytes("POST", "/api/v1/set", body) + get(ROOT))
        assert statuses(wire) == [401, 200]
        wire.send(request_bytes("POST", "/api/v1/set", body + b"x") + get(ROOT))
        assert statuses(wire) == [401]
        assert wire.transport.half_closed
    wire = guarded.world.wire()
    wire.send(put(ROOT, "k", "v" * 1000))
    assert statuses(wire) == [200]
    assert deadlines.cut_off == {**NONE_CUT_OFF, "unauthenticated_body": 2}


def test_a_small_body_of_the_unknown_is_answered_in_turn() -> None:
    """So that the connection, which may be a proxy's, goes on."""
    guarded = Guarded()
    wire = guarded.world.wire()
    wire.send(put(None, "k", "x" * (UNKNOWN_BODY - 1000)) + put(ROOT, "k"))
    assert statuses(wire) == [401, 200]


def test_what_is_kept_of_sessions() -> None:
    """Of many tokens that came and went nothing stays."""
    guarded = Guarded()
    wire = guarded.world.wire()
    for number in range(50):
        shown, entry = made(f"t{number}")
        guarded.replace(entry)
        wire.send(get(shown))
    assert statuses(wire) == [200] * 50
    guarded.replace(_ROOT)
    wire.send(get(ROOT) + get(None, "/api/v1/health"))
    assert statuses(wire) == [200, 200]
    assert len(guarded.world.site.authorization._lanes) == (1 if World.fast_lane else 0)
    assert len(guarded.gate._sessions) == 1
