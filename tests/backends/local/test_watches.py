"""Watches over the history, without a storage: who is told what, and who is told that they cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtwisted.backends.local import history, watches
from kvtwisted.backends.local.history import History
from kvtwisted.backends.local.watches import QUIET_LOOKS, Watches
from kvtwisted.backends.local.write import Write
from kvtwisted.commands.command import Command
from kvtwisted.commands.ranges import KeyRange
from kvtwisted.commands.watch import Changes, Event, EventType, Watch
from kvtwisted.core.errors import Unavailable

FIRST = 100
_PLENTY = 1 << 20


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a turn takes here, the next one follows."""
    monkeypatch.setattr(watches, "REST", 0)


class Turns:
    """A reactor whose turns come when a test says; what is to come later comes when that is asked for."""

    def __init__(self) -> None:
        self._next: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.later: list[_Later] = []
        self.woken = 0

    def callLater(self, delay: float, call: Callable[..., object], *arguments: Any) -> _Later | None:
        """See IReactorTime."""
        if delay:
            self.later.append(_Later(call))
            return self.later[-1]
        self._next.append((call, arguments))
        return None

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        """See IReactorFromThreads."""
        self.woken += 1
        self._next.append((call, arguments))

    def turn(self) -> bool:
        """One turn; whether there was anything to do."""
        calls, self._next = self._next, []
        for call, arguments in calls:
            call(*arguments)
        return bool(calls)

    def settle(self) -> int:
        """All turns that there are to come; their number."""
        turns = 0
        while self.turn():
            turns += 1
        return turns

    def pass_time(self) -> None:
        """What was to come later comes now."""
        later, self.later = self.later, []
        for call in later:
            call()


class _Later:
    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """See IDelayedCall."""
        assert self._call is not None
        self._call = None

    def __call__(self) -> None:
        """It is time."""
        if self._call is not None:
            self._call()


class Client:
    """One watcher, who asks for parts when a test says."""

    def __init__(self, scene: Scene, **fields: Any) -> None:
        fields.setdefault("budget", _PLENTY)
        self.command = Watch(**fields)
        self.command.part = self._took
        self.parts: list[Sequence[Changes]] = []
        #: Whether it asks for the next as soon as it has one.
        self.is_keen = False
        self.is_asking = self.is_settled = False
        #: The revision that it began after.
        self.after = 0
        scene.clients[self.command] = self
        scene.watches.begin(self.command)

    def ask(self) -> None:
        """Ask for one more part."""
        if not (self.is_asking or self.is_settled):
            self.is_asking = True
            self.command.more()

    def follow(self) -> Client:
        """Ask for all there is to come."""
        self.is_keen = True
        self.ask()
        return self

    def _took(self, part: Any) -> None:
        assert self.is_asking, "a part came unasked"
        assert not self.is_settled
        self.is_asking = False
        self.parts.append(part)
        if self.is_keen and not any(changes.compacted for changes in part):
            self.ask()

    @property
    def told(self) -> list[Changes]:
        """All that it was told."""
        return [changes for part in self.parts for changes in part]

    @property
    def events(self) -> list[Event]:
        """The events of those."""
        return [event for changes in self.told for event in changes.events]

    @property
    def is_compacted(self) -> bool:
        """Whether it was told that it missed something."""
        return bool(self.told) and self.told[-1].compacted


