"""Sets that enter their admission together: the same as one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.commands.command import Command
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.set import Set
from kvtwisted.core.errors import (
    InvalidKey,
    KvError,
    Overloaded,
    PermissionDenied,
    RateLimited,
    StorageError,
    TooLarge,
    Unavailable,
)
from kvtwisted.core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.buckets import Limiter, Rate
from kvtwisted.sessions.door import GATHERED_SETS
from kvtwisted.sessions.session import Session

from ..support.doors import Doorway, Outcome
from ..support.storage import Storage
from .support import EVERYTHING, grant

ROOM, BYTES = 4, 40
#: That all have.
SECONDS = 60.0


class Scene(Doorway):
    """A door with little room in front of it: for all, and for the one session."""

    def __init__(self, admission: Admission | None = None, *, storage: Storage | None = None, **options: Any) -> None:
        super().__init__(storage or Storage(cache_bytes=1 << 20))
        self.whole = Admission(2 * ROOM, 2 * BYTES, share=ROOM)
        self.admission = admission or self.whole.share()
        self.session = self.make_session(EVERYTHING, **options)
        self._first = self.storage.store.revision

    @property
    def commits(self) -> int:
        """How many revisions were given."""
        commits: int = self.storage.store.revision - self._first
        return commits

    def ask(self, command: Command, session: Session | None = None) -> Outcome:
        """As a codec does that has the quick way; what refuses it is its outcome."""
        return self._ask(command, session or self.session, quick=True)

    def ask_slowly(self, command: Command) -> Outcome:
        """By `submit`."""
        return self._ask(command, self.session, quick=False)

    def _ask(self, command: Command, session: Session, *, quick: bool) -> Outcome:
        outcome = Outcome()
        if quick and isinstance(command, Set) and not command.ttl and session.gathers:
            sets = session.gathering
            if sets is None or sets.waiter is not self:
                sets = session.gather(self, SECONDS, tell)
            sets.keys.append(command.key)
            sets.values.append(command.value)
            sets.tokens.append(outcome)
            return outcome
        try:
            session.submit(command, outcome)
        except KvError as error:
            command.error = error
            outcome(command)
        return outcome


def tell(scene: Scene, outcomes: Sequence[Outcome], error: BaseException | None) -> None:
    """Sets are done."""
    for outcome in outcomes:
        done = Set(b"", b"")
        done.error = error
        outcome(done)


def told(outcome: Outcome) -> type[BaseException] | None:
    """What kind of error there was, if there was one."""
    assert outcome.done is not None
    return None if outcome.done.error is None else type(outcome.done.error)


KEYS = st.sampled_from([b"", b"a", b"b", b"c", b"k" * (MAX_KEY_BYTES + 1)])
COMMANDS = st.one_of(
    st.builds(lambda *values: ("set", *values), KEYS, st.binary(max_size=12), st.sampled_from([0, 0, 0, 60, -1])),
    st.builds(lambda key: ("delete", key), KEYS),
    st.builds(lambda key, value: ("mset", key, value), KEYS, st.binary(max_size=12)),
)


def made(asked: tuple[Any, ...]) -> Command:
    """The command, a new one each time."""
    kind, *values = asked
    if kind == "set":
        return Set(*values)
    return Delete(*values) if kind == "delete" else MSet({values[0]: values[1]})


@given(st.lists(st.lists(COMMANDS, max_size=7), max_size=4))
def test_the_same_as_one_by_one(turns: list[list[tuple[Any, ...]]]) -> None:
    """Whatever comes in a turn, in whatever order: what is stored, told, refused, counted and left is the same."""
    quick, slow = Scene(), Scene()
    for asked in turns:
        outcomes = [quick.ask(made(one)) for one in asked]
        expected = [slow.ask_slowly(made(one)) for one in asked]
        for scene in (quick, slow):
            scene.run()
            assert (scene.admission.in_flight, scene.admission.bytes) == (0, 0)
            assert (scene.whole.in_flight, scene.whole.bytes) == (0, 0)
        assert [told(outcome) for outcome in outcomes] == [told(outcome) for outcome in expected]
        assert quick.storage.data() == slow.storage.data()
    assert quick.recorded == slow.recorded
    assert quick.whole.refused == slow.whole.refused
    assert quick.commits == slow.commits


def test_what_finds_no_room() -> None:
    """As many as fit go in, those that came first; the others are told, and take nothing."""
    scene = Scene()
    outcomes = [scene.ask(Set(b"%d" % number, b"v")) for number in range(ROOM + 2)]
    assert scene.admission.in_flight == 0
    scene.run()
    assert [told(outcome) for outcome in outcomes] == [None] * ROOM + [Overloaded] * 2
    assert len(scene.storage.data()) == ROOM
    assert (scene.admission.in_flight, scene.whole.in_flight, scene.whole.refused) == (0, 0, 2)
    large = [scene.ask(Set(b"%d" % number, b"v" * 29)) for number in range(2)]
    scene.run()
    assert [told(outcome) for outcome in large] == [None, Overloaded]


def test_a_server_that_stops() -> None:
    """It takes none of them, and what is to send their answers hears of it."""
    scene, sent = Scene(), []
    scene.door.on_settled(lambda: sent.append(outcome.done is not None))
    outcome = scene.ask(Set(b"k", b"v"))
    scene.whole.close()
    scene.run()
    assert told(outcome) is Unavailable
    assert sent == [True]
    assert scene.storage.data() == {}


def test_one_that_needs_a_file_waits_alone(tmp_path: Path) -> None:
    """It is a thread's, as are those that replace a large value; the others of its turn are not."""
    files = ValueFiles(str(tmp_path))
    files.prepare()
    scene = Scene(storage=Storage(files=files, spill_threshold=20))
    large = scene.ask(Set(b"large", b"v" * 20))
    scene.run()
    for value in (b"w" * 20, b"2"):
        asked = [scene.ask(Set(b"a", value[:1])), scene.ask(Set(b"large", value)), scene.ask(Set(b"b", value[:1]))]
        scene.reactor.turn()
        assert [outcome.done is not None for outcome in asked] == [True, False, True]
        scene.run()
        assert [told(outcome) for outcome in (large, *asked)] == [None] * 4
        found = [scene.storage.store.get(key) for key in (b"a", b"large", b"b")]
        assert [one.value for one in found if one is not None] == [value[:1], value, value[:1]]
    assert scene.admission.in_flight == 0


