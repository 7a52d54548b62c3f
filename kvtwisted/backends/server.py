"""What the server carries out itself: commands about its configuration, and the operator's tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, Callable, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ..commands.administration import AdminCommand, Tasks
from ..commands.command import ANONYMOUS, Actor, Command
from ..commands.configuration import GetConfig, UpdateConfig
from ..core.errors import InvalidRequest, KvError, Overloaded, Unavailable
from ..reactor.fair_pool import FairPool
from ..reactor.pool import defer_to_pool
from .backend import Settled

#: Threads for the operator's tasks: one for each kind of them that takes long.
TASK_THREADS = 3

#: Called with an event, who caused it, and what is to be said of it. Must be quick.
Auditor = Callable[[str, str, Mapping[str, object]], None]

_log = Logger(namespace="kvtwisted")


class Configuration(Protocol):
    """What is needed of the configuration. Thread-safe."""

    def show(self) -> str:
        """The whole configuration as JSON text, secrets redacted."""

    def update(self, document: Mapping[str, object] | str, actor: Actor = ANONYMOUS) -> list[str]:
        """Apply and persist a change, given as a document or its JSON text; returns the keys that need a restart.

        Raises InvalidConfig, PermissionDenied or StorageError.
        """


def _forget(event: str, who: str, facts: Mapping[str, object]) -> None:
    """Nobody asks for it."""


class ServerCommands:
    """Runs them in pools, since all wait for the disk. Reactor thread.

    How many tasks may be under way is bounded by `AdminCommand.at_once`.
    """

    def __init__(
        self,
        reactor: Any,
        pool: FairPool,
        configuration: Configuration,
        updated: Callable[[], object],
        *,
        tasks: Tasks | None = None,
        task_pool: ThreadPool | None = None,
        audit: Auditor = _forget,
    ) -> None:
        """`updated` is called for each change of the configuration that was accepted.

        Without `tasks` the operator's are refused: nothing is kept on disk. They run in `task_pool`.
        """
        self._reactor = reactor
        self._pool = pool
        self._configuration = configuration
        self._updated = updated
        self._tasks = tasks
        self._task_pool = task_pool
        self._audit = audit
        # Tasks under way, by their kind.
        self._running: Counter[type[AdminCommand]] = Counter()
        self._stopping: Deferred[None] | None = None

    def submit(self, command: Command, settled: Settled) -> None:
        """Carry it out, and tell, never within this call."""
        if isinstance(command, AdminCommand):
            self._begin(command, settled)
            return
        done = self._pool.run(command.admission, partial(self._configure, command))
        done.addErrback(_failed, command).addCallback(lambda _: settled([command]))

    def stop(self) -> Deferred[None]:
        """Refuse every later task with Unavailable and let a backup give up. Fires when none runs any more."""
        if self._tasks is not None:
            self._tasks.stop()
        self._stopping = Deferred()
        self._check_stopped()
        return self._stopping

    def _configure(self, command: Command) -> None:
        """In a pool thread."""
        if isinstance(command, UpdateConfig):
            command.complete(self._configuration.update(command.change, command.actor))
            self._updated()
        else:
            assert isinstance(command, GetConfig)  # noqa: S101 - there is no other
            command.complete(self._configuration.show())

    # The operator's tasks.

    def _begin(self, command: AdminCommand, settled: Settled) -> None:
        refusal = self._refusal(command)
        if refusal is not None:
            command.error = refusal
            self._record(command, {"error": str(refusal)})
            self._reactor.callLater(0, settled, [command])
            return
        assert self._task_pool is not None  # noqa: S101 - where there are tasks
        self._running[type(command)] += 1
        done = defer_to_pool(self._reactor, self._task_pool, self._carry_out, command)
        done.addBoth(self._ended, command).addCallback(lambda _: settled([command])).addBoth(self._check_stopped)

    def _carry_out(self, command: AdminCommand) -> Any:
        """In a pool thread."""
        assert self._tasks is not None  # noqa: S101 - or it would have been refused
        result = command.carry_out(self._tasks)
        command.complete(result)
        return result

    def _refusal(self, command: AdminCommand) -> KvError | None:
        if self._stopping is not None:
            return Unavailable("the server is stopping")
        if self._tasks is None:
            return InvalidRequest(f"{command.name}: storage.engine is memory, which keeps nothing on disk")
        if self._running[type(command)] >= command.at_once:
            return Overloaded(f"{command.name}: one is under way; try again when it is done")
        return None

    def _ended(self, result: Any, command: AdminCommand) -> None:
        """Logged and audited here, because the client may have gone."""
        self._running[type(command)] -= 1
        if not isinstance(result, Failure):
            self._record(command, {name: getattr(result, name) for name in command.facts})
            if command.logged:
                _log.info("{what}", what=command.logged.format(**result._asdict()))
            return
        command.error = result.value
        self._record(command, {"error": str(result.value)})
        if not result.check(InvalidRequest, Overloaded, Unavailable):
            _log.error("{kind} failed: {error}", kind=command.name, error=result.value)

    def _record(self, command: AdminCommand, facts: Mapping[str, object]) -> None:
        if command.audited:
            self._audit("administration", command.actor.name, {"operation": command.audited, **facts})

    def _check_stopped(self, result: object = None) -> object:
        if self._stopping is not None and not self._stopping.called and not any(self._running.values()):
            self._stopping.callback(None)
        return result


def _failed(failure: Failure, command: Command) -> None:
    command.error = failure.value