class Scene:
    """A history, those who watch it, and a list of all that happened."""

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self.turns = Turns()
        self.history = History(FIRST, max_bytes)
        self.watches = Watches(self.turns, self.history)
        self.watches.settled = self._settled
        self.clients: dict[Command, Client] = {}
        #: Of each commit: its revision, and its events, with all that there is to know.
        self.commits: list[tuple[int, list[Event]]] = []

    def _settled(self, commands: Sequence[Command]) -> None:
        for command in commands:
            client = self.clients[command]
            assert not client.is_settled
            client.is_settled = True

    @property
    def last(self) -> int:
        """The last revision."""
        return self.history.last

    def write(self, *writes: Write) -> None:
        """A batch of writes."""
        revision = self.last
        for write in writes:
            parts = write.parts or ([len(write.changes)] if write.commits == 1 else [1] * write.commits)
            first = 0
            for part in parts:
                revision += 1
                self.commits.append((revision, [_event(*change) for change in write.changes[first : first + part]]))
                first += part
        self.history.add_writes(writes, revision)

    def set(self, *keys: bytes, value: bytes = b"value") -> None:
        """One commit that sets these."""
        self.write(Write([(key, value, 0) for key in keys]))

    def remove(self, type: EventType, *keys: bytes) -> None:
        """The server removes keys."""
        self.commits.append((self.last + 1, [Event(type, key) for key in keys]))
        self.history.add_removed(type, keys, self.last + 1)

    def remove_range(self, start: bytes, end: bytes | None) -> None:
        """A range is removed."""
        self.commits.append((self.last + 1, [Event(EventType.DELETE_RANGE, start, end or b"")]))
        self.history.add_range(KeyRange(start, end), self.last + 1)

    def expected(self, command: Watch, after: int) -> list[tuple[int, list[Event]]]:
        """What a watcher is to be told: commits after a revision, as far as they are watched."""
        commits = []
        for revision, events in self.commits:
            watched = [seen for event in events if (seen := _seen(event, command)) is not None]
            if revision > after and watched:
                commits.append((revision, watched))
        return commits


def _event(key: bytes, value: bytes | None, expires_at_ms: int) -> Event:
    if value is None:
        return Event(EventType.DELETE, key)
    return Event(EventType.SET, key, b"", value, expires_at_ms)


def _seen(event: Event, command: Watch) -> Event | None:
    """An event as a watcher sees it, if it does."""
    range_ = command.range
    if event.type is EventType.DELETE_RANGE:
        clipped = KeyRange(event.key, event.end or None).clipped(range_)
        if clipped.is_empty:
            return None
        return Event(event.type, clipped.start, b"" if clipped.end == range_.end else clipped.end or b"")
    is_watched = event.key == command.key if command.key else event.key.startswith(command.prefix)
    if not is_watched:
        return None
    return event if command.with_values else event._replace(value=b"")


def joined(told: Sequence[Changes]) -> list[tuple[int, list[Event]]]:
    """The commits that were told, with their parts put together; the last may lack its end."""
    commits: list[tuple[int, list[Event]]] = []
    is_open = False
    for changes in told:
        if not changes.events:
            assert changes.end
            assert not is_open or changes.compacted
            continue
        if is_open:
            assert commits[-1][0] == changes.revision
            commits[-1][1].extend(changes.events)
        else:
            assert not commits or commits[-1][0] < changes.revision
            commits.append((changes.revision, list(changes.events)))
        is_open = not changes.end
    return commits


def check(scene: Scene, client: Client, after: int) -> None:
    """What it was told is what happened, from where it began on, each once and in order; or it knows that it missed
    something, and where."""
    expected = scene.expected(client.command, after)
    told = joined(client.told)
    if not client.is_compacted:
        assert told == expected
        return
    assert client.is_settled
    reached = client.told[-1].revision
    whole = [commit for commit in expected if commit[0] <= reached]
    assert told[: len(whole)] == whole
    # The one after may have been begun.
    assert len(told) <= len(whole) + 1
    for revision, events in told[len(whole) :]:
        assert dict(expected)[revision][: len(events)] == events
        assert revision == reached + 1


@pytest.fixture
def scene() -> Scene:
    """With room for all."""
    return Scene()


def test_the_first_part_says_where_it_begins(scene: Scene) -> None:
    """From now on: the present revision; what was before is not told."""
    scene.set(b"a")
    client = Client(scene).follow()
    scene.turns.settle()
    scene.set(b"b")
    scene.turns.settle()
    assert client.told == [Changes(FIRST + 1), Changes(FIRST + 2, [Event(EventType.SET, b"b")])]


def test_commits_of_one_write(scene: Scene) -> None:
    """A write may stand for many: each has its revision, and its own changes."""
    client = Client(scene, with_values=True).follow()
    plain = [(key, key.upper(), 0) for key in (b"a", b"b", b"c", b"d")]
    scene.write(Write(plain[:2], commits=2), Write(plain, commits=3, parts=[1, 2, 1]), Write([(b"e", None, 0)]))
    scene.turns.settle()
    assert [(changes.revision, [event.key for event in changes.events]) for changes in client.told[1:]] == [
        (FIRST + 1, [b"a"]), (FIRST + 2, [b"b"]),
        (FIRST + 3, [b"a"]), (FIRST + 4, [b"b", b"c"]), (FIRST + 5, [b"d"]),
        (FIRST + 6, [b"e"]),
    ]  # fmt: skip
    check(scene, client, FIRST)


