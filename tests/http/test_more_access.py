"""Rights, rates and the audit log of what needs more than one right, or is about more than one key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.audit import Audit
from kvtwisted.sessions.authority import Authority
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.entries import OwnRate, TokenEntry
from kvtwisted.sessions.gate import Gate
from kvtwisted.sessions.grants import Principal
from tests.sessions.support import grant, made

from .support import Reply, World, problem

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

A, B = b"a/", b"b/"
CONDITION = {"absent": True}
MATCH = {"if_match": "*"}


def put(value: str = "v", **more: Any) -> dict[str, Any]:
    """A Set of a key under `a/`."""
    return {"key": "a/1", "value": value, **more}


#: Requests, with the rights that they need, each over the prefix that stands behind it: method, path, body, headers.
REQUESTS: dict[str, tuple[str, str, Any, dict[str, str], list[tuple[str, bytes]]]] = {
    "set": ("POST", "set", put(), {}, [("set", A)]),
    "set if": ("POST", "set", put(condition=CONDITION), {}, [("set", A), ("get", A)]),
    "increment": ("POST", "increment", {"key": "a/n", "delta": 1}, {}, [("set", A), ("get", A)]),
    "touch": ("POST", "touch", {"key": "a/1", "ttl": 5}, {}, [("set", A)]),
    "touch if": ("POST", "touch", {"key": "a/1", "condition": CONDITION}, {}, [("set", A), ("get", A)]),
    "delete": ("DELETE", "delete/a/1", None, {}, [("delete", A)]),
    "delete if": ("DELETE", "delete/a/1", None, MATCH, [("delete", A), ("get", A)]),
    "raw get": ("GET", "raw/a/1", None, {}, [("get", A)]),
    "raw put": ("PUT", "raw/a/1", "v", {}, [("set", A)]),
    "raw put if": ("PUT", "raw/a/1", "v", MATCH, [("set", A), ("get", A)]),
    "raw delete": ("DELETE", "raw/a/1", None, {}, [("delete", A)]),
    "raw delete if": ("DELETE", "raw/a/1", None, MATCH, [("delete", A), ("get", A)]),
    "transact set": ("POST", "transact", {"mutations": [{"set": put()}]}, {}, [("set", A)]),
    "transact": (
        "POST", "transact",
        {
            "checks": [{"key": "b/1", "condition": CONDITION}],
            "mutations": [{"set": put()}, {"delete": {"key": "b/2"}}, {"touch": {"key": "a/3"}}],
        },
        {}, [("set", A), ("delete", B), ("get", B)],
    ),
    "transact increment": (
        "POST", "transact", {"mutations": [{"increment": {"key": "b/1", "delta": 1}}]}, {}, [("set", B), ("get", B)],
    ),
    "delete_range": ("POST", "delete_range", {"prefix": "a/"}, {}, [("delete", A)]),
    "delete_range between": ("POST", "delete_range", {"start": "a/1", "end": "a/2"}, {}, [("delete", A)]),
    "delete_range far": ("POST", "delete_range", {"start": "a/1", "end": "b"}, {}, [("delete", b"")]),
    "delete_range all": ("POST", "delete_range", {"all": True}, {}, [("delete", b"")]),
    "delete_range counting": ("POST", "delete_range", {"prefix": "a/", "dry_run": True}, {}, [("delete", A)]),
    "scan": ("GET", "scan?start=a/1&end=a/2", None, {}, [("scan", A)]),
    "scan far": ("GET", "scan?start=a/1", None, {}, [("scan", b"")]),
}  # fmt: skip


class Guarded:
    """A world that asks for this token."""

    def __init__(self, entry: TokenEntry) -> None:
        self.authority = Authority(seconds=lambda: 1000.0)
        self.authority.replace([entry])
        #: Operation and keys of each write that was let in.
        self.written: list[tuple[str, list[bytes]]] = []
        self.world = World(make_gate=self._gate)

    def _gate(self, door: Door, admission: Admission) -> Gate:
        audit = Audit(lambda line: None)
        return Gate(door, admission, self.authority, audit, seconds=lambda: 1000.0, written=self._written)

    def _written(self, principal: Principal, operation: str, keys: Any) -> None:
        self.written.append((operation, sorted(keys)))

    def ask(self, name: str, token: bytes) -> Reply:
        """Send one of the requests."""
        method, path, body, headers, _ = REQUESTS[name]
        sent = None if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        return self.world.request(method, f"/api/v1/{path}", sent, authorization=token.decode(), **headers)


def is_refused(reply: Reply) -> bool:
    """Whether it was refused for want of rights; else it was carried out, or could not be for another reason."""
    if reply.status != 403:
        assert reply.status in (200, 404, 412, 501), reply.body
        return False
    return problem(reply)[:2] == (403, "permission_denied")


@pytest.mark.parametrize("name", REQUESTS)
def test_what_each_request_needs(name: str) -> None:
    """Just these rights are enough; without any one of them, or with it elsewhere, nothing is told."""
    needed = REQUESTS[name][-1]
    token, entry = made("enough", *[grant(operation, prefix) for operation, prefix in needed])
    assert not is_refused(Guarded(entry).ask(name, token))
    for missing in needed:
        others = [grant(operation, prefix) for operation, prefix in needed if (operation, prefix) != missing]
        elsewhere = grant(missing[0], b"a/x")
        for grants in ([*others, elsewhere], others or [grant("config_read")]):
            token, entry = made("little", *grants)
            guarded = Guarded(entry)
            assert is_refused(guarded.ask(name, token))
            assert guarded.written == []


@pytest.mark.local_backend
def test_what_is_audited() -> None:
    """Each key that may have changed, by what may have happened to it; not what is only read."""
    token, entry = made("all")
    expected = {
        "set if": [("set", [b"a/1"])],
        "increment": [("set", [b"a/n"])],
        "touch": [("set", [b"a/1"])],
        "delete if": [("delete", [b"a/1"])],
        "raw get": [],
        "raw put": [("set", [b"a/1"])],
        "raw put if": [("set", [b"a/1"])],
        "raw delete": [("delete", [b"a/1"])],
        "transact": [("delete", [b"b/2"]), ("set", [b"a/1", b"a/3"])],
        "delete_range": [("delete_range", [b"a/", b"a0"])],
        "delete_range all": [("delete_range", [b"", b""])],
        "delete_range counting": [],
    }
    for name, written in expected.items():
        guarded = Guarded(entry)
        guarded.ask(name, token)
        assert sorted(guarded.written) == written, name


@pytest.mark.parametrize(
    ("name", "costs"),
    [
        ("set if", 1),
        ("increment", 1),
        ("touch", 1),
        ("raw put", 1),
        ("raw get", 1),
        ("raw delete if", 1),
        ("transact", 4),
    ],
)
def test_rates_charge_keys(name: str, costs: int) -> None:
    """A transaction costs its checks and mutations."""
    token, entry = made("slow", rate=OwnRate(operations=100))
    guarded = Guarded(entry)
    usage = guarded.authority.find([token])
    assert usage is not None
    assert usage.limiter is not None
    left = 0
    while not usage.limiter.take(1, 0, 1000.0):
        left += 1
    usage.limiter.spend(-left, 0, 1000.0)
    guarded.ask(name, token)
    after = 0
    while not usage.limiter.take(1, 0, 1000.0):
        after += 1
    assert left - after == costs
