"""The operator's tasks among what the server carries out itself: their limits, and what is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.logger import LogLevel, capturedLogs, formatEvent

from kvtwisted.backends.server import ServerCommands
from kvtwisted.commands.administration import (
    AdminCommand,
    CollectOrphans,
    CreateBackup,
    Foreseen,
    ListBackups,
    Plan,
    PlanEviction,
)
from kvtwisted.commands.command import Actor, Command
from kvtwisted.commands.configuration import GetConfig
from kvtwisted.core.errors import InvalidRequest, Overloaded, StorageError, Unavailable
from kvtwisted.reactor.fair_pool import FairPool

from ..support.administration import FakeTasks
from ..support.configuration import FakeConfiguration
from ..support.pools import ImmediateReactor, ManualPool


class Scene:
    """A server's executor, whose pools work when a test says."""

    def __init__(self, *, on_disk: bool = True) -> None:
        self.reactor, self.pool, self.task_pool = ImmediateReactor(), ManualPool(), ManualPool()
        self.tasks = FakeTasks()
        self.audited: list[tuple[Any, ...]] = []
        self.settled: list[Command] = []
        pool: Any = self.pool
        task_pool: Any = self.task_pool
        self.server = ServerCommands(
            self.reactor, FairPool(self.reactor, pool), FakeConfiguration({"a": 1}), lambda: None,
            tasks=self.tasks.tasks if on_disk else None, task_pool=task_pool,
            audit=lambda *line: self.audited.append(line),
        )  # fmt: skip

    def submit(self, command: AdminCommand) -> AdminCommand:
        """Submit it, as ann."""
        command.actor = Actor("ann", administers=True)
        self.server.submit(command, self._settle)
        assert command not in self.settled
        return command

    def _settle(self, commands: Sequence[Command]) -> None:
        self.settled += commands

    def run(self) -> None:
        """Let everything come to its end."""
        self.reactor.turn()
        self.task_pool.run_all()
        self.reactor.turn()


@pytest.mark.parametrize(
    ("command", "most"), [(CreateBackup(None), 1), (ListBackups(), 8), (PlanEviction(), 1), (CollectOrphans(), 1)]
)
def test_so_many_at_once(command: AdminCommand, most: int) -> None:
    """One more of a kind is refused, not one of another kind; when one is done there is room again."""
    scene = Scene()
    kind = type(command)

    def again() -> AdminCommand:
        return CreateBackup(None) if kind is CreateBackup else kind()

    for _ in range(most):
        scene.submit(again())
    other = scene.submit(ListBackups() if kind is not ListBackups else CollectOrphans())
    refused = scene.submit(again())
    scene.reactor.turn()
    assert scene.settled == [refused]
    assert isinstance(refused.error, Overloaded)
    scene.run()
    assert len(scene.settled) == most + 2
    assert other.error is None
    later = scene.submit(again())
    scene.run()
    assert later.error is None


def test_results_are_encoded_in_the_pool() -> None:
    """The log and the audit log have the result itself."""
    scene = Scene()
    command = CollectOrphans()
    command.encode = lambda collected: f"{collected.files} files"
    with capturedLogs() as events:
        scene.submit(command)
        scene.run()
    assert command.result == "2 files"
    assert scene.audited == [("administration", "ann", {"operation": "orphans", "files": 2, "bytes": 3_000_000})]
    assert [formatEvent(event) for event in events] == ["removed 2 orphaned value files, 3000000 bytes"]


def test_a_plan_is_audited_and_not_logged() -> None:
    """A dry run changes nothing."""
    scene = Scene()
    with capturedLogs() as events:
        command = scene.submit(PlanEviction())
        scene.run()
    victims = {"expired": Foreseen(1, 96), "lru": Foreseen(40, 4000)}
    assert command.result == Plan(83.5, 80, "lru", 4096, 70_000, False, victims)
    assert (scene.audited, events) == ([("administration", "ann", {"operation": "eviction", "needed": 4096})], [])


def test_what_fails_is_logged_and_audited() -> None:
    """What is not the operator's own doing is an error in the log."""
    scene = Scene()
    scene.tasks.error = StorageError("no disk")
    with capturedLogs() as events:
        command = scene.submit(CollectOrphans())
        scene.run()
    assert command.error is scene.tasks.error
    assert scene.audited == [("administration", "ann", {"operation": "orphans", "error": "no disk"})]
    assert [(event["log_level"], formatEvent(event)) for event in events] == [
        (LogLevel.error, "collection of orphans failed: no disk")
    ]


def test_without_a_disk() -> None:
    """All are refused, which is audited."""
    scene = Scene(on_disk=False)
    command = scene.submit(CreateBackup("x"))
    scene.run()
    sentence = "backup: storage.engine is memory, which keeps nothing on disk"
    assert isinstance(command.error, InvalidRequest)
    assert scene.audited == [("administration", "ann", {"operation": "backup", "error": sentence})]
    assert scene.server.stop().called


def test_stop_waits_for_tasks_and_leaves_the_configuration() -> None:
    """A backup is told to give up, and what comes later is refused; the configuration is shown to the end."""
    scene = Scene()
    backup = scene.submit(CreateBackup(None))
    stopped = scene.server.stop()
    late, shown = scene.submit(ListBackups()), GetConfig()
    shown.admission = None
    scene.server.submit(shown, scene.settled.extend)
    scene.pool.run_all()
    scene.reactor.turn()
    assert isinstance(late.error, Unavailable)
    assert scene.settled == [shown, late]
    assert not stopped.called
    scene.run()
    assert stopped.called
    assert isinstance(backup.error, Unavailable)