def test_what_the_server_removes(scene: Scene) -> None:
    """Expiry and eviction have types of their own; a range is one event, clipped to what is watched."""
    everything, inside, one = Client(scene).follow(), Client(scene, prefix=b"b").follow(), Client(scene, key=b"b1")
    one.follow()
    scene.remove(EventType.EXPIRE, b"b1", b"c")
    scene.remove(EventType.EVICT, b"b1")
    scene.remove_range(b"a", b"b5")
    scene.remove_range(b"b1", b"c5")
    scene.remove_range(b"c", None)
    scene.turns.settle()
    range_ = EventType.DELETE_RANGE
    assert inside.events == [
        Event(EventType.EXPIRE, b"b1"), Event(EventType.EVICT, b"b1"),
        Event(range_, b"b", b"b5"), Event(range_, b"b1", b""),
    ]  # fmt: skip
    assert everything.events[3:] == [Event(range_, b"a", b"b5"), Event(range_, b"b1", b"c5"), Event(range_, b"c", b"")]
    assert one.events == [
        Event(EventType.EXPIRE, b"b1"), Event(EventType.EVICT, b"b1"),
        Event(range_, b"b1", b""), Event(range_, b"b1", b""),
    ]  # fmt: skip


def test_the_end_of_a_range_is_text(scene: Scene) -> None:
    """The end of a prefix is no text for some: the next key that is stands for it."""
    client = Client(scene).follow()
    scene.remove_range(b"a\x7f", b"a\x80")
    scene.turns.settle()
    assert client.events == [Event(EventType.DELETE_RANGE, b"a\x7f", "a\x80".encode())]


def test_a_part_has_its_budget(scene: Scene) -> None:
    """A commit may go on in the next part, and the last one says that it ends; one event is told whatever it has."""
    client = Client(scene, budget=300, with_values=True).follow()
    scene.set(*[b"k%d" % number for number in range(10)], value=b"v" * 50)
    scene.set(b"large", value=b"v" * 5000)
    scene.turns.settle()
    check(scene, client, FIRST)
    sizes = [sum(len(event.key) + len(event.value) for changes in part for event in changes.events)
             for part in client.parts]  # fmt: skip
    assert max(sizes[:-1]) <= 300
    assert len(client.parts) >= 5
    assert [changes.end for changes in client.told[1:-1]] == [*[False] * (len(client.told) - 3), True]


def test_watchers_share_what_is_made(scene: Scene) -> None:
    """Those of the same keys and the same way of telling: one encoding, whether they are up to date or catch up."""
    made: list[Sequence[Changes]] = []

    def encode(part: Sequence[Changes]) -> Sequence[Changes]:
        made.append(part)
        return part

    clients = [Client(scene, prefix=b"a", encode=encode).follow() for _ in range(20)]
    scene.turns.settle()
    slow = [Client(scene, prefix=b"a", encode=encode, after_revision=FIRST) for _ in range(20)]
    for client in slow:
        client.ask()
    scene.turns.settle()
    made.clear()
    for number in range(5):
        scene.set(b"a%d" % number)
        scene.turns.settle()
    assert len(made) == 5
    for client in slow:
        client.follow()
    scene.turns.settle()
    assert len(made) == 6
    for client in [*clients, *slow]:
        check(scene, client, FIRST)


def test_a_watcher_that_nothing_happens_to_is_told_so(scene: Scene) -> None:
    """How far it is, after a while: a client that is cut off goes on from there."""
    client, busy = Client(scene, prefix=b"a").follow(), Client(scene, prefix=b"b").follow()
    scene.turns.settle()
    for _ in range(QUIET_LOOKS):
        scene.set(b"b")
        scene.turns.settle()
        scene.turns.pass_time()
        scene.turns.settle()
    assert client.told == [Changes(FIRST), Changes(scene.last)]
    assert len(busy.told) == 1 + QUIET_LOOKS


