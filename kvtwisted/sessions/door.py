"""The door: every command of every transport passes here, once, on its way to the backend.

A session lets a command in (`sessions.session`); the door looks at the command itself, hands it over with the others of
the same turn of the reactor, and counts and times it when it is done. Reactor thread.

Note [Sets go together]: what has to be done for a Set, from its admission to its answer, takes longer than to write it.
Most of it is the same for all Sets of a session. So where a session asks for nothing but rights and room, its Sets of a
turn become one command (`commands.sets`) before they enter their admission: when the turn ends, or before something
else comes in, so that the order stays. If they cannot all be let in they are submitted one by one, and each is told
what is wrong with it. No more than GATHERED_SETS, and those of one more chunk, gather.

Note [Counting hot Gets]: telling the recorder takes longer than a Get from the cache does. So such Gets are counted
by a plain integer, and every HOT_SAMPLE-th (a power of 2) is timed and stands for that many in the latency histogram.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any, Callable, Protocol, TypeVar

from twisted.internet.interfaces import IReactorTime

from ..backends.backend import Backend, CanMeasure
from ..backends.server import ServerCommands
from ..commands.command import GET, SET, Command, ServerCommand
from ..commands.deciding import DecidingCommand, Outcome
from ..commands.decisions import Decisions
from ..commands.gathered import Gathered
from ..commands.get import Found
from ..commands.set import Set
from ..commands.sets import Sets
from ..core.counting import Counter
from ..core.errors import DeadlineExceeded, Unsupported
from ..core.health import Health
from ..core.limits import Limits
from .admission import Admission
from .streams import OpenStreams, StreamLimits

HOT_SAMPLE = 64
_NOT_SAMPLED = HOT_SAMPLE - 1
#: Durations that gather before they are counted, all at once: a tenth of the cost of one by one.
FOLD = 1024

#: Bytes of key and value that are digested on the reactor thread at most: it takes a fiftieth of a millisecond.
DIGESTED_NOW = 16_384

#: Sets that gather before others become another command.
GATHERED_SETS = 1024

#: A kind of what gathers.
Kind = TypeVar("Kind", bound=Gathered)

#: Called with a command when it is done; must not raise.
Done = Callable[[Command], object]


class Recorder(Protocol):
    """What the door reports to metrics. Called from any thread; must not block or raise."""

    def operation(self, name: str, keys: int, seconds: float, failed: bool, calls: int = 1) -> None:
        """`name` (one of OPERATIONS) ran on `keys` keys for `seconds`; it stands for `calls` calls.

        With 0 calls its time is not counted.
        """

    def durations(self, name: str) -> list[float]:
        """Where to append the seconds of each call of `name` on one key that succeeded: cheaper than `operation`.

        Call `fold` whenever FOLD of them have gathered.
        """

    def fold(self) -> None:
        """Count what has been appended to `durations`."""

    def config_update(self) -> None:
        """A configuration change was accepted."""

    def health_check(self, seconds: float) -> None:
        """A health check ran for `seconds`."""


class Door:
    """Reactor thread, but `health`."""

    def __init__(
        self,
        reactor: IReactorTime,
        backend: Backend,
        server: ServerCommands,
        recorder: Recorder,
        limits: Limits,
        health: Health,
        streams: StreamLimits | None = None,
    ) -> None:
        """Keys and values go to `backend`, the rest to `server`; `health` has the server's own conditions."""
        self._reactor = reactor
        self._backend = backend
        self._server = server
        self._recorder = recorder
        self._health = health
        #: What a command may ask for. May be replaced at any time.
        self.limits = limits
        #: What tells how much is stored, if anything does.
        self.measures = backend if isinstance(backend, CanMeasure) else None
        #: Those that are open.
        self.streams = OpenStreams(streams)
        #: Calls a function after so many seconds.
        self.later = reactor.callLater
        #: The empty one is for the ten operations.
        self._capabilities = backend.capabilities | {""}
        self._hot = backend.hot
        self._get_now = backend.get_now
        self._gathered: list[Command] = []
        #: Sets that came after those, and have not entered their admission: before anything else comes in, `enter` it.
        self.gathering: Gathered | None = None
        self._enter: Callable[[Any], None]
        self._has_told = False
        # Whether the reactor will hand them over.
        self._is_called = False
        self._after: list[Callable[[], None]] = []
        #: Counts commands that were given up since their time had run out.
        self.overdue = Counter()
        #: Counts commands that wrote nothing since a condition did not hold.
        self.failed_conditions = Counter()
        self._count_failed_condition = self.failed_conditions.advance
        #: Counts Gets answered by an entry in memory; they are not reported to the recorder one by one.
        self.hot_gets = Counter()
        self._count_hot = self.hot_gets.advance
        self._set_durations, self._get_durations = recorder.durations(SET), recorder.durations(GET)
        backend.start(self._settled)

    @property
    def waiting(self) -> int:
        """Commands that nothing has taken up yet."""
        gathering = self.gathering
        return len(self._gathered) + (0 if gathering is None else len(gathering.keys)) + self._backend.waiting

    def on_settled(self, told: Callable[[], None]) -> None:
        """Call `told` whenever commands have been settled and those who waited for them were told."""
        self._after.append(told)

    def get_now(self, key: bytes) -> tuple[bool, Found | None]:
        """(True, the value at `key`) if memory has the answer; else (False, None), and a Get is to be submitted.

        Raises KvErrors.
        """
        entry = self._hot(key)
        if entry is not None:
            answer = entry.answer
            if answer is not None:
                entry.used = True
                if not self._count_hot() & _NOT_SAMPLED:
                    self._time_hot_get(key)
                return True, answer
        started = monotonic()
        try:
            known, found = self._get_now(key)
        except BaseException as error:
            self._failed(GET, 1, started, error)
            raise
        if known:
            durations = self._get_durations
            durations.append(monotonic() - started)
            if len(durations) >= FOLD:
                self._recorder.fold()
        return known, found

    def is_large(self, key: bytes) -> bool:
        """Whether memory has a value at `key` that takes long to digest."""
        return self.measures is not None and (self.measures.size_now(key) or 0) > DIGESTED_NOW

    def submit(self, command: Command, admission: Admission, done: Done) -> None:
        """Hand a command to the backend that has entered `admission`; it leaves that, and `done` is called, once done.

        Raises what is wrong with the command; then `done` is not called, and nothing has left. It cannot be cancelled:
        a caller that no longer waits ignores `done`.
        """
        command.started = started = monotonic()
        metric = command.metric
        try:
            if started > command.deadline:
                raise DeadlineExceeded("the request's time ran out before it was started")
            command.check(self.limits)
            if command.capability not in self._capabilities:
                raise Unsupported(f"the storage backend cannot do this: it has no {command.capability!r}")
        except BaseException as error:
            if metric:
                self._failed(metric, command.count, started, error)
            raise
        command.admission = admission
        command.done = done
        if not metric and isinstance(command, ServerCommand):
            self._server.submit(command, self._settled)
            return
        if not self._is_called:
            self._call()
        self._gathered.append(command)

    def begin_sets(self, admission: Admission, seconds: float, enter: Callable[[Sets], None]) -> Sets:
        """A command for Sets that come now, and have so many seconds. `enter` is told when no more of them come.

        Never raises: see Note [Sets go together].
        """
        return self._begin(Sets, admission, seconds, enter)

    def begin_decisions(
        self, admission: Admission, seconds: float, enter: Callable[[Decisions], None]
    ) -> Decisions | None:
        """The same for commands that decide; None where the backend does not know those."""
        if Decisions.capability not in self._capabilities:
            return None
        return self._begin(Decisions, admission, seconds, enter)

    def _begin(self, kind: type[Kind], admission: Admission, seconds: float, enter: Callable[[Kind], None]) -> Kind:
        self.enter()
        started = monotonic()
        gathering = self.gathering = kind(admission, started, started + seconds)
        self._enter = enter
        if not self._is_called:
            self._call()
        return gathering

    def enter(self) -> None:
        """No more Sets come to those that gather: they are let in, or not."""
        # Whoever is told there that there is no room may begin with others.
        while (sets := self.gathering) is not None:
            self.gathering = None
            self._enter(sets)

    def submit_sets(self, sets: Gathered) -> None:
        """`submit` for what has gathered, if all is good, and has entered its admission."""
        self._gathered.append(sets)

    def refused(self) -> None:
        """Some of those who wait for Sets that gathered were told already: see to `on_settled` at the turn's end."""
        self._has_told = True

    def _call(self) -> None:
        self._is_called = True
        self._reactor.callLater(0, self._hand_over)

    def health(self) -> str | None:
        """Why the server cannot serve, or None: the known conditions, then what the backend says.

        Blocks, on the thread of health checks.
        """
        started = monotonic()
        reason = self._health.reason() or self._backend.health()
        self._recorder.health_check(monotonic() - started)
        return reason

    def _hand_over(self) -> None:
        self._is_called = False
        self.enter()
        commands, self._gathered = self._gathered, []
        if commands:
            self._backend.submit(commands)
        if self._has_told:
            self._has_told = False
            self.tell_settled()

    def _settled(self, commands: Sequence[Command]) -> None:
        now = monotonic()
        sets = self._set_durations
        # Those in a row that have one admission leave it together.
        admission, requests, size = None, 0, 0
        for command in commands:
            if command.admission is not admission:
                if admission is not None:
                    admission.leave(requests, size)
                admission, requests, size = command.admission, 0, 0
            if type(command) is Sets:
                requests += command.count
                size += command.size
                self._count_sets(command, now)
                continue
            if type(command) is Decisions:
                requests += command.count
                size += command.size
                self._count_decisions(command, now)
                continue
            requests += 1
            if command.takes_room:
                size += command.size
            if command.error is not None:
                if command.metric:
                    self._failed(
                        command.metric, command.count, command.started, command.error, is_timed=command.is_timed
                    )
            elif type(command) is Set:
                sets.append(now - command.started)
            elif command.metric:
                if isinstance(command, DecidingCommand) and command.condition_failed:
                    self._count_failed_condition()
                self._recorder.operation(
                    command.metric, command.count, now - command.started, False, int(command.is_timed)
                )
        if len(sets) >= FOLD:
            self._recorder.fold()
        if admission is not None:
            admission.leave(requests, size)
        for command in commands:
            command.done(command)
        self.tell_settled()

    def _count_sets(self, sets: Sets, now: float) -> None:
        if sets.error is None:
            self._set_durations.extend([now - sets.started] * sets.count)
        else:
            for _ in range(sets.count):
                self._failed(SET, 1, sets.started, sets.error)

    def _count_decisions(self, decisions: Decisions, now: float) -> None:
        seconds = now - decisions.started
        if decisions.error is not None:
            for _ in range(decisions.count):
                self._failed(SET, 1, decisions.started, decisions.error)
            return
        if decisions.is_done:
            self._set_durations.extend([seconds] * decisions.count)
            return
        done = 0
        for result in decisions.results:
            if type(result) is not Outcome:
                self._failed(SET, 1, decisions.started, result)
                continue
            done += 1
            if result[1]:
                self._count_failed_condition()
        self._set_durations.extend([seconds] * done)

    def tell_settled(self) -> None:
        """A command came to its end elsewhere, and who waited for it was told: see `on_settled`."""
        for told in self._after:
            told()

    def _time_hot_get(self, key: bytes) -> None:
        started = monotonic()
        self._hot(key)
        self._recorder.operation(GET, 0, monotonic() - started, False, HOT_SAMPLE)

    def _failed(self, metric: str, keys: int, started: float, error: BaseException, *, is_timed: bool = True) -> None:
        self._recorder.operation(metric, keys, monotonic() - started, True, int(is_timed))
        if isinstance(error, DeadlineExceeded):
            self.overdue.advance()
