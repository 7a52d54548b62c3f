"""A second backend: all answers come later, in another order than they were asked for, and fail where a test says so.

It is written against the port and the commands alone, as one that is reached over a network would be: the keys are at
the other end (`Remote`), requests overtake each other on their way there, and answers on their way back. Everything is
on the reactor thread; the order comes from a seed, the same each time.
"""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple

from kvtwisted.backends.backend import Hot, Settled
from kvtwisted.commands import mget, scan
from kvtwisted.commands.command import ENTRY_OVERHEAD, Command, WriteCommand
from kvtwisted.commands.deciding import DecidingCommand, Outcome, Present
from kvtwisted.commands.decisions import Decisions
from kvtwisted.commands.delete_range import DeleteRange, Removed
from kvtwisted.commands.get import Found, Get
from kvtwisted.commands.mget import MGet
from kvtwisted.commands.scan import RANGES, Page, Scan
from kvtwisted.commands.scan_stream import ScanStream
from kvtwisted.commands.set import Set
from kvtwisted.commands.streams import StreamCommand
from kvtwisted.commands.watch import Event, EventType, Watch
from kvtwisted.core.errors import DeadlineExceeded, KvError, Unavailable
from kvtwisted.reactor.pool import caught

from .clocks import ManualClock
from .late_streams import LateLog, event_of, flow_of

#: Seconds until something moves on its way; 0 is the next turn of the reactor.
DELAYS = (*[0.0] * 6, 0.001, 0.003)


class Call(NamedTuple):
    """One command that came to be carried out: what it is to the engine (see `Faults`), and its keys."""

    method: str
    arguments: tuple[Any, ...]


