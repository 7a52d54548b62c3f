"""Commands that decide and enter their admission together: the same as one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.history import events_of
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.commands import conditions
from kvtwisted.commands.command import Command
from kvtwisted.commands.conditional import ConditionalDelete, ConditionalSet, Increment, MutateKey, Touch
from kvtwisted.commands.conditions import Condition, etag_of
from kvtwisted.commands.deciding import Outcome as Decided
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.mutations import AddNumber, DeleteKey, SetValue, TouchKey
from kvtwisted.commands.set import Set
from kvtwisted.core.errors import (
    InvalidKey,
    InvalidRequest,
    InvalidTtl,
    KvError,
    NearlyFull,
    Overloaded,
    PermissionDenied,
    StorageError,
    TooLarge,
    WriteStalled,
)
from kvtwisted.core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.door import GATHERED_SETS
from kvtwisted.sessions.session import Session

from ..support.doors import Doorway, Outcome
from ..support.properties import repeatable
from ..support.storage import Storage
from .support import EVERYTHING, grant
from .test_sets_together import tell as tell_sets

ROOM, BYTES = 6, 100
SECONDS = 60.0
FREE, TAKEN = Condition(conditions.Test.ABSENT), Condition(conditions.Test.PRESENT)


class Scene(Doorway):
    """A door with little room in front of it."""

    def __init__(self, *grants: Any, room: int = ROOM, size: int = BYTES, storage: Storage | None = None) -> None:
        super().__init__(storage or Storage(cache_bytes=1 << 20))
        self.admission = Admission(room, size)
        self.session = self.make_session(*(grants or (EVERYTHING,)))

    def ask(self, command: Command, *, quick: bool = True, session: Session | None = None) -> Outcome:
        """As a codec does that has the quick way; what refuses it is its outcome."""
        outcome, session = Outcome(), session or self.session
        if quick and isinstance(command, MutateKey) and not isinstance(command, ConditionalDelete):
            deciding = session.deciding
            if deciding is None or deciding.waiter is not self:
                deciding = session.gather_decisions(self, SECONDS, tell)
            assert deciding is not None
            deciding.mutations.append(command.mutation)
            deciding.conditions.append(command.condition)
            deciding.tokens.append((outcome, command))
            return outcome
        if quick and isinstance(command, Set) and not command.ttl:
            sets = session.gathering
            if sets is None or sets.waiter is not self:
                sets = session.gather(self, SECONDS, tell_sets)
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

    def ask_all(self, *commands: Command, quick: bool = True) -> list[Outcome]:
        """All of these in a turn."""
        asked = [self.ask(command, quick=quick) for command in commands]
        self.run()
        assert (self.admission.in_flight, self.admission.bytes) == (0, 0)
        return asked


def tell(scene: Scene, tokens: Sequence[tuple[Outcome, Command]], results: Sequence[Any]) -> None:
    """They are done."""
    assert len(tokens) == len(results)
    for (outcome, command), result in zip(tokens, results):
        if isinstance(result, Decided):
            command.result = result
        else:
            command.error = result
        outcome(command)


def told(outcome: Outcome) -> Any:
    """The kind of error that there was, or the result without its revision."""
    assert outcome.done is not None
    if outcome.done.error is not None:
        return type(outcome.done.error)
    result = outcome.done.result
    return result._replace(revision=bool(result.revision)) if isinstance(result, Decided) else result


KEYS = st.sampled_from([b"a", b"b", b"c", b"", b"k" * (MAX_KEY_BYTES + 1)])
VALUES = st.sampled_from([b"", b"1", b"-7", b"text", b"\xff", b"x" * 20_000])
TTLS = st.sampled_from([0, 0, 0, 1, 60, -1])
CONDITIONS = st.one_of(
    st.sampled_from([FREE, TAKEN]),
    VALUES.map(lambda value: Condition(conditions.Test.VALUE, value)),
    VALUES.map(lambda value: Condition(conditions.Test.ETAG, etag_of(value).encode())),
    st.just(Condition(conditions.Test.ETAG, b"no etag")),
)
COMMANDS = st.one_of(
    st.builds(
        lambda key, value, ttl, test: (ConditionalSet, SetValue(key, value, ttl), test), KEYS, VALUES, TTLS, CONDITIONS
    ),
    st.builds(lambda key, ttl, test: (Touch, TouchKey(key, ttl), test), KEYS, TTLS, st.none() | CONDITIONS),
    st.builds(
        lambda key, delta, ttl: (Increment, AddNumber(key, delta, ttl)), KEYS, st.sampled_from([1, 2**63 - 1]), TTLS
    ),
    st.builds(lambda key, test: (ConditionalDelete, DeleteKey(key), test), KEYS, CONDITIONS),
    st.builds(lambda key, value: (Set, key, value), KEYS, st.sampled_from([b"", b"7", b"text"])),
    st.builds(lambda key: (Delete, key), KEYS),
)  # fmt: skip


@repeatable
@given(st.lists(st.tuples(st.lists(COMMANDS, max_size=7), st.sampled_from([0, 0, 1000])), max_size=4), st.booleans())
def test_the_same_as_one_by_one(turns: list[tuple[list[tuple[Any, ...]], int]], cramped: bool) -> None:
    """Whatever comes in a turn: what is stored, told, refused, counted and left is the same."""
    room = {} if cramped else {"room": 1000, "size": 1 << 20}
    quick, slow = Scene(**room), Scene(**room)
    for asked, ms in turns:
        told_of = [
            [told(outcome) for outcome in scene.ask_all(*[make(*how) for make, *how in asked], quick=scene is quick)]
            for scene in (quick, slow)
        ]
        assert told_of[0] == told_of[1]
        assert quick.storage.data() == slow.storage.data()
        assert quick.storage.index() == slow.storage.index()
        for scene in (quick, slow):
            scene.storage.time.advance(ms)
    assert sorted(quick.recorded) == sorted(slow.recorded)
    assert quick.door.failed_conditions.value == slow.door.failed_conditions.value
    assert quick.admission.refused == slow.admission.refused


def numbers(outcomes: Sequence[Outcome]) -> list[int]:
    """What Increments answered."""
    return [outcome.result().only.value for outcome in outcomes]


def add(key: bytes = b"n") -> Increment:
    """One more."""
    return Increment(AddNumber(key, 1))


def test_one_batch_of_the_engine() -> None:
    """Each has a revision of its own, in order, and none that wrote nothing."""
    scene = Scene(room=100, size=10_000)
    first = scene.storage.store.revision
    scene.storage.engine.calls.clear()
    asked = scene.ask_all(
        add(),
        add(),
        Set(b"n", b"10"),
        add(),
        ConditionalSet(SetValue(b"n", b""), FREE),
        Touch(TouchKey(b"n", 9)),
        add(),
    )
    assert len(scene.storage.engine.called("write")) == 1
    assert numbers([asked[number] for number in (0, 1, 3, 6)]) == [1, 2, 11, 12]
    revisions = [asked[number].result().revision - first for number in (0, 1, 3, 5, 6)]
    assert revisions == [1, 2, 4, 5, 6]
    assert asked[4].result() == Decided(failed_check=1, etag=etag_of(b"11"))
    assert scene.storage.index() == [(scene.storage.time.wall_ms + 9000, b"n")]
    assert scene.door.failed_conditions.value == 1
    # Who watches is told of each commit by itself.
    entry = scene.storage.writer.commits.history.entry(scene.storage.writer.commits.history.end - 1)
    assert entry is not None
    told_of = [(event.revision - first, event.value, event.is_last) for event in events_of(entry)]
    assert told_of == [
        (1, b"1", True), (2, b"2", True), (3, b"10", True), (4, b"11", True), (5, b"11", True), (6, b"12", True),
    ]  # fmt: skip


def test_touching_again_and_again_in_one_turn() -> None:
    """Only the last deadline has an entry."""
    scene = Scene(room=100, size=10_000, storage=Storage())
    scene.storage.store.set(b"n", b"1", 5)
    scene.storage.restart()
    scene = Scene(room=100, size=10_000, storage=scene.storage)
    scene.ask_all(*[Touch(TouchKey(b"n", 10 + number % 7)) for number in range(30)])
    assert len(scene.storage.index()) == 1


def test_what_finds_no_room() -> None:
    """As many as fit go in, those that came first; the others are told, and take nothing."""
    scene = Scene()
    asked = scene.ask_all(*[add() for _ in range(ROOM + 2)])
    assert [told(outcome) for outcome in asked[ROOM:]] == [Overloaded] * 2
    assert numbers(asked[:ROOM]) == list(range(1, ROOM + 1))


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (Increment(AddNumber(b"", 1)), InvalidKey),
        (Increment(AddNumber(b"k" * (MAX_KEY_BYTES + 1), 1)), InvalidKey),
        (Increment(AddNumber(b"k", 1, -1)), InvalidTtl),
        (Touch(TouchKey(b"k", -1)), InvalidTtl),
        (ConditionalSet(SetValue(b"k", b"", -1), FREE), InvalidTtl),
        (ConditionalSet(SetValue(b"k", b"x" * (MAX_VALUE_BYTES + 1)), FREE), TooLarge),
        (ConditionalSet(SetValue(b"k", b""), Condition(conditions.Test.ETAG, b"A" * 32)), InvalidRequest),
        (Touch(TouchKey(b"k", 1), Condition(conditions.Test.VALUE, b"x" * (MAX_VALUE_BYTES + 1))), TooLarge),
    ],
)
def test_what_is_no_good_is_told_alone(command: Command, error: type[KvError]) -> None:
    """Those beside it go in."""
    scene = Scene(size=1 << 22)
    asked = scene.ask_all(add(), command, add())
    assert told(asked[1]) is error
    assert numbers([asked[0], asked[2]]) == [1, 2]


@pytest.mark.parametrize("missing", ["set", "get"])
def test_rights(missing: str) -> None:
    """Those that it lacks the right for are refused, each by itself."""
    scene = Scene(grant("set,get", b"a/"), grant("set" if missing == "get" else "get", b"b/"))
    asked = scene.ask_all(add(b"a/n"), add(b"b/n"), Touch(TouchKey(b"b/n", 5)), add(b"a/n"))
    assert numbers([asked[0], asked[3]]) == [1, 2]
    assert told(asked[1]) is PermissionDenied
    # A Touch without a condition tells of no value.
    assert told(asked[2]) == (PermissionDenied if missing == "set" else Decided(mutated=((False, 0, False),)))  # type: ignore
    scene = Scene(grant("set,get", b"a/"))
    scene.storage.engine.calls.clear()
    assert numbers(scene.ask_all(add(b"a/n"), add(b"a/n"))) == [1, 2]
    assert len(scene.storage.engine.called("write")) == 1


def test_no_more_than_so_many_gather() -> None:
    """Then others begin."""
    scene = Scene(room=10_000, size=1 << 20)
    first = scene.ask(add())
    deciding = scene.session.deciding
    assert deciding is not None
    assert scene.door.waiting == 1
    for _ in range(GATHERED_SETS - 1):
        scene.ask(add())
    other = scene.session.gather_decisions("somebody", SECONDS, lambda *told: None)
    assert other is not None
    assert scene.session.deciding is other is not deciding
    other.mutations.append(AddNumber(b"n", 1))
    other.conditions.append(None)
    other.tokens.append(1)
    scene.run()
    assert first.result().only.value == 1


def test_several_who_wait() -> None:
    """Each is told of their own."""
    scene = Scene(room=100)
    told_of: dict[str, list[Any]] = {}

    def hear(name: str, tokens: Sequence[int], results: Sequence[Any]) -> None:
        told_of[name] = [(token, result.only.value) for token, result in zip(tokens, results)]

    for name, count in (("a", 2), ("b", 1), ("c", 3)):
        deciding = scene.session.gather_decisions(name, SECONDS, hear)
        assert deciding is not None
        for token in range(count):
            deciding.mutations.append(AddNumber(b"n", 1))
            deciding.conditions.append(None)
            deciding.tokens.append(token)
    scene.run()
    assert told_of == {"a": [(0, 1), (1, 2)], "b": [(0, 3)], "c": [(0, 4), (1, 5), (2, 6)]}


def test_what_has_to_be_read_first() -> None:
    """It is decided apart, in a thread, and told when that is done; the others at once."""
    scene = Scene(room=100, size=1 << 20)
    scene.storage.store.mset({b"large": b"x" * 20_000, b"n": b"1"})
    scene.storage.store.set(b"expired", b"1", 1)
    scene.storage.time.advance(1000)
    asked = [
        scene.ask(command)
        for command in (
            add(), ConditionalSet(SetValue(b"large", b"2"), TAKEN), add(), Touch(TouchKey(b"expired", 9)), add(),
        )
    ]  # fmt: skip
    scene.reactor.turn()
    assert numbers([asked[0], asked[2], asked[4]]) == [2, 3, 4]
    assert [asked[1].done, asked[3].done] == [None, None]
    assert scene.admission.in_flight == 2
    scene.run()
    assert asked[1].result().revision
    assert asked[3].result().only.found is False
    assert (scene.admission.in_flight, scene.admission.bytes) == (0, 0)
    assert scene.recorded == [("set", 1, False)] * 5


def test_large_values(tmp_path: Path) -> None:
    """What needs a file, or replaces one, goes by itself."""
    storage = Storage(files=ValueFiles(str(tmp_path)), spill_threshold=50, cache_bytes=1 << 20)
    scene = Scene(room=100, size=10_000, storage=storage)
    storage.store.set(b"filed", b"x" * 60)
    asked = scene.ask_all(
        add(), ConditionalSet(SetValue(b"new", b"y" * 70), FREE), ConditionalSet(SetValue(b"filed", b"1"), TAKEN),
        add(), Touch(TouchKey(b"filed", 5)),
    )  # fmt: skip
    assert numbers([asked[0], asked[3]]) == [1, 2]
    assert asked[1].result().revision
    assert asked[2].result().revision
    assert asked[4].result().only.found
    assert storage.value(b"new") == b"y" * 70
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_failure_is_told_to_each() -> None:
    """The batch's, to all that were in it."""
    scene = Scene()
    scene.storage.engine.fail("write", StorageError("broke"), times=1)
    asked = scene.ask_all(add(), ConditionalSet(SetValue(b"m", b""), TAKEN))
    assert [told(outcome) for outcome in asked] == [StorageError, StorageError]
    assert scene.recorded == [("set", 1, True)] * 2
    assert scene.health.reason() is not None


