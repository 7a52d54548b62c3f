"""The one order in which requests are refused: who asks, and what is wrong with what they ask for.

A request that is wrong in several ways gets the first refusal, whatever it is and whichever way it comes; see Note
[The order of admission] in `kvtwisted.sessions.session`. `tests/http/test_order.py` and `tests/rpc/test_order.py` go by
this.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import pytest

from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.audit import Audit
from kvtwisted.sessions.authority import Authority
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.entries import OwnRate
from kvtwisted.sessions.gate import Gate
from kvtwisted.sessions.quotas import Quota

from ..sessions.support import grant, made

RIGHTS, RATE, ROOM, CONTENT, QUOTA = ORDER = "rights", "rate", "room", "content", "quota"

#: Requests by name, with whether they write something.
REQUESTS = {"set": True, "get": False, "delete": False, "mset": True, "mget": False, "mdelete": False, "scan": False}

NOTHING: Mapping[str, bool] = {}


class Case(NamedTuple):
    """A request, and all that is wrong with it."""

    request: str
    wrong: tuple[str, ...]
    large: bool

    def __str__(self) -> str:
        """For the name of a test."""
        return f"{'large ' if self.large else ''}{self.request}-{'+'.join(self.wrong)}"


def cases(
    *, without: tuple[str, ...] = (), more: Mapping[str, bool] = NOTHING, large_too: Collection[str] = ()
) -> list[Any]:
    """Each request, and each of `more`, wrong in everything from one place of the order on.

    What cannot be read says not what it would write, so that bad content is over no quota. `large_too` are those of
    `more` that are large as well.
    """
    found = []
    for request, writes in {**REQUESTS, **more}.items():
        for large in (False, True) if request in ("set", "mset", "mget", "mdelete", *large_too) else (False,):
            for first in ORDER:
                if first not in without and (first != QUOTA or writes):
                    wrong = tuple(one for one in ORDER[ORDER.index(first) :] if one not in without)
                    case = Case(request, wrong, large)
                    found.append(pytest.param(case, id=str(case)))
    return found


class Guards:
    """A gate with a token for what may be wrong with who asks."""

    def __init__(self) -> None:
        self.authority = Authority(seconds=lambda: 1000.0)
        may, rate = grant("get,set,delete,scan"), OwnRate(operations=1)
        self.tokens: dict[str, bytes] = {}
        entries = []
        for name, entry_of in {
            RIGHTS: made(RIGHTS, grant("config_read"), rate=rate),
            RATE: made(RATE, may, rate=rate),
            QUOTA: made(QUOTA, may),
            ROOM: made(ROOM, may),
            CONTENT: made(CONTENT, may),
        }.items():
            self.tokens[name], entry = entry_of
            entries.append(entry._replace(quota=Quota(1, 1)))
        self.authority.replace(entries)

    def gate(self, door: Door, admission: Admission) -> Gate:
        """For a world."""
        self.admission = admission
        self.room = admission.in_flight
        return Gate(door, admission, self.authority, Audit(lambda line: None), seconds=lambda: 1000.0)

    def prepare(self, case: Case, capacity: int) -> bytes:
        """Make the server what it is to be for a case; gives the token to send."""
        first = case.wrong[0]
        if RATE in case.wrong and first == RATE:
            usage = self.authority.find([self.tokens[RATE]])
            assert usage is not None
            assert usage.limiter is not None
            assert not usage.limiter.take(1, 0, 1000.0)
        if ROOM in case.wrong:
            for _ in range(capacity):
                self.admission.enter()
        return self.tokens[first]
