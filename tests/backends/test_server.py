"""What the server carries out itself."""

from __future__ import annotations

from typing import Any

import pytest

from kvtwisted.backends.server import ServerCommands
from kvtwisted.commands.command import ANONYMOUS, Actor, Command
from kvtwisted.commands.configuration import GetConfig, UpdateConfig
from kvtwisted.core.errors import InvalidConfig
from kvtwisted.reactor.fair_pool import FairPool
from tests.support.configuration import FakeConfiguration
from tests.support.pools import ImmediateReactor, ManualPool


class Configuration(FakeConfiguration):
    """Notes who changes it."""

    def __init__(self) -> None:
        super().__init__({"a": 1})
        self.actors: list[Actor] = []

    def update(self, document: Any, actor: Actor = ANONYMOUS) -> list[str]:
        """Note the actor."""
        self.actors.append(actor)
        return super().update(document)


class Scene:
    """The commands over a pool that a test runs."""

    def __init__(self) -> None:
        self.pool = ManualPool()
        self.configuration = Configuration()
        self.updates = 0
        self.settled: list[Command] = []
        reactor: Any = ImmediateReactor()
        pool: Any = self.pool
        self.server = ServerCommands(reactor, FairPool(reactor, pool), self.configuration, self._updated)

    def _updated(self) -> None:
        self.updates += 1

    def run(self, command: Command) -> Command:
        """Carry it out; it is settled once, and not before a thread had it."""
        before = len(self.settled)
        command.admission = self  # whose it is: the door says
        self.server.submit(command, self.settled.extend)
        assert len(self.settled) == before
        self.pool.run_all()
        assert self.settled[before:] == [command]
        return command


@pytest.fixture
def scene() -> Scene:
    """A new one."""
    return Scene()


def test_it_is_shown(scene: Scene) -> None:
    """As text, encoded for the client where there is something to encode."""
    assert scene.run(GetConfig()).result == '{"a": 1}'
    encoded = GetConfig()
    encoded.encode = len
    assert scene.run(encoded).result == 8
    assert scene.updates == 0


@pytest.mark.parametrize("change", [{"a": 2}, '{"a": 2}'], ids=["document", "text"])
def test_it_is_changed_by_somebody(scene: Scene, change: Any) -> None:
    """The configuration is told who, and each change that was accepted counts."""
    command = UpdateConfig(change)
    command.actor = Actor("p", administers=False)
    assert scene.run(command).result == []
    assert scene.configuration.actors == [Actor("p", administers=False)]
    assert (scene.updates, scene.configuration.show()) == (1, '{"a": 2}')


@pytest.mark.parametrize("change", [{"b": 2}, '{"b": 2}'], ids=["document", "text"])
def test_a_refused_change_fails(scene: Scene, change: Any) -> None:
    """It does not count; nor is there a result."""
    command = scene.run(UpdateConfig(change))
    assert isinstance(command.error, InvalidConfig)
    assert (command.result, scene.updates) == (None, 0)