class Remote:
    """The keys, in byte order, and what a test does to them: what `support.storage.Storage` is to the local backend."""

    def __init__(self) -> None:
        self.time = ManualClock()
        self._order: list[bytes] = []
        self._entries: dict[bytes, tuple[bytes, int]] = {}
        self.engine = Faults()
        self.store = self
        self.log = LateLog()

    # For tests: at once, without the backend.

    def set(self, key: bytes, value: bytes, ttl: int = 0) -> None:
        """Store a value."""
        self._write(Set(key, value, ttl))

    def delete(self, key: bytes) -> None:
        """Remove a key."""
        self._change(key, None, 0)
        self.log.append([event_of(key, None, 0)])

    def value(self, key: bytes) -> bytes | None:
        """What a reader gets at `key`."""
        found = self._get(key)
        return None if found is None else found.value

    def data(self) -> dict[bytes, bytes]:
        """All that is stored, in order."""
        return {key: self._entries[key][0] for key in self._order}

    def triples(self) -> list[tuple[bytes, bytes, int]]:
        """All that has not expired, in order: key, value and expiry."""
        return [(key, *self._entries[key]) for key in self._order if self._get(key) is not None]

    # The commands.

    def carry_out(self, command: Command) -> Any:
        """The result of a command. Raises what it fails with."""
        if isinstance(command, DecidingCommand):
            return self._decide(command)
        if isinstance(command, WriteCommand):
            return self._write(command)
        if isinstance(command, DeleteRange):
            return self._delete_range(command)
        if isinstance(command, Get):
            return self._get(command.key)
        if isinstance(command, MGet):
            return self._mget(command)
        assert isinstance(command, Scan)
        return self._scan(command)

    def _write(self, command: WriteCommand) -> None:
        expires_at_ms = self.time.wall_ms + 1000 * command.ttl if command.ttl else 0
        changes = command.changes(expires_at_ms)
        for change in changes:
            self._change(*change)
        self.log.append([event_of(*change) for change in changes])

    def _decide(self, command: DecidingCommand) -> Outcome:
        changes, outcome = command.decide(self._look, self.time.wall_ms)
        for change in changes:
            self._change(*change)
        command.condition_failed = bool(outcome.failed_check)
        if not changes:
            return outcome
        self.log.append([event_of(*change) for change in changes])
        return outcome._replace(revision=self.log.revision)

    def _delete_range(self, command: DeleteRange) -> Removed:
        range = command.range
        keys = list(filter(range.has, self._order))
        count = sum(self._get(key) is not None for key in keys)
        if command.dry_run or not count:
            return Removed(count, 0)
        for key in keys:
            self._change(key, None, 0)
        self.log.append([Event(EventType.DELETE_RANGE, range.start, range.end or b"")])
        return Removed(count, self.log.revision)

    def _look(self, key: bytes) -> Present | None:
        found = self._get(key)
        return None if found is None else Present(found.value, self._entries[key][1])

    def _change(self, key: bytes, value: bytes | None, expires_at_ms: int) -> None:
        if value is not None:
            if key not in self._entries:
                insort(self._order, key)
            self._entries[key] = value, expires_at_ms
        elif self._entries.pop(key, None) is not None:
            del self._order[bisect_left(self._order, key)]

    def _get(self, key: bytes) -> Found | None:
        value, expires_at_ms = self._entries.get(key, (b"", 1))
        if not expires_at_ms:
            return Found(value, 0)
        left = -((self.time.wall_ms - expires_at_ms) // 1000)
        return Found(value, left) if left > 0 else None

    def _mget(self, command: MGet) -> dict[bytes, bytes]:
        found, size = {}, 0
        for key in dict.fromkeys(command.keys):
            if (at_key := self._get(key)) is not None:
                found[key] = at_key.value
                size += len(key) + len(at_key.value) + ENTRY_OVERHEAD
        if size > command.budget:
            raise mget.too_large(command.budget)
        return found

    def _scan(self, command: Scan) -> Page:
        page = Page([], [], b"", [], 0, [], self.log.revision)
        assert isinstance(page.expiries, list)
        assert isinstance(page.prefixes, list)
        size = entries = 0
        last = b""
        for key, folder in self._range(command):
            entry = folder or key
            if folder and folder == last:
                continue
            value, expires_at_ms = self._entries[key]
            if not command.count_only:
                size += len(entry) + (0 if command.keys_only or folder else len(value)) + ENTRY_OVERHEAD
            if size > command.budget and not (command.limit or command.cursor):
                raise scan.too_large(command.budget)
            if entries and (size > command.budget or entries == command.limit):
                page = page._replace(next_cursor=last)
                break
            entries += 1
            last = entry
            if folder:
                page.prefixes.append(folder)
            else:
                page.keys.append(key)
                page.values.append(b"" if command.keys_only else value)
                page.expiries.append(expires_at_ms)
        if command.count_only:
            return Page([], [], page.next_cursor, counted=entries, revision=page.revision)
        return page._replace(
            expiries=page.expiries if command.with_expiries else (),
            prefixes=page.prefixes if command.delimiter else (),
        )

    def _range(self, command: Scan) -> Iterator[tuple[bytes, bytes]]:
        """The living keys that it asks for, in its order, each with its folder, if any."""
        low, high = command.range
        cursor, delimiter = command.cursor, command.delimiter
        for key in reversed(self._order) if command.reverse else self._order:
            if key < low or (high is not None and key >= high) or self._get(key) is None:
                continue
            place = key.find(delimiter, len(command.prefix)) if delimiter else -1
            folder = key[: place + len(delimiter)] if place >= 0 else b""
            if cursor and (key >= cursor if command.reverse else key <= cursor or folder == cursor):
                continue
            yield key, folder


class Faults:
    """Faults and interruptions on request, as `support.engines.FaultyEngine` has them for the local backend.

    They are named by what that would do for a command: get, multi_get, scan, write.
    """

    def __init__(self) -> None:
        self._faults: dict[str, tuple[Any, float]] = {}
        self._before: dict[str, Callable[[], object]] = {}
        self.calls: list[Call] = []
        #: It always is: see `LateBackend.get_now`.
        self.slow = True

    def fail(self, method: str, error: Any, times: float = float("inf")) -> None:
        """Let the next `times` commands of that kind fail with `error`, or what it makes each time."""
        self._faults[method] = error, times

    def heal(self, method: str) -> None:
        """Let it work again."""
        del self._faults[method]

    def before(self, method: str, act: Callable[[], object]) -> None:
        """Call `act`, once and in a thread, before the next command of that kind, which waits for it."""
        self._before[method] = act

    def called(self, method: str) -> list[tuple[Any, ...]]:
        """The keys of each command of that kind that was carried out or failed."""
        return [call.arguments for call in self.calls if call.method == method]

    def take(self, command: Command) -> Callable[[], object] | None:
        """What this command has to wait for, if anything."""
        return self._before.pop(_method(command), None)

    def check(self, method: str) -> None:
        """Raise what is to be raised."""
        error, left = self._faults.get(method, (None, 0))
        if error is not None and left > 0:
            self._faults[method] = error, left - 1
            try:
                raise error if isinstance(error, BaseException) else error()
            finally:
                del error

    def meet(self, command: Command) -> None:
        """Raise what this command is to fail with."""
        self.calls.append(Call(_method(command), tuple(command.keys)))
        self.check(_method(command))

    def read(self) -> None:
        """What a health check does: wait for what is before a Get, and fail as one."""
        if (act := self._before.pop("get", None)) is not None:
            act()
        self.check("get")


def _method(command: Command) -> str:
    if command.writes:
        return "write"
    return {"mget": "multi_get"}.get(command.name, command.name)


class LateBackend:
    """A `Backend` over `remote`. Reactor thread, but `health`."""

    #: No memory of what is hot, no files, no eviction, no backups.
    capabilities: frozenset[str] = frozenset(
        {DecidingCommand.capability, DeleteRange.capability, RANGES, Watch.capability, ScanStream.capability}
    )

    def __init__(self, reactor: Any, remote: Remote, call_later: Callable[..., object], *, seed: int = 0) -> None:
        """`call_later(seconds, function)` is what time passes by."""
        self._reactor = reactor
        self._remote = remote
        self._call_later = call_later
        self._random = random.Random(seed)
        #: The part of all commands that fail with Unavailable, be it before they are carried out or after.
        self.failing = 0.0
        self._asked: list[Command] = []
        self._answers: list[tuple[Command, Callable[[], Any]]] = []
        self._held: list[Command] = []
        # Writes that wait until one that is held has been made.
        self._behind: list[Command] = []
        self._moving = False
        #: Why it cannot serve, or None.
        self.reason: str | None = None

    def hot(self, key: bytes) -> Hot | None:
        """Nothing is."""
        return None

    def get_now(self, key: bytes) -> tuple[bool, Found | None]:
        """Nothing is known here."""
        return False, None

    def start(self, settled: Settled) -> None:
        """See `Backend.start`."""
        self._settled = settled

    def stop(self) -> None:
        """See `Backend.stop`: all is settled, here and now; what is held has no answer any more."""
        lost = self._held + self._behind
        self._held, self._behind = [], []
        for command in lost:
            command.error = Unavailable("the connection to the storage was closed")
        if lost:
            self._settled(lost)
        while self._asked or self._answers:
            self._move()

    @property
    def waiting(self) -> int:
        """See `Backend.waiting`."""
        return len(self._asked) + len(self._behind)

    def submit(self, commands: Sequence[Command]) -> None:
        """See `Backend.submit`."""
        for command in commands:
            if isinstance(command, StreamCommand):
                command.flow = flow_of(command, self._remote, self._call_later, self._settled)
            elif isinstance(command, Decisions):
                self._asked += command.singles()
            else:
                self._asked.append(command)
        self._go_on()

    def health(self) -> str | None:
        """See `Backend.health`."""
        try:
            self._remote.engine.read()
        except KvError as error:
            return str(error)
        return self.reason

    def _go_on(self) -> None:
        if not self._moving and (self._asked or self._answers):
            self._moving = True
            self._call_later(self._random.choice(DELAYS), self._moved)

    def _moved(self) -> None:
        self._moving = False
        self._move()
        self._go_on()

    def _move(self) -> None:
        """Some of what is on its way arrives, there and here."""
        for command in self._some(self._asked):
            act = self._remote.engine.take(command)
            if act is None and command.writes and any(held.writes for held in self._held):
                self._behind.append(command)
                continue
            if act is None:
                self._answers.append((command, self._carry_out(command)))
            else:
                self._hold(command, act)
        arrived = self._some(self._answers)
        for command, answer in arrived:
            try:
                if answer is not _nothing:
                    command.complete(answer())
            except Exception:
                command.error = caught().value
        while arrived:
            together = self._random.randint(1, len(arrived))
            self._settled([command for command, _ in arrived[:together]])
            del arrived[:together]

    def _some(self, underway: list[Any]) -> list[Any]:
        """Takes some out of those, at least one if there are any, in any order."""
        self._random.shuffle(underway)
        count = self._random.randint(1, len(underway)) if underway else 0
        some = underway[:count]
        del underway[:count]
        return some

    def _carry_out(self, command: Command) -> Callable[[], Any]:
        """At the other end; gives what gives the result, or raises the error, when the answer has come."""
        broken = self._random.random() < self.failing
        try:
            if broken and self._random.random() < 0.5:
                raise Unavailable("the storage cannot be reached")
            if time.monotonic() > command.deadline:
                raise DeadlineExceeded("the request's time ran out before it was started")
            if not (command.writes or command.awaited is None or command.awaited()):
                return _nothing
            self._remote.engine.meet(command)
            result = self._remote.carry_out(command)
            if broken:
                raise Unavailable("the storage did not answer")
        except Exception:
            return _raising(caught().value)
        return lambda: result

    def _hold(self, command: Command, act: Callable[[], object]) -> None:
        self._held.append(command)

        def wait() -> None:
            act()
            self._reactor.callFromThread(self._release, command)

        threading.Thread(target=wait, name="held command", daemon=True).start()

    def _release(self, command: Command) -> None:
        if command in self._held:
            self._held.remove(command)
            self._answers.append((command, self._carry_out(command)))
            self._asked += self._behind
            self._behind = []
            self._go_on()


def _nothing() -> None:
    """Nobody waits for this."""


def _raising(error: BaseException | None) -> Callable[[], Any]:
    def answer() -> Any:
        assert error is not None
        raise error

    return answer