def test_resuming(scene: Scene) -> None:
    """What came after the revision, each once, also where one batch has what was before and after it."""
    for number in range(5):
        scene.set(b"a%d" % number)
    scene.write(Write([(b"b%d" % number, b"v", 0) for number in range(6)], commits=4, parts=[1, 3, 1, 1]))
    for after in range(FIRST, scene.last + 1):
        client = Client(scene, after_revision=after).follow()
        scene.turns.settle()
        assert client.told[0] == Changes(after)
        check(scene, client, after)


def test_what_cannot_be_resumed() -> None:
    """Before the history, and beyond the present: that is the only thing which is told."""
    scene = Scene(max_bytes=2 * history.ENTRY_BYTES + 1000)
    for number in range(50):
        scene.set(b"a%d" % number)
    for after, revision in ((FIRST, FIRST), (scene.history.begin - 1, scene.history.begin - 1), (10**9, scene.last)):
        client = Client(scene, after_revision=after).follow()
        scene.turns.settle()
        assert client.told == [Changes(revision, compacted=True)]
        assert client.is_settled
    kept = Client(scene, after_revision=scene.history.begin).follow()
    scene.turns.settle()
    check(scene, kept, scene.history.begin)


def test_a_slow_watcher_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told how far it came; nobody waits for it, and the others miss nothing."""
    monkeypatch.setattr(history, "LIVE_BYTES", 0)
    scene = Scene(max_bytes=5000)
    slow, quick = Client(scene), Client(scene).follow()
    slow.ask()
    scene.turns.settle()
    scene.set(b"first")
    slow.ask()
    scene.turns.settle()
    for number in range(100):
        scene.set(b"a%d" % number)
        scene.turns.settle()
    slow.follow()
    scene.turns.settle()
    assert slow.told == [
        Changes(FIRST), Changes(FIRST + 1, [Event(EventType.SET, b"first")]), Changes(FIRST + 1, compacted=True),
    ]  # fmt: skip
    check(scene, quick, FIRST)


def test_a_watcher_that_is_not_ready(scene: Scene) -> None:
    """Up to date, and then busy with what it was told: what comes meanwhile is told when it asks, from the first on."""
    busy, ready = Client(scene, prefix=b"a"), Client(scene, prefix=b"a").follow()
    for _ in range(2):  # the second time it is up to date
        busy.ask()
        scene.turns.settle()
    scene.set(b"a1")
    scene.turns.settle()
    assert [event.key for event in busy.events] == [b"a1"]
    for keys in ((b"b",), (b"a2", b"b"), (b"a3",), (b"c",)):
        scene.set(*keys)
        scene.turns.settle()
    assert len(busy.parts) == 2
    busy.follow()
    scene.turns.settle()
    for client in (busy, ready):
        check(scene, client, FIRST)
    scene.set(b"a4")
    scene.turns.settle()
    check(scene, busy, FIRST)


def test_the_history_begins_anew(scene: Scene) -> None:
    """Nobody knows what happened: all are told so, those that are up to date as well; and who comes later goes on."""
    keen, slow = Client(scene).follow(), Client(scene)
    scene.turns.settle()
    scene.set(b"a")
    scene.turns.settle()
    scene.history.begin_anew(scene.last + 1)
    slow.follow()
    scene.turns.settle()
    assert keen.told[-1] == Changes(FIRST + 1, compacted=True)
    assert slow.told[-1] == Changes(FIRST, compacted=True)
    before, after = Client(scene, after_revision=scene.last - 1).follow(), Client(scene, after_revision=scene.last)
    after.follow()
    scene.set(b"b")
    scene.turns.settle()
    assert before.is_compacted
    assert [event.key for event in after.events] == [b"b"]


def test_one_wake_up_for_many_commits(scene: Scene) -> None:
    """And none where nobody watches."""
    scene.set(b"a")
    assert scene.turns.woken == 0
    client = Client(scene).follow()
    scene.turns.settle()
    for _ in range(100):
        scene.set(b"a")
    assert scene.turns.woken == 1
    scene.turns.settle()
    assert len(client.events) == 100
    client.command.cancel()
    scene.turns.settle()
    assert client.is_settled
    scene.set(b"a")
    assert scene.turns.woken == 1
    assert scene.turns.settle() == 0


def test_nothing_is_kept_of_those_who_left(scene: Scene) -> None:
    """Groups, places and timers go with them."""
    for round_ in range(3):
        clients = [Client(scene, prefix=b"p%d" % number).follow() for number in range(5)]
        clients += [Client(scene, key=b"k%d" % number).follow() for number in range(5)]
        scene.set(b"p1")
        for _ in range(round_):
            scene.turns.turn()
        for client in clients:
            client.command.cancel()
        scene.turns.settle()
        groups = scene.watches._groups
        assert (groups._by_id, groups._by_key, groups._by_prefix) == ({}, {}, [])
        assert not scene.watches._open
        assert scene.history.wake is None
        scene.turns.pass_time()
        assert scene.turns.later == []


def test_what_cannot_be_encoded_is_their_end(scene: Scene) -> None:
    """Of those whom it was for, and of no others."""

    def encode(part: Sequence[Changes]) -> Sequence[Changes]:
        if any(changes.events for changes in part):
            raise Unavailable("no")
        return part

    broken, other = [Client(scene, encode=encode).follow() for _ in range(2)], Client(scene).follow()
    scene.turns.settle()
    scene.set(b"a")
    scene.turns.settle()
    assert [str(client.command.error) for client in broken] == ["no", "no"]
    assert all(client.is_settled for client in broken)
    check(scene, other, FIRST)


def test_a_stopping_backend(scene: Scene) -> None:
    """All end."""
    client = Client(scene).follow()
    scene.watches.stop()
    assert client.is_settled
    assert str(client.command.error) == "the server is stopping"


def test_much_to_do_is_done_in_many_turns(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large commit for many watchers of many groups does not hold the reactor up: other work comes in between."""
    monkeypatch.setattr(watches, "TURN_SECONDS", 0)
    clients = [Client(scene, prefix=b"a" * (number % 20), budget=2000).follow() for number in range(100)]
    scene.turns.settle()
    scene.set(*[b"a" * 20 + b"%d" % number for number in range(2000)])
    assert scene.turns.settle() > 20 * 40
    for client in clients:
        check(scene, client, FIRST)


