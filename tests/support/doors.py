"""A door over a store in memory, sessions at it, and what carries their commands out at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kvtwisted.backends.local.recovery import Recovery
from kvtwisted.backends.server import ServerCommands
from kvtwisted.commands.command import Command
from kvtwisted.commands.configuration import GetConfig, UpdateConfig
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.get import Found, Get
from kvtwisted.commands.mdelete import MDelete
from kvtwisted.commands.mget import MGet
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.scan import Page, Scan
from kvtwisted.commands.set import Set
from kvtwisted.core.health import Health
from kvtwisted.core.limits import Limits
from kvtwisted.reactor.fair_pool import FairPool
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.grants import OPERATIONS, Grant, Principal
from kvtwisted.sessions.session import Session

from .administration import FakeTasks
from .backends import make_backend
from .configuration import FakeConfiguration
from .pools import ImmediateReactor, ManualPool
from .recorders import CountingRecorder, Recorded


class Outcome:
    """What became of a command that was submitted."""

    def __init__(self) -> None:
        self.done: Command | None = None

    def __call__(self, command: Command) -> None:
        """It is done."""
        assert self.done is None, "a command was settled twice"
        self.done = command

    def result(self) -> Any:
        """Its result; raises its error."""
        assert self.done is not None, "the command is not done"
        if self.done.error is not None:
            raise self.done.error
        return self.done.result


class Doorway:
    """A door, and all that it leads to. Turns of the reactor and jobs of the pool come when a test says."""

    def __init__(
        self,
        storage: Any = None,
        *,
        slow: bool = False,
        configuration: FakeConfiguration | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`slow` makes the engine one that may always block."""
        self.reactor, self.pool = ImmediateReactor(), ManualPool()
        self.recorder, self.health = CountingRecorder(), Health()
        self.configuration = configuration or FakeConfiguration({"a": 1})
        reactor: Any = self.reactor
        manual: Any = self.pool
        pool = FairPool(reactor, manual)
        self.storage, self.backend = make_backend(reactor, manual, self.health, storage)
        self.storage.engine.slow = slow
        server = ServerCommands(
            reactor, pool, self.configuration, self.recorder.config_update, tasks=FakeTasks().tasks, task_pool=manual
        )
        self.door = Door(reactor, self.backend, server, self.recorder, limits or Limits(), self.health)
        self.admission = Admission(1000)
        self.session = self.make_session(Grant(frozenset(OPERATIONS)))

    @property
    def recovery(self) -> Recovery:
        """What gets over writes that failed."""
        return Recovery(self.storage.store.metadata, self.health)

    @property
    def recorded(self) -> list[Recorded]:
        """What was counted."""
        return self.recorder.operations

    def make_session(self, *grants: Grant, **options: Any) -> Session:
        """Of a principal with these grants."""
        principal = options.pop("principal", None) or Principal("p", grants)
        refused = options.pop("refused", lambda who, address, what, error: None)
        return Session(self.door, principal, self.admission, refused, **options)

    def submit(self, command: Command, session: Session | None = None) -> Outcome:
        """Submit it; raises what refuses it."""
        outcome = Outcome()
        (session or self.session).submit(command, outcome)
        return outcome

    def run(self) -> None:
        """Let everything come to its end."""
        self.reactor.turn()
        while self.pool.waiting or self.reactor.waiting:
            self.pool.run_all()
            self.reactor.turn()

    def asking(self, session: Session | None = None) -> Asking:
        """Calls that give what becomes of them."""
        return Asking(self, session or self.session)

    def blocking(self, session: Session | None = None) -> Blocking:
        """Calls that wait."""
        return Blocking(self, session or self.session)


class Blocking:
    """The commands of one session as calls that give the result, or raise the error."""

    def __init__(self, doorway: Doorway, session: Session) -> None:
        self.session = session
        self._doorway = doorway
        self.get_now = session.get_now

    def run(self, command: Command) -> Any:
        """Any command."""
        outcome = self._doorway.submit(command, self.session)
        self._doorway.run()
        return outcome.result()

    def set(self, key: bytes, value: bytes, ttl: int = 0, *, deadline: float = math.inf) -> None:
        """See `Set`."""
        self.run(Set(key, value, ttl, deadline))

    def get(self, key: bytes, *, deadline: float = math.inf) -> Found | None:
        """See `Get`."""
        found: Found | None = self.run(Get(key, deadline))
        return found

    def delete(self, key: bytes, *, deadline: float = math.inf) -> None:
        """See `Delete`."""
        self.run(Delete(key, deadline))

    def scan(self, prefix: bytes, **options: Any) -> Page:
        """See `Scan`."""
        page: Page = self.run(Scan(prefix, **options))
        return page

    def mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = math.inf) -> None:
        """See `MSet`."""
        self.run(MSet(pairs, ttl, deadline))

    def mget(self, keys: Sequence[bytes], *, budget: int, deadline: float = math.inf) -> dict[bytes, bytes]:
        """See `MGet`."""
        found: dict[bytes, bytes] = self.run(MGet(keys, budget=budget, deadline=deadline))
        return found

    def mdelete(self, keys: Sequence[bytes], *, deadline: float = math.inf) -> None:
        """See `MDelete`."""
        self.run(MDelete(keys, deadline))

    def get_config(self) -> str:
        """See `GetConfig`."""
        text: str = self.run(GetConfig())
        return text

    def update_config(self, change: Mapping[str, object] | str) -> list[str]:
        """See `UpdateConfig`."""
        restart_required: list[str] = self.run(UpdateConfig(change))
        return restart_required


class Asking:
    """The commands of one session as calls that give their `Outcome`."""

    def __init__(self, doorway: Doorway, session: Session) -> None:
        self.session = session
        self._doorway = doorway

    def submit(self, command: Command) -> Outcome:
        """Any command; what refuses it is its outcome."""
        outcome = Outcome()
        try:
            self.session.submit(command, outcome)
        except Exception as error:
            command.error = error
            outcome(command)
        return outcome

    def get(self, key: bytes, *, deadline: float = math.inf) -> Outcome:
        """As codecs do: what memory has is there at once."""
        command = Get(key, deadline)
        try:
            self.session.check_room()
            known, command.result = self.session.get_now(key)
        except Exception as error:
            known, command.error = True, error
        if not known:
            return self.submit(command)
        outcome = Outcome()
        outcome(command)
        return outcome

    def set(self, key: bytes, value: bytes, ttl: int = 0, *, deadline: float = math.inf) -> Outcome:
        """See `Set`."""
        return self.submit(Set(key, value, ttl, deadline))

    def delete(self, key: bytes, *, deadline: float = math.inf) -> Outcome:
        """See `Delete`."""
        return self.submit(Delete(key, deadline))

    def scan(self, prefix: bytes, **options: Any) -> Outcome:
        """See `Scan`."""
        return self.submit(Scan(prefix, **options))

    def mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = math.inf) -> Outcome:
        """See `MSet`."""
        return self.submit(MSet(pairs, ttl, deadline))

    def mget(self, keys: Sequence[bytes], *, budget: int, deadline: float = math.inf) -> Outcome:
        """See `MGet`."""
        return self.submit(MGet(keys, budget=budget, deadline=deadline))

    def mdelete(self, keys: Sequence[bytes], *, deadline: float = math.inf) -> Outcome:
        """See `MDelete`."""
        return self.submit(MDelete(keys, deadline))

    def get_config(self) -> Outcome:
        """See `GetConfig`."""
        return self.submit(GetConfig())

    def update_config(self, change: Mapping[str, object] | str) -> Outcome:
        """See `UpdateConfig`."""
        return self.submit(UpdateConfig(change))
