"""A closed gate, and who comes to it."""

from __future__ import annotations

import json
from typing import Any

from kvtwisted.core.admission import Admission
from kvtwisted.core.health import Health
from kvtwisted.core.operations import Operations
from kvtwisted.security.audit import Audit
from kvtwisted.security.authority import Authority
from kvtwisted.security.buckets import Addresses
from kvtwisted.security.entries import TokenEntry
from kvtwisted.security.gate import ClosedGate, Visitor
from kvtwisted.security.passes import Pass
from tests.support.configuration import FakeConfiguration
from tests.support.recorders import CountingRecorder
from tests.support.storage import Storage

from .support import PEER, ManualTime


class Fixture:
    """A closed gate with everything around it."""

    def __init__(
        self, *entries: TokenEntry, tokens: bool = True, failed_logins: int = 0, addresses: Addresses | None = None
    ) -> None:
        configuration = FakeConfiguration({"http": {"port": 1}})
        self.operations = Operations(Storage().store, configuration, CountingRecorder(), Health())
        self.admission = Admission(8, 800)
        self.wall, self.seconds = ManualTime(), ManualTime()
        self.authority = (
            Authority(failed_logins=failed_logins, wall=self.wall, seconds=self.seconds) if tokens else None
        )
        if self.authority is not None:
            self.authority.replace(entries)
        self.lines: list[bytes] = []
        self.counted: list[str] = []
        self.gate = ClosedGate(
            self.operations,
            self.admission,
            self.authority,
            Audit(self.lines.append),
            addresses=addresses,
            count=self.counted.append,
            wall=self.wall,
            seconds=self.seconds,
        )
        self.withdrawn: list[frozenset[Pass]] = []
        self.gate.watch(self.withdrawn.append)

    def told(self) -> list[dict[str, Any]]:
        """The audit lines so far, without their times."""
        lines = [json.loads(line) for line in self.lines]
        return [{name: value for name, value in line.items() if name != "time"} for line in lines]


def visitor(*authorization: bytes, certificate: str | None = None, address: str = PEER) -> Visitor:
    """Somebody who shows this."""
    return Visitor(address, authorization, certificate)