def test_two_sessions_in_turn() -> None:
    """Each enters its own share, and both go in in the order in which they came."""
    scene = Scene()
    first = scene.session
    scene.admission = scene.whole.share()
    second = scene.make_session(EVERYTHING)
    outcomes = [scene.ask(Set(b"k", b"%d" % number), (first, second)[number % 2]) for number in range(2 * ROOM)]
    scene.run()
    assert [told(outcome) for outcome in outcomes] == [None] * 2 * ROOM
    assert scene.storage.data() == {b"k": b"%d" % (2 * ROOM - 1)}
    assert [share.in_flight for share in (first.admission, second.admission, scene.whole)] == [0, 0, 0]


def test_no_more_than_so_many_gather() -> None:
    """When another client comes they enter within the turn, so that what is refused takes no memory."""
    scene, other = Scene(Admission(GATHERED_SETS + 1)), Scene()
    for number in range(GATHERED_SETS + 1):
        scene.ask(Set(b"%d" % number, b""))
    assert (scene.admission.in_flight, scene.door.waiting) == (0, GATHERED_SETS + 1)
    refused = Outcome()
    sets = scene.session.gather(other, SECONDS, tell)
    assert (scene.admission.in_flight, scene.door.waiting) == (GATHERED_SETS + 1, 1)
    sets.keys.append(b"k")
    sets.values.append(b"")
    sets.tokens.append(refused)
    scene.run()
    assert told(refused) is Overloaded
    assert scene.admission.in_flight == 0
    assert len(scene.storage.data()) == GATHERED_SETS + 1


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (Set(b"", b"v"), InvalidKey),
        (Set(b"k" * (MAX_KEY_BYTES + 1), b"v"), InvalidKey),
        (Set(b"k", b"v" * (MAX_VALUE_BYTES + 1)), TooLarge),
    ],
    ids=["no key", "key", "value"],
)
def test_what_is_no_good_is_told_alone(command: Set, error: type[KvError]) -> None:
    """And is counted as it is elsewhere; the others go on."""
    scene = Scene(Admission(ROOM))
    outcomes = [scene.ask(Set(b"before", b"1")), scene.ask(command), scene.ask(Set(b"after", b"2"))]
    scene.run()
    assert [told(outcome) for outcome in outcomes] == [None, error, None]
    assert sorted([(name, failed) for name, _, failed in scene.recorded]) == [("set", False)] * 2 + [("set", True)]
    assert scene.storage.data() == {b"after": b"2", b"before": b"1"}


