"""What watchers of the same keys are told: the events of a piece of the history, in parts that all of them share."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from ...commands.ranges import KeyRange, first_text
from ...commands.watch import Changes, Event, EventType, Watch
from ...reactor.pool import caught
from .history import Happening

if TYPE_CHECKING:
    from .watches import Watcher

#: What an event takes in an answer beside its key and value, in any transport's encoding.
EVENT_OVERHEAD = 64

#: A place in the history: the number of an entry, and how many of its events come before.
Place = tuple[int, int]


class Part(NamedTuple):
    """What a group is told next: encoded, or why it cannot be. Where it goes on, and up to which revision all is told.

    `is_end` says that there was nothing more.
    """

    encoded: Any
    error: BaseException | None
    entries: int
    size: int
    place: Place
    reached: int
    is_end: bool = False


class _Commit:
    """What a part has of a commit: where that begins, and what the part had before it."""

    __slots__ = ("entries", "events", "place", "revision", "size")

    def __init__(self, revision: int, place: Place, entries: int, size: int) -> None:
        self.revision = revision
        self.events: list[Event] = []
        self.place = place
        self.entries = entries
        self.size = size


class Gathering:
    """The events of one part."""

    __slots__ = ("_budget", "_commits", "_range", "_with_values", "entries", "is_full", "place", "reached", "size")

    def __init__(self, group: Group) -> None:
        self._range = group.range
        self._with_values = group.with_values
        self._budget = group.budget
        self._commits: list[_Commit] = []
        self.entries = self.size = 0
        #: Whether the next event of the group has no room in it; where that is, and what is told before it.
        self.is_full = False
        self.place: Place = 0, 0
        self.reached = 0

    def add(self, happening: Happening, place: Place) -> None:
        """One more event, of the keys that are watched."""
        if self.is_full:
            return
        revision, type, key, value, expires_at_ms, _ = happening
        end = b""
        if type is EventType.DELETE_RANGE:
            key, last = KeyRange(key, value).clipped(self._range)
            end, value = b"" if last is None or last == self._range.end else first_text(last) or b"", None
        told = value if self._with_values and value is not None else b""
        size = len(key) + len(end) + len(told)
        commits = self._commits
        if self.entries and self.size + size + EVENT_OVERHEAD * (self.entries + 1) > self._budget:
            self.is_full, self.place, self.reached = True, place, revision - 1
            return
        if not commits or commits[-1].revision != revision:
            commits.append(_Commit(revision, place, self.entries, self.size))
        commits[-1].events.append(Event(type, key, end, told, expires_at_ms))
        self.entries += 1
        self.size += size

    def cut(self, revision: int) -> None:
        """Its last commit may go on where nobody has looked yet: leave that for the next part, if it is this one."""
        if not self.is_full and self._commits[-1].revision == revision:
            last = self._commits.pop()
            self.is_full, self.place, self.reached = True, last.place, revision - 1
            self.entries, self.size = last.entries, last.size

    def part(self) -> list[Changes]:
        """What is told: the last commit of a part that is full may go on in the next."""
        part = [Changes(commit.revision, commit.events) for commit in self._commits]
        if self.is_full and part and part[-1].revision == self.reached + 1:
            part[-1] = part[-1]._replace(end=False)
        return part


class Group:
    """Watchers of the same keys that are told in the same way."""

    __slots__ = (
        "budget", "encode", "gathering", "id", "members", "range", "start", "start_reached", "synced", "with_values",
    )  # fmt: skip

    def __init__(self, id: tuple[Any, ...], command: Watch) -> None:
        self.id = id
        self.range = command.range
        self.with_values = command.with_values
        self.budget = command.budget
        self.encode = command.encode
        #: How many there are, and those that are up to date.
        self.members = 0
        self.synced: dict[Watcher, None] = {}
        #: What is new for it, while that is gone through; where that begins, and what is told before.
        self.gathering: Gathering | None = None
        self.start: Place = 0, 0
        self.start_reached = 0

    def made(self, gathering: Gathering, place: Place, reached: int, *, is_end: bool) -> Part:
        """The part of what was gathered, up to a place; the next one goes on earlier if this is full."""
        if gathering.is_full:
            place, reached, is_end = gathering.place, gathering.reached, False
        part = gathering.part()
        encoded: Any = part
        error = None
        try:
            if part and self.encode is not None:
                encoded = self.encode(part)
        except Exception:
            error = caught().value
        return Part(encoded, error, gathering.entries, gathering.size, place, reached, is_end)

    def word(self, changes: Changes) -> Part:
        """A part with this alone, which has no events."""
        encoded: Any = [changes]
        return Part(encoded if self.encode is None else self.encode(encoded), None, 0, 0, (0, 0), changes.revision)


class Groups:
    """All groups that have a watcher, by what they watch."""

    def __init__(self) -> None:
        self._by_id: dict[tuple[Any, ...], Group] = {}
        # Those of one key, and of prefixes by their length, in the order of that.
        self._by_key: dict[bytes, list[Group]] = {}
        self._by_prefix: list[tuple[int, dict[bytes, list[Group]]]] = []

    @property
    def all(self) -> Collection[Group]:
        """Each of them."""
        return self._by_id.values()

    def enter(self, command: Watch) -> Group:
        """The group that watches as this command does: it has one watcher more."""
        id_ = command.key, command.prefix, command.with_values, command.budget, command.encode
        group = self._by_id.get(id_)
        if group is None:
            group = self._by_id[id_] = Group(id_, command)
            key, prefix = id_[:2]
            table = self._by_key if key else self._of_length(len(prefix))
            table.setdefault(key or prefix, []).append(group)
        group.members += 1
        return group

    def leave(self, group: Group) -> None:
        """It has one watcher less."""
        group.members -= 1
        if group.members:
            return
        key, prefix = group.id[:2]
        del self._by_id[group.id]
        table = self._by_key if key else self._of_length(len(prefix))
        groups = table[key or prefix]
        groups.remove(group)
        if not groups:
            del table[key or prefix]
            self._by_prefix = [entry for entry in self._by_prefix if entry[1]]

    def _of_length(self, length: int) -> dict[bytes, list[Group]]:
        for known, groups in self._by_prefix:
            if known == length:
                return groups
        added: dict[bytes, list[Group]] = {}
        self._by_prefix.append((length, added))
        self._by_prefix.sort(key=lambda entry: entry[0])
        return added

    def that_watch(self, happening: Happening) -> list[Group]:
        """Those that an event is for."""
        key = happening.key
        if happening.type is EventType.DELETE_RANGE:
            return [group for group in self._by_id.values() if is_watched(happening, group.range)]
        found = list(self._by_key.get(key, ())) if self._by_key else []
        size = len(key)
        for length, groups in self._by_prefix:
            if length > size:
                break
            found += groups.get(key[:length], ())
        return found


def is_watched(happening: Happening, range: KeyRange) -> bool:
    """Whether an event is of keys in this range."""
    start, end = range
    if happening.type is EventType.DELETE_RANGE:
        return not range.clipped(KeyRange(happening.key, happening.value)).is_empty
    return happening.key >= start and (end is None or happening.key < end)
