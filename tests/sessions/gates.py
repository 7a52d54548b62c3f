"""A closed gate, and who comes to it."""

from __future__ import annotations

import json
from typing import Any, Callable

from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.audit import Audit
from kvtwisted.sessions.authority import Authority
from kvtwisted.sessions.buckets import Addresses
from kvtwisted.sessions.entries import TokenEntry
from kvtwisted.sessions.gate import Gate, Visitor
from kvtwisted.sessions.session import Session
from tests.support.configuration import FakeConfiguration
from tests.support.doors import Blocking, Doorway

from .support import PEER, ManualTime


class Fixture:
    """A closed gate with everything around it."""

    def __init__(
        self, *entries: TokenEntry, tokens: bool = True, failed_logins: int = 0, addresses: Addresses | None = None
    ) -> None:
        self.doorway = Doorway(configuration=FakeConfiguration({"http": {"port": 1}}))
        self.door = self.doorway.door
        self.calls: Callable[[Session], Blocking] = self.doorway.blocking
        self.admission = Admission(8, 800)
        self.wall, self.seconds = ManualTime(), ManualTime()
        self.authority = (
            Authority(failed_logins=failed_logins, wall=self.wall, seconds=self.seconds) if tokens else None
        )
        if self.authority is not None:
            self.authority.replace(entries)
        self.lines: list[bytes] = []
        self.counted: list[str] = []
        self.gate = Gate(
            self.door,
            self.admission,
            self.authority,
            Audit(self.lines.append),
            certificates=True,
            addresses=addresses,
            count=self.counted.append,
            wall=self.wall,
            seconds=self.seconds,
        )
        self.withdrawn: list[frozenset[Session]] = []
        self.gate.on_withdrawal(self.withdrawn.append)

    def told(self) -> list[dict[str, Any]]:
        """The audit lines so far, without their times."""
        lines = [json.loads(line) for line in self.lines]
        return [{name: value for name, value in line.items() if name != "time"} for line in lines]


def visitor(*authorization: bytes, certificate: str | None = None, address: str = PEER) -> Visitor:
    """Somebody who shows this."""
    return Visitor(address, authorization, certificate)