def test_a_failure_is_told_to_each() -> None:
    """Of the storage: each has failed, and is counted so."""
    scene = Scene()
    scene.storage.engine.fail("write", StorageError("broke"), times=1)
    outcomes = [scene.ask(Set(b"%d" % number, b"v")) for number in range(3)]
    scene.run()
    assert [told(outcome) for outcome in outcomes] == [StorageError] * 3
    assert [(name, failed) for name, _, failed in scene.recorded] == [("set", True)] * 3
    assert scene.admission.in_flight == 0


def test_commands_of_others_in_between() -> None:
    """What comes between Sets goes in between them."""
    scene = Scene()
    asked = [Set(b"k", b"1"), Delete(b"k"), Set(b"k", b"2"), MSet({b"k": b"3"})]
    outcomes = [scene.ask(command) for command in asked]
    scene.run()
    assert [told(outcome) for outcome in outcomes] == [None] * 4
    assert scene.storage.data() == {b"k": b"3"}
    assert scene.commits == 4


def test_a_group_that_has_to_wait() -> None:
    """Behind an fsync, and when RocksDB stalls: a thread takes them one by one, and all are told."""
    scene = Scene()
    scene.storage.writer.durable = True
    outcomes = [scene.ask(Set(b"%d" % number, b"v")) for number in range(3)]
    scene.reactor.turn()
    assert [outcome.done for outcome in outcomes] == [None] * 3
    scene.run()
    assert [told(outcome) for outcome in outcomes] == [None] * 3
    assert scene.commits == 3
    assert scene.admission.in_flight == 0


def test_who_has_more_to_pass() -> None:
    """A rate and an audit log are looked at when a Set comes, a right to some keys only at the turn's end."""
    written: list[Any] = []
    scene = Scene()
    limited = scene.make_session(EVERYTHING, limiter=Limiter(Rate(1, 1000)))
    some = scene.make_session(grant("set", b"a/"))
    audited = scene.make_session(EVERYTHING, written=lambda who, what, keys: written.append((what, *keys)))
    assert told_at_once(scene, limited, b"k") is None
    assert told_at_once(scene, limited, b"k") is RateLimited
    assert told_at_once(scene, some, b"a/1") is None
    refused = [scene.ask(Set(b"b/1", b"v"), some), scene.ask(Set(b"k", b"v"), scene.make_session())]
    allowed = scene.ask(Set(b"a/2", b"v"), some)
    scene.run()
    assert [told(outcome) for outcome in (*refused, allowed)] == [PermissionDenied, PermissionDenied, None]
    assert told_at_once(scene, audited, b"k") is None
    assert written == [("set", b"k")]


def told_at_once(scene: Scene, session: Session, key: bytes) -> type[BaseException] | None:
    """What refuses a Set before the turn ends."""
    outcome = scene.ask(Set(key, b"v"), session)
    return None if outcome.done is None else told(outcome)
