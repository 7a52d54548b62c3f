"""Calls of the service layer, without a transport: through the door, as every transport's go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from prometheus_client import CollectorRegistry

from kvtwisted.backends.local.backend import LocalBackend
from kvtwisted.backends.local.recovery import Recovery
from kvtwisted.backends.local.store import Store
from kvtwisted.backends.server import ServerCommands
from kvtwisted.commands.command import Command
from kvtwisted.commands.get import Found
from kvtwisted.commands.mget import MGet
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.scan import Page, Scan
from kvtwisted.commands.set import Set
from kvtwisted.core.health import Health
from kvtwisted.core.limits import Limits
from kvtwisted.observability.metrics import Metrics
from kvtwisted.reactor.fair_pool import FairPool
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.gate import Gate, Visitor

#: Writes of one turn of the reactor: as many as a few connections send at once.
TURN = 64


class Turns:
    """A reactor whose turns come when somebody says; and a pool whose work is done at once."""

    def __init__(self) -> None:
        self._next: list[Callable[[], object]] = []

    def callLater(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        """For the next turn."""
        self._next.append(lambda: call(*args))

    def callFromThread(self, call: Callable[..., object], *args: Any) -> None:
        """Here and now."""
        call(*args)

    def callInThreadWithCallback(self, told: None, call: Any) -> None:
        """Here and now, too; what it raises is raised."""
        call()

    def turn(self) -> None:
        """The next turn."""
        calls, self._next = self._next, []
        for call in calls:
            call()


class Calls:
    """The session of everybody at the door of a store."""

    def __init__(self, store: Store) -> None:
        self._turns: Any = Turns()
        pool = FairPool(self._turns, self._turns)
        health, metrics = Health(), Metrics(CollectorRegistry())
        backend = LocalBackend(self._turns, pool, store, Recovery(store.metadata, health))
        server = ServerCommands(self._turns, pool, None, metrics.config_update)  # type: ignore[arg-type]
        door = Door(self._turns, backend, server, metrics, Limits(), health)
        self._session = Gate(door, Admission(10_000)).admit(Visitor(""))
        self._get_now = self._session.get_now
        self._begun = 0
        self._done: Any = None

    def get(self, key: bytes) -> Found | None:
        """From memory, which must have it."""
        known, found = self._get_now(key)
        if not known:
            raise RuntimeError(f"{key!r} is not in memory")
        return found

    def set(self, key: bytes, value: bytes) -> None:
        """With the others of its turn."""
        self._session.submit(Set(key, value), self._settled)
        self._begun += 1
        if self._begun == TURN:
            self._begun = 0
            self._turns.turn()

    def mset(self, pairs: Mapping[bytes, bytes]) -> None:
        """In a turn of its own."""
        self._run(MSet(pairs))

    def mget(self, keys: Sequence[bytes], budget: int) -> dict[bytes, bytes]:
        """The same."""
        found: dict[bytes, bytes] = self._run(MGet(keys, budget=budget))
        return found

    def scan(self, limit: int, budget: int) -> Page:
        """The first page of all."""
        page: Page = self._run(Scan(b"", limit=limit, budget=budget))
        return page

    def finish(self) -> None:
        """Write what waits for its turn."""
        self._begun = 0
        self._turns.turn()

    def _run(self, command: Command) -> Any:
        self._session.submit(command, self._settled)
        self._turns.turn()
        return command.result

    def _settled(self, command: Command) -> None:
        if command.error is not None:
            raise command.error
