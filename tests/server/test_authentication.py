"""The part of the assembly that keeps the gate current."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred

from kvtwisted.config.settings import SecuritySettings, Settings
from kvtwisted.core.errors import Unauthenticated, Unavailable
from kvtwisted.observability.metrics import Metrics
from kvtwisted.server.authentication import LOOK_SECONDS, Authentication
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.audit import Audit
from kvtwisted.sessions.entries import OwnRate
from kvtwisted.sessions.gate import OpenGate, Visitor
from kvtwisted.sessions.quotas import Quota
from kvtwisted.sessions.session import Session
from kvtwisted.sessions.token_file import edit
from tests.sessions.support import PEER, grant, made
from tests.support.doors import Doorway

from ..http.support import FakeReactor


class World:
    """Authentication by a token file, on a reactor whose time a test moves."""

    def __init__(self, tokens: str, *, measures: bool = True) -> None:
        """`measures`: the backend can tell how much is stored."""
        self.reactor = FakeReactor()
        settings = replace(Settings(), security=SecuritySettings(tokens=tokens))
        self.doorway = Doorway()
        door = self.doorway.door
        door.measures = door.measures if measures else None
        self.hangs = False
        self.counted: list[str] = []
        self.authentication = Authentication(
            self.reactor, lambda: settings, door, Admission(8),
            Audit(lambda line: None), self._defer, self.counted.append, writes=Audit(lambda line: None),
        )  # fmt: skip
        self.withdrawn: list[frozenset[Session]] = []
        self.authentication.gate.on_withdrawal(self.withdrawn.append)
        for ticker in self.authentication.tickers():
            ticker.startService()

    def _defer(self, function: Any, *args: Any, **options: Any) -> Deferred[Any]:
        """Run it here and now, unless the disk hangs."""
        waiting: Deferred[Any] = Deferred()
        if not self.hangs:
            waiting.callback(function(*args, **options))
        return waiting


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A token file with one token."""
    return str(tmp_path / "tokens.json")


def test_without_a_file_the_gate_is_open() -> None:
    """But for the rates of addresses there is nothing to keep current."""
    world = World("")
    assert world.authentication.is_open
    assert isinstance(world.authentication.gate, OpenGate)
    assert world.authentication.tokens == 0


def test_a_missing_file(path: str) -> None:
    """The server does not start, and is told the setting."""
    with pytest.raises(Unavailable, match=r"security\.tokens: token file .*: there is no such file"):
        World(path)


def test_the_file_is_followed(path: str) -> None:
    """Within a look new tokens are known, and the sessions of revoked ones withdrawn; refusals are counted."""
    (one, first), (two, second) = made("one"), made("two")
    edit(path, lambda _: [first], create=True)
    world = World(path)
    gate = world.authentication.gate
    old = gate.admit(Visitor(PEER, (one,)))
    edit(path, lambda _: [second])
    world.reactor.advance(LOOK_SECONDS)
    assert world.authentication.tokens == 1
    assert gate.admit(Visitor(PEER, (two,))).is_known
    assert world.withdrawn == [frozenset([old])]
    with pytest.raises(Unauthenticated):
        gate.admit(Visitor(PEER, (one,)))
    assert world.counted == ["unauthenticated"]


def test_tokens_end_while_the_disk_hangs(path: str) -> None:
    """The look at the file never ends; what has been revoked or has expired is withdrawn all the same."""
    shown, entry = made("one")
    edit(path, lambda _: [entry], create=True)
    world = World(path)
    admitted = world.authentication.gate.admit(Visitor(PEER, (shown,)))
    world.hangs = True
    world.reactor.advance(LOOK_SECONDS)
    assert admitted.principal is not None
    admitted.principal.valid_until = 1
    world.reactor.advance(LOOK_SECONDS)
    assert world.withdrawn == [frozenset([admitted])]


def test_quotas_are_followed(path: str) -> None:
    """Who gets one is counted within a look, also when it is new; what is used is shown as long as there is a quota."""
    _, entry = made("one", grant("set", b"a/"))
    edit(path, lambda _: [entry], create=True)
    world = World(path)
    registry = CollectorRegistry()
    world.authentication.show(Metrics(registry))
    world.doorway.blocking().mset({b"a/1": b"v", b"a/2": b"v", b"b": b"v"})

    def shown(name: str) -> float | None:
        return registry.get_sample_value(name, {"principal": "one"})

    world.reactor.advance(LOOK_SECONDS)
    assert shown("kv_quota_keys") is None
    edit(path, lambda _: [entry._replace(quota=Quota(0, 10))])
    for _ in range(2):
        world.reactor.advance(LOOK_SECONDS)
    names = ("bytes", "used_bytes", "keys", "used_keys", "refused_total")
    assert [shown(f"kv_quota_{name}") for name in names] == [0, 8, 10, 2, 0]
    edit(path, lambda _: [entry])
    world.reactor.advance(LOOK_SECONDS)
    assert shown("kv_quota_keys") is None


def test_without_figures_there_are_no_quotas(path: str) -> None:
    """A backend that cannot tell how much is stored: no start with one, and later the tokens stay as they were."""
    shown, entry = made("one")
    edit(path, lambda _: [entry._replace(quota=Quota(1))], create=True)
    with pytest.raises(Unavailable, match=r"security\.tokens: quota: this storage cannot tell"):
        World(path, measures=False)
    edit(path, lambda _: [entry])
    world = World(path, measures=False)
    edit(path, lambda _: [entry._replace(quota=Quota(1), rate=OwnRate(1))])
    world.reactor.advance(LOOK_SECONDS)
    assert world.authentication.gate.admit(Visitor(PEER, (shown,))).principal.limiter is None
