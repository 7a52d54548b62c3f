"""What the server carries out itself: commands about its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Callable, Protocol

from twisted.python.failure import Failure

from ..commands.command import Command
from ..commands.configuration import ANONYMOUS, Actor, GetConfig, UpdateConfig
from ..reactor.fair_pool import FairPool


class Configuration(Protocol):
    """What is needed of the configuration. Thread-safe."""

    def show(self) -> str:
        """The whole configuration as JSON text, secrets redacted."""

    def update(self, document: Mapping[str, object], actor: Actor = ANONYMOUS) -> list[str]:
        """Apply and persist a change; returns the keys that need a restart.

        Raises InvalidConfig, PermissionDenied or StorageError.
        """

    def update_text(self, text: str, actor: Actor = ANONYMOUS) -> list[str]:
        """The same for JSON text."""


class ServerCommands:
    """Runs them in the pool, since a change is written to the disk. Reactor thread."""

    def __init__(self, pool: FairPool, configuration: Configuration, updated: Callable[[], object]) -> None:
        """`updated` is called for each change that was accepted."""
        self._pool = pool
        self._configuration = configuration
        self._updated = updated

    def submit(self, command: Command, settled: Callable[[Sequence[Command]], None]) -> None:
        """Carry it out, and tell."""
        done = self._pool.run(command.admission, partial(self._run, command))
        done.addErrback(_failed, command).addCallback(lambda _: settled([command]))

    def _run(self, command: Command) -> None:
        """In a pool thread."""
        if isinstance(command, UpdateConfig):
            change, actor = command.change, command.actor
            if isinstance(change, str):
                command.complete(self._configuration.update_text(change, actor))
            else:
                command.complete(self._configuration.update(change, actor))
            self._updated()
        else:
            assert isinstance(command, GetConfig)  # noqa: S101 - there is no other
            command.complete(self._configuration.show())


def _failed(failure: Failure, command: Command) -> None:
    command.error = failure.value
