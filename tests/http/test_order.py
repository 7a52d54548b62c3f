"""HTTP requests are refused in the one order, on either lane, small and large."""

from __future__ import annotations

import json

import pytest

from ..support.order import CONTENT, QUOTA, RATE, RIGHTS, ROOM, Case, Guards, cases
from .support import World, problem

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True

#: Quotas need a backend that can tell how much is stored; the order is no backend's matter.
pytestmark = pytest.mark.local_backend

CAPACITY = 4
ANSWERS = {
    RIGHTS: (403, "permission_denied"), RATE: (429, "rate_limited"), QUOTA: (507, "quota_exceeded"),
    ROOM: (429, "overloaded"),
}  # fmt: skip
SIZE = 100_000
BODIES = {
    "set": lambda value: {"key": "k", "value": value},
    "mset": lambda value: {"key_values": {"k": value}},
    "mget": lambda value: {"keys": ["k"] * (len(value) // 10)},
    "mdelete": lambda value: {"keys": ["k"] * (len(value) // 10)},
    "increment": lambda value: {"key": "k", "delta": 1},
    "touch": lambda value: {"key": "k", "condition": {"value": value}},
    "transact": lambda value: {"mutations": [{"set": {"key": "k", "value": value}}]},
    "delete_range": lambda value: {"prefix": "k"},
}
PATHS = {
    "get": ("GET", "/api/v1/get/"), "delete": ("DELETE", "/api/v1/delete/"), "scan": ("GET", "/api/v1/scan"),
    "get_raw": ("GET", "/api/v1/raw/"), "put_raw": ("PUT", "/api/v1/raw/"), "delete_raw": ("DELETE", "/api/v1/raw/"),
}  # fmt: skip
#: Those that only HTTP has, or names so, with whether they write something; and those of them that may be large.
MORE = {
    "increment": True, "touch": False, "transact": True, "delete_range": False, "get_raw": False, "put_raw": True,
    "delete_raw": False,
}  # fmt: skip
LARGE_TOO = ("touch", "transact", "put_raw")


def request_of(case: Case) -> tuple[str, str, bytes | None]:
    """Method, target and body."""
    bad = CONTENT in case.wrong
    if case.request in PATHS:
        method, path = PATHS[case.request]
        if case.request == "scan":
            return method, path + ("?limit=x" if bad else ""), None
        body = b"v" * (SIZE if case.large else 10) if method == "PUT" else None
        return method, path + ("%ff" if bad else "k"), body
    body = json.dumps(BODIES[case.request]("v" * (SIZE if case.large else 10))).encode()
    return "POST", f"/api/v1/{case.request}", body[:-1] + b"," if bad else body


@pytest.mark.parametrize("case", cases(more=MORE, large_too=LARGE_TOO))
def test_the_first_refusal(case: Case) -> None:
    """A request that is wrong in several ways is told the first."""
    guards = Guards()
    world = World(make_gate=guards.gate, capacity=CAPACITY)
    token = guards.prepare(case, CAPACITY)
    reply = world.request(*request_of(case), authorization=token.decode())
    status, code, *_ = problem(reply)
    if case.wrong[0] == CONTENT:
        assert status == 400
    else:
        assert (status, code) == ANSWERS[case.wrong[0]]
    assert not world.stored()
