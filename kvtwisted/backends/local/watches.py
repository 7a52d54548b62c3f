"""Watches: who is told what of the history, on the reactor thread, a bounded piece of work a turn.

Note [A watcher is a position]: nothing is queued for a watcher. It is a place in the history, which moves on as its
client takes what comes; one that the history has left behind is told so, and its stream ends. Watchers of the same keys
that are told in the same way are a group, and share what is made for them.

Note [Who is up to date]: most watchers have been told all that there was. They need not be looked at one by one: what
is new is gone through once, and for each event the groups are looked up that watch its key, by the key itself and by
each length that a watched prefix has. So what watchers cost that nothing happens to is next to nothing, however many
they are. A watcher that is not ready when its group has something falls behind, and is brought up to date from its own
place when it asks.

Note [Telling many rests]: each commit can mean a message for each of a thousand watchers, which takes a hundred times
as long as the commit did, and as long again to send. So a turn of telling that was not short is followed by a rest of
twice its length, in which commits gather; they are then told together, in one message for each watcher. So telling and
sending take some half of the reactor's time at most, whatever is watched, and the more there is to tell, the cheaper it
becomes. But nobody is left behind for a rest: there is none while half of the history has not been gone through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Any, Callable, NamedTuple

from ...commands.command import Command
from ...commands.watch import Changes, Watch
from ...core.errors import Unavailable
from .history import Happening, History, events_of
from .watch_groups import Gathering, Group, Groups, Part, Place, is_watched

#: Seconds of work in one turn of the reactor; and those of a turn that is followed by no rest.
TURN_SECONDS, SHORT_SECONDS = 0.003, 0.000_3
#: After others the next one comes after so many times as long: half of it is for what is then sent.
REST = 2
#: Seconds of a rest after which it is looked at again.
LONGEST_WAIT = 0.005
#: Events that are gone through, or given to a group, before somebody is told: as many to the end of a commit, and as
#: many anyway.
RUN_EVENTS, LONGEST_RUN = 512, 4096
#: Parts that are kept while watchers catch up, since others may want the same.
_KEPT_PARTS = 64
#: Seconds between two looks at who was told nothing, and looks after which such a one is told that there is nothing.
LOOK_SECONDS, QUIET_LOOKS = 5.0, 3


class Watcher:
    """The flow of one Watch."""

    __slots__ = (
        "_watches", "command", "group", "has_begun", "is_over", "is_queued", "is_wanted", "place", "quiet", "reached",
    )  # fmt: skip

    def __init__(self, watches: Watches, command: Watch, group: Group, place: Place | None, reached: int) -> None:
        self._watches = watches
        self.command = command
        self.group = group
        #: Where it is in the history; None: what it asked for is not there. Not kept up while it is up to date.
        self.place = place
        #: The revision up to which it was told all; likewise.
        self.reached = reached
        self.has_begun = self.is_wanted = self.is_over = False
        #: Whether it waits to be brought up to date.
        self.is_queued = False
        #: Looks since it was told something.
        self.quiet = 0

    def more(self) -> None:
        """See `Flow.more`."""
        self.is_wanted = True
        self._watches.wanted(self)

    def cancel(self) -> None:
        """See `Flow.cancel`."""
        self._watches.cancelled(self)


class _Told(NamedTuple):
    """A part on its way to these. Without one it is word that all is told up to `reached`."""

    part: Part
    watchers: deque[Watcher]


class Watches:
    """All Watches of a backend. Reactor thread, but for what `History.wake` is."""

    def __init__(self, reactor: Any, history: History) -> None:
        """It follows `history`."""
        self._reactor = reactor
        self._history = history
        #: Told of those that have ended.
        self.settled: Callable[[Sequence[Command]], None]
        #: Events that watchers were told of.
        self.told = 0
        self._open: dict[Watcher, None] = {}
        self._groups = Groups()
        # How far the history was gone through for those that are up to date.
        self._place: Place = 0, 0
        self._reached = 0
        # Those that are to be told, those that are behind and wait, and those that are ahead of `_place`.
        self._telling: deque[_Told] = deque()
        self._behind: deque[Watcher] = deque()
        self._ahead: list[Watcher] = []
        self._parts: dict[tuple[Group, Place], Part] = {}
        # Whether a turn is coming; whether the next one begins with those that are behind.
        self._is_due = False
        self._rest_until = 0.0
        self._behind_first = False
        self._looking: Any = None

    def begin(self, command: Watch) -> None:
        """It is given its flow."""
        history = self._history
        if not self._open:
            history.wake = self._wake
            end, self._reached = history.present
            self._place = end, 0
            self._looking = self._reactor.callLater(LOOK_SECONDS, self._look)
        end, last = history.present
        after = command.after_revision
        place: Place | None = None
        if not after:
            place, after = (end, 0), last
        elif after > last:
            after = last
        else:
            place = history.find(after)
        watcher = Watcher(self, command, self._groups.enter(command), place, after)
        self._open[watcher] = None
        command.flow = watcher

    def stop(self) -> None:
        """All end now."""
        for watcher in tuple(self._open):
            self._end(watcher, Unavailable("the server is stopping"))

    # For watchers.

    def wanted(self, watcher: Watcher) -> None:
        """It can be told something."""
        if watcher not in watcher.group.synced and not watcher.is_queued:
            watcher.is_queued = True
            self._behind.append(watcher)
            self._schedule()

    def cancelled(self, watcher: Watcher) -> None:
        """Nobody waits for it any more."""
        if not watcher.is_over:
            self._leave(watcher)
            self._reactor.callLater(0, self.settled, (watcher.command,))

    def _leave(self, watcher: Watcher) -> None:
        watcher.is_over = True
        watcher.group.synced.pop(watcher, None)
        del self._open[watcher]
        self._groups.leave(watcher.group)
        if not self._open:
            self._history.wake = None
            self._telling.clear()
            self._behind.clear()
            self._ahead.clear()
            self._parts.clear()
            self._looking.cancel()

    def _end(self, watcher: Watcher, error: BaseException | None = None) -> None:
        if not watcher.is_over:
            self._leave(watcher)
            watcher.command.error = error
            self.settled((watcher.command,))

    # Turns.

    def _wake(self) -> None:
        """See `History.wake`. Any thread: one call is enough for all that comes before it is made."""
        if not self._is_due:
            self._is_due = True
            self._reactor.callFromThread(self._run)

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._reactor.callLater(0, self._run)

    def _run(self) -> None:
        """One turn, unless the last one is followed by a rest still. See Note [Telling many rests]."""
        began = monotonic()
        if began < self._rest_until and not self._history.is_pressing(self._place[0]):
            self._reactor.callLater(min(self._rest_until - began, LONGEST_WAIT), self._run)
            return
        self._is_due = False
        until = began + TURN_SECONDS
        while self._open and self._work(until):
            now = monotonic()
            if now >= until:
                self._schedule()
                break
        else:
            now = monotonic()
        took = now - began
        if took > SHORT_SECONDS:
            self._rest_until = now + REST * took

    def _work(self, until: float) -> bool:
        """Do a piece of it; whether there may be more."""
        if self._telling:
            self._tell_all(until)
        elif self._behind and self._behind_first:
            self._behind_first = False
            self._catch_up(self._behind.popleft())
        elif self._place < (self._history.end, 0):
            self._behind_first = True
            self._go_through()
        elif self._behind:
            self._catch_up(self._behind.popleft())
        else:
            self._parts.clear()
            return False
        return True

    # For those that are up to date.

    def _go_through(self) -> None:
        """Find out what the next commits are, and to whom."""
        history = self._history
        number, before = self._place
        found: list[Group] = []
        seen = 0
        while seen < RUN_EVENTS and number < history.end:
            entry = history.entry(number)
            if entry is None:
                break
            for happening in events_of(entry, before):
                groups = self._groups.that_watch(happening)
                for group in groups:
                    self._give(group, happening, (number, before), found)
                seen += 1 + len(groups)
                before += 1
                if seen >= RUN_EVENTS and (happening.is_last or seen >= LONGEST_RUN):
                    self._reached = happening.revision
                    if not happening.is_last:
                        self._reached -= 1
                        for group in found:
                            group.gathering.cut(happening.revision)  # type: ignore[union-attr]  # see `_give`
                    break
            else:
                number, before = number + 1, 0
                self._reached = entry.last
        was_left_behind = not seen and (number, before) == self._place
        self._place = number, before
        for group in found:
            self._tell_group(group)
        if was_left_behind:
            self._start_anew()
        if self._ahead and self._place >= (history.end, 0):
            for watcher in self._ahead:
                self._queue_behind(watcher)
            self._ahead.clear()

    def _give(self, group: Group, happening: Happening, place: Place, found: list[Group]) -> None:
        gathering = group.gathering
        if gathering is None:
            if not group.synced:
                return
            gathering = group.gathering = Gathering(group)
            group.start, group.start_reached = place, happening.revision - 1
            found.append(group)
        gathering.add(happening, place)

    def _tell_group(self, group: Group) -> None:
        """Tell those who are ready; the others are behind from here on."""
        gathering, group.gathering = group.gathering, None
        assert gathering is not None  # noqa: S101 - see `_give`
        ready: deque[Watcher] = deque()
        for watcher in group.synced:
            if watcher.is_wanted:
                ready.append(watcher)
            else:
                watcher.place, watcher.reached = group.start, group.start_reached
        if not ready:
            group.synced = {}
            return
        part = group.made(gathering, self._place, self._reached, is_end=True)
        if len(ready) < len(group.synced) or not part.is_end:
            group.synced = dict.fromkeys(ready) if part.is_end else {}
        if part.entries:
            self._telling.append(_Told(part, ready))
            return
        for watcher in ready:
            watcher.place, watcher.reached = part.place, part.reached
            self._queue_behind(watcher)

    def _start_anew(self) -> None:
        """The history has left behind those that were up to date: each finds out when it is its turn."""
        place = self._place
        for group in self._groups.all:
            for watcher in group.synced:
                watcher.place, watcher.reached = place, self._reached
                if watcher.is_wanted:
                    self._queue_behind(watcher)
            group.synced = {}
        self._reached = self._history.begin
        found = self._history.find(self._reached)
        while found is None:  # more was dropped meanwhile
            self._reached = self._history.begin
            found = self._history.find(self._reached)
        self._place = found

    # For those that are not.

    def _queue_behind(self, watcher: Watcher) -> None:
        if not watcher.is_queued and not watcher.is_over:
            watcher.is_queued = True
            self._behind.append(watcher)

    def _catch_up(self, watcher: Watcher) -> None:
        """Tell one that is behind what comes next for it."""
        watcher.is_queued = False
        if watcher.is_over or not watcher.is_wanted:
            return
        place = watcher.place
        if place is None:
            self._compact(watcher)
        elif not watcher.has_begun:
            watcher.has_begun = True
            self._tell(watcher, self._word(watcher, watcher.reached))
        elif place == self._place:
            watcher.group.synced[watcher] = None
        elif place >= (self._history.end, 0):
            self._ahead.append(watcher)
        else:
            part = self._part_after(watcher.group, place)
            if part is None:
                self._compact(watcher)
                return
            watcher.place, watcher.reached = part.place, part.reached
            if part.entries:
                self._tell(watcher, part)
            else:
                self._queue_behind(watcher)

    def _part_after(self, group: Group, place: Place) -> Part | None:
        """What comes for a group after a place, if it is there; without entries nothing does up to a later place."""
        known = self._parts.get((group, place))
        if known is not None and (not known.is_end or known.place >= (self._history.end, 0)):
            return known
        history, range_ = self._history, group.range
        number, before = place
        gathering = Gathering(group)
        seen, reached = 0, 0
        while number < history.end:
            entry = history.entry(number)
            if entry is None:
                if not seen:
                    return None
                break
            for happening in events_of(entry, before):
                if is_watched(happening, range_):
                    gathering.add(happening, (number, before))
                    if gathering.is_full:
                        break
                before += 1
                seen += 1
                if happening.is_last:
                    reached = happening.revision
                    if seen >= RUN_EVENTS:
                        break
            else:
                number, before, reached = number + 1, 0, entry.last
                continue
            break
        part = group.made(gathering, (number, before), reached, is_end=number >= history.end)
        if len(self._parts) >= _KEPT_PARTS:
            del self._parts[next(iter(self._parts))]
        self._parts[(group, place)] = part
        return part

    def _compact(self, watcher: Watcher) -> None:
        """What it would be told next is no longer there."""
        self._tell(watcher, self._word(watcher, watcher.reached, compacted=True))
        self._end(watcher)

    def _word(self, watcher: Watcher, reached: int, *, compacted: bool = False) -> Part:
        """A part without events."""
        return watcher.group.word(Changes(reached, compacted=compacted))

    # Telling.

    def _tell_all(self, until: float) -> None:
        """Tell those who are ready, as far as there is time."""
        part, watchers = self._telling[0]
        while watchers:
            watcher = watchers.popleft()
            if not watcher.is_over and watcher.is_wanted:
                watcher.place, watcher.reached = part.place, part.reached
                self._tell(watcher, part)
            if not len(watchers) & 15 and monotonic() >= until:
                break
        # Telling the last one may have cleared all.
        if not watchers and self._telling and self._telling[0].watchers is watchers:
            self._telling.popleft()

    def _tell(self, watcher: Watcher, part: Part) -> None:
        if part.error is not None:
            self._end(watcher, part.error)
            return
        command = watcher.command
        watcher.is_wanted, watcher.quiet = False, 0
        command.entries += part.entries
        command.answered += part.size
        self.told += part.entries
        command.part(part.encoded)

    def _look(self) -> None:
        """Tell those that were told nothing for a while that there was nothing."""
        self._looking = self._reactor.callLater(LOOK_SECONDS, self._look)
        if self._telling:
            return  # what is told on the way may not be all that there is for somebody
        for group in self._groups.all:
            ready: deque[Watcher] = deque()
            for watcher in group.synced:
                watcher.quiet += 1
                if watcher.quiet >= QUIET_LOOKS and watcher.is_wanted:
                    ready.append(watcher)
            if ready:
                self._telling.append(_Told(self._word(ready[0], self._reached)._replace(place=self._place), ready))
        if self._telling:
            self._schedule()