def test_telling_many_rests(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a turn that was not short commits gather until its rest is over; then they are told together."""
    client = Client(scene, prefix=b"a").follow()
    scene.turns.settle()
    monkeypatch.setattr(watches, "SHORT_SECONDS", -1.0)
    monkeypatch.setattr(watches, "REST", 1e9)
    scene.set(b"a1")
    scene.turns.settle()
    told = len(client.parts)
    scene.set(b"a2")
    scene.set(b"a3")
    assert scene.turns.settle() == 1
    assert len(client.parts) == told
    monkeypatch.setattr(scene.watches, "_rest_until", 0.0)
    scene.turns.pass_time()
    assert len(client.parts) == told + 1
    check(scene, client, FIRST)


def test_a_rest_leaves_nobody_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when half of what the history keeps has not been told."""
    monkeypatch.setattr(history, "LIVE_BYTES", 0)
    monkeypatch.setattr(watches, "SHORT_SECONDS", -1.0)
    monkeypatch.setattr(watches, "REST", 1e9)
    scene = Scene(max_bytes=50_000)
    client = Client(scene).follow()
    scene.turns.settle()
    for number in range(30):
        scene.set(b"a%d" % number)
        scene.turns.settle()
        scene.turns.pass_time()
    assert not client.events
    for number in range(300):
        scene.set(b"b%d" % number)
        scene.turns.settle()
        scene.turns.pass_time()
    assert not any(changes.compacted for changes in client.told)
    assert len(client.events) > 250
    assert len(client.parts) < 50


KEYS = [b"a", b"a1", b"ab", b"b", b"b1", b"c"]
_key = st.sampled_from(KEYS)
_change = st.one_of(
    st.tuples(_key, st.sampled_from([b"", b"v", b"v" * 100]), st.sampled_from([0, 5])),
    st.tuples(_key, st.none(), st.just(0)),
)
_part = st.lists(_change, min_size=1, max_size=4)
_write = st.one_of(
    _part.map(lambda changes: ("one", [changes])),
    st.lists(_part, min_size=1, max_size=4).map(lambda parts: ("parts", parts)),
    st.lists(_change, min_size=1, max_size=6).map(lambda changes: ("each", [[change] for change in changes])),
)
_watch = st.fixed_dictionaries(
    {
        "key": st.sampled_from([b"", b"", b"a", b"b1"]),
        "prefix": st.sampled_from([b"", b"a", b"b", b"x"]),
        "with_values": st.booleans(),
        "budget": st.sampled_from([1, 200, 600, _PLENTY]),
    }
)
_type = st.sampled_from([EventType.EXPIRE, EventType.EVICT])
_step = st.one_of(
    st.tuples(st.just("write"), st.lists(_write, min_size=1, max_size=4)),
    st.tuples(st.just("remove"), st.tuples(_type, st.sets(_key, min_size=1))),
    st.tuples(st.just("range"), st.tuples(_key, st.none() | _key)),
    st.tuples(st.just("anew"), st.none()),
    st.tuples(st.just("watch"), st.tuples(_watch, st.integers(-3, 20), st.booleans())),
    st.tuples(st.just("ask"), st.integers(0, 30)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("turn"), st.integers(1, 5)),
    st.tuples(st.just("pass"), st.none()),
)  # fmt: skip


def _made(kind: str, parts: list[list[Any]]) -> Write:
    changes = [change for part in parts for change in part]
    if kind == "parts":
        return Write(changes, commits=len(parts), parts=[len(part) for part in parts])
    return Write(changes, commits=len(parts))


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(_step, max_size=60),
    max_bytes=st.sampled_from([0, 1500, 6000, _PLENTY]),
    run=st.sampled_from([(1, 1), (1, 3), (3, 6), (512, 4096)]),
    seconds=st.sampled_from([0.0, 1.0]),
)
def test_everybody_sees_everything_or_knows(
    steps: list[tuple[str, Any]], max_bytes: int, run: tuple[int, int], seconds: float
) -> None:
    """Random commits, watchers, readers who are slow, histories that are too short and that begin anew: each watcher is
    told each commit exactly once and in order, or that it missed some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "LIVE_BYTES", 0)
        patch.setattr(history, "_DROPPED", 3)
        patch.setattr(watches, "RUN_EVENTS", run[0])
        patch.setattr(watches, "LONGEST_RUN", run[1])
        patch.setattr(watches, "TURN_SECONDS", seconds)
        scene = Scene(max_bytes)
        everyone: list[tuple[Client, int]] = []
        unknown: dict[int, int] = {}  # of each client: when what happened was not known
        for kind, what in steps:
            if kind == "write":
                scene.write(*[_made(*write) for write in what])
            elif kind == "remove":
                scene.remove(what[0], *sorted(what[1]))
            elif kind == "range":
                start, end = what
                if end is None or start < end:
                    scene.remove_range(start, end)
            elif kind == "anew":
                scene.history.begin_anew(scene.last + 1)
                unknown = {place: 1 for place, (client, _) in enumerate(everyone) if not client.is_settled}
            elif kind == "watch":
                fields, back, is_keen = what
                if fields["key"]:
                    fields = {**fields, "prefix": b""}
                after = max(1, scene.last - back) if back else 0
                client = Client(scene, after_revision=after, **fields)
                everyone.append((client, after or scene.last))
                client.is_keen = is_keen
                client.ask()
            elif kind in ("ask", "cancel") and what < len(everyone):
                client = everyone[what][0]
                if kind == "ask":
                    client.ask()
                else:
                    client.command.cancel()
            elif kind == "turn":
                for _ in range(what):
                    scene.turns.turn()
            elif kind == "pass":
                scene.turns.pass_time()
        cancelled = {client for client, _ in everyone if client.command.is_cancelled}
        for client, _ in everyone:
            if client not in cancelled:
                client.follow()
        scene.turns.settle()
        for place, (client, after) in enumerate(everyone):
            if client in cancelled:
                assert client.is_settled
                continue
            check(scene, client, after)
            if place in unknown:
                assert client.is_compacted
            if after > scene.last:
                assert client.is_compacted