def test_a_failure_to_read_is_told_alone() -> None:
    """What memory cannot tell for a defect is that command's error."""
    scene = Scene()
    scene.storage.engine.fail("peek", StorageError("broke"), times=1)
    asked = scene.ask_all(add(), add())
    assert told(asked[0]) is StorageError
    assert numbers(asked[1:]) == [1]
    assert scene.health.reason() is None


def test_a_nearly_full_disk() -> None:
    """What stores something is refused; a condition that does not hold is told."""
    scene = Scene()
    scene.storage.store.set(b"m", b"")

    def refuse(size: int) -> None:
        raise NearlyFull("nearly full")

    scene.storage.writer._admit = refuse
    asked = scene.ask_all(add(), ConditionalSet(SetValue(b"m", b""), FREE), Set(b"k", b""), Set(b"l", b""))
    assert told(asked[0]) is told(asked[2]) is told(asked[3]) is NearlyFull
    assert asked[1].result().failed_check == 1
    assert scene.health.reason() is None


@pytest.mark.parametrize("why", ["durable", "stalled", "slow"])
def test_a_group_that_has_to_wait(why: str) -> None:
    """Each is a write of its own then, in the same order, beside what else there is."""
    scene = Scene(room=100)
    if why == "durable":
        scene.storage.writer.durable = True
    elif why == "stalled":
        scene.storage.engine.fail("write", WriteStalled("stalled"), times=1)
    else:
        scene.storage.engine.slow = True
    asked = scene.ask_all(add(), Set(b"k", b""), add(), ConditionalSet(SetValue(b"n", b""), FREE), add())
    assert numbers([asked[0], asked[2], asked[4]]) == [1, 2, 3]
    assert asked[3].result().failed_check == 1


def test_a_backend_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing gathers."""
    scene = Scene()
    monkeypatch.setattr(scene.door, "_capabilities", frozenset({""}))
    assert scene.session.gather_decisions("waiter", SECONDS, tell) is None
    assert scene.session.deciding is None
