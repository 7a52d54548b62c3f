"""The streams of the late backend: parts come in later turns, one for each that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from kvtwisted.commands.command import Command
from kvtwisted.commands.scan import Page
from kvtwisted.commands.scan_stream import ScanStream
from kvtwisted.commands.streams import StreamCommand
from kvtwisted.commands.watch import Changes, Event, EventType, Watch

#: What one part has.
PART_PAIRS = 10

#: Key, value and expiry of all that a ScanStream shows, in order.
Triples = Sequence[tuple[bytes, bytes, int]]


class LateFlow:
    """The flow of one stream: a part is told in a later turn than it was asked for in."""

    def __init__(self, command: StreamCommand, later: Callable[..., object], settled: Callable[..., object]) -> None:
        self._command = command
        self._later = later
        self._settled = settled
        self._is_over = False
        self.is_wanted = False

    def more(self) -> None:
        """See `Flow.more`."""
        assert not self.is_wanted
        self.is_wanted = True
        self._later(0, self.go_on)

    def cancel(self) -> None:
        """See `Flow.cancel`."""
        self._later(0, self.end)

    def end(self, error: BaseException | None = None) -> None:
        """It is over."""
        if not self._is_over:
            self._is_over = True
            self.left()
            self._command.error = error
            self._settled([self._command])

    def tell(self, part: Any, entries: int, size: int) -> None:
        """Tell a part that is wanted."""
        command = self._command
        self.is_wanted = False
        command.entries += entries
        command.answered += size
        command.part(part if command.encode is None else command.encode(part))

    def go_on(self) -> None:
        """Tell a part, if one is wanted and there."""
        if self.is_wanted and not self._is_over:
            self.advance()

    def advance(self) -> None:
        """Tell one, or end."""
        raise NotImplementedError

    def left(self) -> None:
        """It has ended."""


class LateScan(LateFlow):
    """Of a ScanStream."""

    def __init__(self, command: ScanStream, triples: Triples, revision: int, *rest: Any) -> None:
        super().__init__(command, *rest)
        self._revision = revision
        within = [
            triple
            for triple in triples
            if triple[0] >= command.range.start and (command.range.end is None or triple[0] < command.range.end)
        ]
        if command.reverse:
            within.reverse()
        after = [one for one in within if not command.cursor or (one[0] < command.cursor) is command.reverse]
        self._left = [one for one in after if one[0] != command.cursor][: command.limit or None]

    def advance(self) -> None:
        """One more page."""
        part, self._left = self._left[:PART_PAIRS], self._left[PART_PAIRS:]
        if not part:
            self.end()
            return
        keys, values, expiries = [list(column) for column in zip(*part)]
        page = Page(keys, values, b"", expiries, revision=self._revision)
        command = self._command
        assert isinstance(command, ScanStream)
        command.told, command.last = command.told + len(part), keys[-1]
        self.tell(page, len(part), sum(map(len, keys)) + sum(map(len, values)))


class LateLog:
    """All commits, and who watches them."""

    def __init__(self) -> None:
        #: That of the last commit.
        self.revision = 0
        self._commits: list[tuple[int, list[Event]]] = []
        self._watches: set[LateWatch] = set()

    def append(self, events: list[Event]) -> None:
        """A commit."""
        self.revision += 1
        self._commits.append((self.revision, events))
        for watch in tuple(self._watches):
            watch.wake()

    def watch(self, command: Watch, *rest: Any) -> LateWatch:
        """The flow of one more."""
        watch = LateWatch(command, self, *rest)
        self._watches.add(watch)
        return watch

    def forget(self, watch: LateWatch) -> None:
        """It has ended."""
        self._watches.discard(watch)

    def after(self, revision: int) -> list[tuple[int, list[Event]]]:
        """The commits after that one."""
        return [commit for commit in self._commits if commit[0] > revision]


class LateWatch(LateFlow):
    """Of a Watch."""

    def __init__(self, command: Watch, log: LateLog, *rest: Any) -> None:
        super().__init__(command, *rest)
        self._watch = command
        self._log = log
        self._reached = command.after_revision or log.revision
        self._has_begun = False

    def wake(self) -> None:
        """There is something new."""
        self._later(0, self.go_on)

    def advance(self) -> None:
        """What has come since; the first part says where that begins."""
        if self._reached > self._log.revision:
            self.is_wanted = False
            self.tell([Changes(self._log.revision, compacted=True)], 0, 0)
            self.end()
            return
        if not self._has_begun:
            self._has_begun = True
            self.tell([Changes(self._reached)], 0, 0)
            return
        start, end = self._watch.range
        part = []
        for revision, events in self._log.after(self._reached):
            watched = [event for event in events if event.key >= start and (end is None or event.key < end)]
            if not self._watch.with_values:
                watched = [event._replace(value=b"") for event in watched]
            self._reached = revision
            if watched:
                part.append(Changes(revision, watched))
        if part:
            events_in_all = [event for changes in part for event in changes.events]
            self.tell(part, len(events_in_all), sum(len(event.key) + len(event.value) for event in events_in_all))

    def left(self) -> None:
        """See `LateFlow.left`."""
        self._log.forget(self)


def event_of(key: bytes, value: bytes | None, expires_at_ms: int) -> Event:
    """What a change is to who watches."""
    if value is None:
        return Event(EventType.DELETE, key)
    return Event(EventType.SET, key, value=value, expires_at_ms=expires_at_ms)


def flow_of(command: Command, remote: Any, later: Callable[..., object], settled: Callable[..., object]) -> LateFlow:
    """The flow of a stream over `remote`."""
    if isinstance(command, Watch):
        flow: LateFlow = remote.log.watch(command, later, settled)
        return flow
    assert isinstance(command, ScanStream)
    return LateScan(command, remote.triples(), remote.log.revision, later, settled)
