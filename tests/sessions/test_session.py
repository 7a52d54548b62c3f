"""Access control beneath the transports: nothing unlisted, nothing half, nothing told."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest

from kvtwisted.commands import conditions
from kvtwisted.commands.administration import CollectOrphans, CreateBackup, ListBackups, PlanEviction
from kvtwisted.commands.command import Actor, Command, WriteCommand
from kvtwisted.commands.conditional import ConditionalDelete, ConditionalSet, Increment, Touch
from kvtwisted.commands.conditions import Condition
from kvtwisted.commands.configuration import UpdateConfig
from kvtwisted.commands.delete_range import DeleteRange
from kvtwisted.commands.get import Get
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.mutations import AddNumber, DeleteKey, SetValue, TouchKey
from kvtwisted.commands.set import Set
from kvtwisted.commands.transact import Transact
from kvtwisted.core.errors import InvalidKey, KvError, NotANumber, Overloaded, PermissionDenied, RateLimited
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.buckets import Limiter, Rate
from kvtwisted.sessions.grants import ADMIN, METRICS, OPERATIONS, Grant, Principal

from ..support.doors import Blocking, Doorway
from ..support.storage import PLENTY, Storage
from .support import EVERYTHING, ManualTime, grant

#: One call of each method, by the key or prefix that it is about.
CALLS: dict[str, Callable[[Any, bytes], Any]] = {
    "get": lambda access, key: access.get(key),
    "get_now": lambda access, key: access.get_now(key),
    "mget": lambda access, key: access.mget([key], budget=PLENTY),
    "set": lambda access, key: access.set(key, b"v"),
    "mset": lambda access, key: access.mset({key: b"v"}),
    "delete": lambda access, key: access.delete(key),
    "mdelete": lambda access, key: access.mdelete([key]),
    "scan": lambda access, key: access.scan(key, budget=PLENTY),
    "touch": lambda access, key: access.run(Touch(TouchKey(key, 60))),
}
#: The same for those that are about no key, with what they require.
KEYLESS_CALLS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "get_config": ("config_read", lambda access: access.get_config()),
    "update_config": ("config_write", lambda access: access.update_config({"a": 2})),
    "update_config as text": ("config_write", lambda access: access.update_config('{"a": 2}')),
    "backup": ("admin", lambda access: access.run(CreateBackup(None))),
    "list of backups": ("admin", lambda access: access.run(ListBackups())),
    "eviction dry run": ("admin", lambda access: access.run(PlanEviction())),
    "collection of orphans": ("admin", lambda access: access.run(CollectOrphans())),
}
#: Which right each takes.
METHODS = {
    "get": "get", "get_now": "get", "mget": "get", "set": "set", "mset": "set", "delete": "delete", "mdelete": "delete",
    "scan": "scan", "touch": "set",
}  # fmt: skip


class Scene(Doorway):
    """A door over a store in memory, with three keys."""

    def __init__(self) -> None:
        super().__init__(Storage(cache_bytes=1 << 20))
        self.operations = self.blocking()
        for key in (b"a/1", b"ab", b"b/1"):
            self.operations.set(key, b"old")
        self.recorder.operations.clear()

    def access(self, *grants: Grant, **options: Any) -> Blocking:
        """For a principal with these grants."""
        return self.blocking(self.make_session(*grants, **options))


@pytest.fixture
def scene() -> Scene:
    """A new one."""
    return Scene()


@pytest.mark.parametrize("name", CALLS)
def test_nobody_may_do_anything(scene: Scene, name: str) -> None:
    """Without a grant every method on keys is refused; nothing is written, nothing counted."""
    before = scene.storage.data()
    for key in (b"a/1", b"missing", b"", b"x" * 5000):
        with pytest.raises(PermissionDenied):
            CALLS[name](scene.access(), key)
    assert (scene.storage.data(), scene.recorder.operations) == (before, [])


def test_nobody_may_do_nothing_either(scene: Scene) -> None:
    """A batch without keys takes the right as well."""
    nobody = scene.access()
    for call in (lambda: nobody.mget([], budget=PLENTY), lambda: nobody.mset({}), lambda: nobody.mdelete([])):
        with pytest.raises(PermissionDenied):
            call()


@pytest.mark.parametrize("name", KEYLESS_CALLS)
def test_keyless_methods(scene: Scene, name: str) -> None:
    """Each takes its own right, and all the others together do not make up for it."""
    needed, call = KEYLESS_CALLS[name]
    others = Grant(frozenset(OPERATIONS) - {needed})
    for access in (scene.access(), scene.access(others)):
        with pytest.raises(PermissionDenied, match=r"^the token does not allow this$"):
            call(access)
    assert json.loads(scene.configuration.show()) == {"a": 1}
    call(scene.access(Grant(frozenset([needed]))))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("limited", [False, True], ids=["without a rate", "with a rate"])
def test_each_method_takes_its_right(scene: Scene, name: str, limited: bool) -> None:
    """With it and the prefix it works; with any other right, or beside the prefix, it does not. A rate is no matter."""
    right = METHODS[name]
    limiter = Limiter(Rate(1000, 1_000_000)) if limited else None

    def access(*grants: Grant) -> Blocking:
        return scene.access(*grants, limiter=limiter)

    CALLS[name](access(grant(right, b"a/")), b"a/1")
    CALLS[name](access(grant(right)), b"b/1")
    for key in (b"ab", b"a", b"b/1", b"A/1"):
        with pytest.raises(PermissionDenied):
            CALLS[name](access(grant(right, b"a/")), key)
    with pytest.raises(PermissionDenied):
        CALLS[name](access(Grant(frozenset(OPERATIONS) - {right})), b"a/1")


@pytest.mark.parametrize("name", CALLS)
def test_prefix_a_covers_key_ab(scene: Scene, name: str) -> None:
    """Prefixes are bytes."""
    CALLS[name](scene.access(grant(METHODS[name], b"a")), b"ab")


def test_a_batch_with_one_forbidden_key(scene: Scene) -> None:
    """It is refused whole: nothing is written, nothing read, and the key is not named."""
    access = scene.access(grant("get,set,delete", b"a"))
    before = scene.storage.data()
    for call in (
        lambda: access.mset({b"a/1": b"new", b"secret-key": b"x", b"ab": b"new"}),
        lambda: access.mdelete([b"a/1", b"secret-key"]),
        lambda: access.mget([b"a/1", b"secret-key"], budget=PLENTY),
    ):
        with pytest.raises(PermissionDenied) as refused:
            call()
        assert "secret" not in str(refused.value)
        assert "a/1" not in str(refused.value)
    assert scene.storage.data() == before
    access.mset({b"a/1": b"new", b"ab": b"new"})
    assert access.mget([b"a/1", b"ab"], budget=PLENTY) == {b"a/1": b"new", b"ab": b"new"}


@pytest.mark.parametrize("name", CALLS)
def test_refusals_tell_nothing(scene: Scene, name: str) -> None:
    """The same words for a key that exists and one that does not, neither of them looked at."""
    sentences = set()
    for key in (b"b/1", b"b/2"):
        with pytest.raises(PermissionDenied) as refused:
            CALLS[name](scene.access(grant(METHODS[name], b"a/")), key)
        sentences.add(str(refused.value))
    assert len(sentences) == 1


def test_scans_across_the_border(scene: Scene) -> None:
    """A scan lies inside a grant; one that would reach beyond is refused and not cut."""
    access = scene.access(grant("scan", b"a/"), grant("scan", b"b/"))
    assert [key for key, _ in access.scan(b"a/", budget=PLENTY).items] == [b"a/1"]
    assert access.scan(b"a/2", budget=PLENTY).items == []
    for prefix in (b"", b"a", b"ab", b"b"):
        with pytest.raises(PermissionDenied):
            access.scan(prefix, budget=PLENTY)
    # A cursor cannot lead out of the prefix.
    assert access.scan(b"a/", cursor=b"a/1", budget=PLENTY).items == []
    assert access.scan(b"a/", cursor=b"b", budget=PLENTY).items == []
    assert [key for key, _ in access.scan(b"b/", cursor=b"a", budget=PLENTY).items] == [b"b/1"]


def test_arguments_are_passed_on(scene: Scene) -> None:
    """All of them, also where there is something to check."""
    access = scene.access(grant("get,set,delete,scan", b"a"))
    access.set(b"a", b"1", 5, deadline=1e18)
    found = access.get(b"a", deadline=1e18)
    assert found is not None
    assert (found.value, found.ttl) == (b"1", 5)
    access.mset({b"a2": b"2"}, 7, deadline=1e18)
    assert access.get_now(b"a2")[1] == (b"2", 7)
    page = access.scan(b"a", cursor=b"a", limit=1, keys_only=True, budget=PLENTY, deadline=1e18)
    assert (page.items, page.next_cursor) == ([(b"a/1", b"")], b"a/1")
    with pytest.raises(InvalidKey):
        scene.access(grant("get")).get(b"")


def test_full_rights_cost_nothing(scene: Scene) -> None:
    """A Get that needs no check goes through the door at once."""
    assert scene.access(grant("get")).session.get_now == scene.door.get_now
    assert scene.access(grant("get", b"a")).session.get_now != scene.door.get_now


def test_require(scene: Scene) -> None:
    """For what is no operation of the store."""
    session = scene.make_session(grant("metrics"))
    session.require(METRICS, "")
    with pytest.raises(PermissionDenied):
        session.require(ADMIN, "")


def test_refusals_are_told(scene: Scene) -> None:
    """Each once, with who and what, so that it can be written down."""
    told: list[tuple[str, str]] = []
    access = scene.access(grant("set", b"a"), refused=lambda who, address, what, error: told.append((who, what)))
    for call in (lambda: access.get(b"a"), lambda: access.mset({b"b": b"", b"c": b""}), access.get_config):
        with pytest.raises(PermissionDenied):
            call()
    access.set(b"a", b"")
    assert told == [("p", "get"), ("p", "set"), ("p", "config_read")]


@pytest.mark.parametrize("name", [name for name, operation in METHODS.items() if operation in ("set", "delete")])
def test_writes_of_all_are_told(scene: Scene, name: str) -> None:
    """Also of who may do everything: each once, with who, what and which keys. Reads are not."""
    told: list[tuple[str, str, list[bytes]]] = []
    access = scene.access(EVERYTHING, written=lambda who, what, keys: told.append((who.name, what, list(keys))))
    CALLS["get"](access, b"a/1")
    CALLS[name](access, b"a/1")
    assert told == [("p", METHODS[name], [b"a/1"])]


_FREE = Condition(conditions.Test.ABSENT)


@pytest.mark.parametrize(
    ("command", "operations"),
    [
        (lambda key: ConditionalSet(SetValue(key, b"1"), _FREE), {"set", "get"}),
        (lambda key: ConditionalDelete(DeleteKey(key), _FREE), {"delete", "get"}),
        (lambda key: Touch(TouchKey(key, 5)), {"set"}),
        (lambda key: Touch(TouchKey(key, 5), _FREE), {"set", "get"}),
        (lambda key: Increment(AddNumber(key, 1)), {"set", "get"}),
        (lambda key: Transact([(key, _FREE)], []), {"get"}),
        (lambda key: Transact([], [SetValue(b"a/2", b""), AddNumber(key, 1)]), {"set", "get"}),
        (lambda key: Transact([], [SetValue(b"a/2", b""), DeleteKey(key)]), {"delete"}),
        (lambda key: Transact([], [SetValue(b"a/2", b""), TouchKey(key, 5)]), {"set"}),
    ],
)
def test_what_decides_needs_the_right_to_what_it_tells(
    scene: Scene, command: Callable[[bytes], WriteCommand], operations: set[str]
) -> None:
    """Conditions and numbers tell of values, so that they need `get` too: for each key, and each right alone is needed.

    The refusal says what is missing, and nothing of what is stored.
    """
    sentences = {"get": "reading", "set": "writing", "delete": "deleting"}
    told: list[str] = []

    def refused(who: str, address: str, what: str, error: KvError) -> None:
        told.append(what)

    base = grant("set", b"a/2")
    scene.access(base, *[grant(operation, b"a/") for operation in operations]).run(command(b"a/new"))
    for missing in operations:
        others = [grant(operation, b"a/") for operation in operations - {missing}]
        access = scene.access(base, *others, grant(missing, b"a/2"), refused=refused)
        for key in (b"a/1", b"a/none"):
            with pytest.raises(PermissionDenied, match=f"^the token does not allow {sentences[missing]} every key of"):
                access.run(command(key))
            assert told.pop() == missing
    assert scene.admission.in_flight == 0


def test_what_a_transaction_changes_is_told(scene: Scene) -> None:
    """By the right that it takes; not what it only checks."""
    told: list[tuple[str, list[bytes]]] = []
    access = scene.access(EVERYTHING, written=lambda who, what, keys: told.append((what, list(keys))))
    access.run(Transact([(b"a/1", _FREE)], [SetValue(b"s", b""), DeleteKey(b"d")]))
    assert told == [("set", [b"s"]), ("delete", [b"d"])]


def test_what_decides_is_counted(scene: Scene) -> None:
    """As what it is; a condition that does not hold is no failure, and counted besides."""
    access = scene.access(EVERYTHING)
    access.run(ConditionalSet(SetValue(b"a/1", b""), _FREE))
    access.run(ConditionalDelete(DeleteKey(b"a/1"), _FREE))
    access.run(Transact([(b"a/1", _FREE)], [SetValue(b"b", b""), SetValue(b"c", b"")]))
    access.run(Touch(TouchKey(b"a/1", 5)))
    with pytest.raises(NotANumber):
        access.run(Increment(AddNumber(b"a/1", 1)))
    assert [tuple(recorded) for recorded in scene.recorder.operations] == [
        ("set", 1, False), ("delete", 1, False), ("set", 3, False), ("set", 1, False), ("set", 1, True),
    ]  # fmt: skip
    assert scene.door.failed_conditions.value == 3


class Limited:
    """An access with a rate, and its time."""

    def __init__(self, scene: Scene, rate: Rate, *grants: Grant) -> None:
        self.time = ManualTime()
        principal = Principal("p", grants or (EVERYTHING,), limiter=Limiter(rate))
        self.access = scene.access(principal=principal, limiter=principal.limiter, seconds=self.time)


@pytest.mark.parametrize("name", [*CALLS, *KEYLESS_CALLS])
def test_every_method_takes_from_the_rate(scene: Scene, name: str) -> None:
    """One operation for each call of one key; over the rate nothing is done, and the error says when to come back."""
    limited = Limited(scene, Rate(2))

    def call() -> Any:
        if name in CALLS:
            return CALLS[name](limited.access, b"a/1")
        return KEYLESS_CALLS[name][1](limited.access)

    call()
    call()
    before, counted = scene.storage.data(), len(scene.recorder.operations)
    with pytest.raises(RateLimited) as refused:
        call()
    assert refused.value.retry_after == pytest.approx(0.5)
    assert (scene.storage.data(), len(scene.recorder.operations)) == (before, counted)
    limited.time.now += 0.5
    call()


def test_batches_take_as_many_as_they_have_keys(scene: Scene) -> None:
    """An empty one takes one."""
    limited = Limited(scene, Rate(10))
    limited.access.mget([b"a/1"] * 9, budget=PLENTY)
    limited.access.mget([], budget=PLENTY)
    with pytest.raises(RateLimited):
        limited.access.mget([], budget=PLENTY)


def test_bytes_are_counted_both_ways(scene: Scene) -> None:
    """Of keys and values in requests, and of values, and scanned keys, in answers."""
    limited = Limited(scene, Rate(0, 1000))
    scene.operations.set(b"a/big", b"x" * 5000)
    reads: list[tuple[Callable[[], Any], int]] = [
        (lambda: limited.access.get(b"a/big"), 5005),
        (lambda: limited.access.get_now(b"a/big"), 5005),
        (lambda: limited.access.mget([b"a/big"], budget=PLENTY), 5005),
        (lambda: limited.access.scan(b"a/b", budget=PLENTY), 5008),
        (lambda: limited.access.set(b"k", b"x" * 5000), 5001),
        (lambda: limited.access.mset({b"k": b"x" * 5000, b"l": b""}), 5002),
        (lambda: limited.access.delete(b"a" * 1000), 1000),
    ]
    for read, size in reads:
        limited.time.now += 1000
        read()
        with pytest.raises(RateLimited) as refused:
            limited.access.set(b"k", b"x" * 999)
        # The bucket holds 1000 bytes: it is owed the rest, and needs 1000 more.
        assert refused.value.retry_after == pytest.approx(size / 1000)


def test_a_get_that_memory_cannot_answer_counts_once(scene: Scene) -> None:
    """`get_now` that does not know takes nothing; the `get` that follows does."""
    scene.storage.engine.slow = True
    limited = Limited(scene, Rate(1))
    assert limited.access.get_now(b"cold") == (False, None)
    assert limited.access.get(b"cold") is None
    with pytest.raises(RateLimited):
        limited.access.get_now(b"cold")


# The order in which a command is looked at; see Note [The order of admission].


class Told:
    """A session with a rate, and all that is told of it."""

    def __init__(self, scene: Scene, rate: Rate, *grants: Grant) -> None:
        self.scene = scene
        self.refused: list[str] = []
        self.written: list[list[bytes]] = []
        principal = Principal("p", grants or (EVERYTHING,), limiter=Limiter(rate))
        self.session = scene.make_session(
            principal=principal, limiter=principal.limiter, seconds=ManualTime(),
            refused=lambda who, address, what, error: self.refused.append(what),
            written=lambda who, what, keys: self.written.append(list(keys)),
        )  # fmt: skip

    def refuse(self, command: Command) -> Exception:
        """What refuses it."""
        with pytest.raises(KvError) as refused:
            self.scene.submit(command, self.session)
        return refused.value


def test_want_of_room_costs_nothing(scene: Scene) -> None:
    """What finds no room has taken nothing from the rate, and is not audited as a write."""
    told = Told(scene, Rate(1))
    told.session.admission = Admission(0)
    for _ in range(3):
        assert isinstance(told.refuse(Set(b"k", b"v")), Overloaded)
    assert (told.refused, told.written) == ([], [])
    told.session.admission = scene.admission
    scene.submit(Set(b"k", b"v"), told.session)
    assert told.written == [[b"k"]]


def test_what_is_over_the_rate_is_told_so_before_its_rights(scene: Scene) -> None:
    """And what is refused for a key has cost what it would have."""
    told = Told(scene, Rate(3), grant("set", b"a/"))
    assert isinstance(told.refuse(MSet({b"a/1": b"", b"b": b"", b"c": b""})), PermissionDenied)
    assert isinstance(told.refuse(Set(b"b", b"")), RateLimited)
    assert (told.refused, told.written) == (["set", "rate"], [])


def test_rights_come_before_the_limits_of_what_is_asked(scene: Scene) -> None:
    """Who may not set a key learns nothing of what is wrong with it; who may is told, and it has cost."""
    told = Told(scene, Rate(2), grant("set", b"a/"))
    assert isinstance(told.refuse(Set(b"k" * 5000, b"")), PermissionDenied)
    assert isinstance(told.refuse(Set(b"a/" * 5000, b"")), InvalidKey)
    assert isinstance(told.refuse(Set(b"a/", b"")), RateLimited)


def test_what_is_charged_before_it_is_read(scene: Scene) -> None:
    """An operation and its bytes; given back, all of it is there again."""
    told = Told(scene, Rate(2, 100))
    told.session.charge(90)
    with pytest.raises(RateLimited):
        scene.submit(Set(b"k", b"x" * 20), told.session)
    told.session.give_back(90)
    scene.submit(Set(b"k", b"x" * 99), told.session)
    told.session.check_rate()
    told.session.check_rate()
    told.session.charge(1000)
    for call in (told.session.check_rate, lambda: told.session.charge(0)):
        with pytest.raises(RateLimited):
            call()
    assert told.refused == ["rate"] * 3


def test_bytes_of_answers_are_taken_when_they_are_there(scene: Scene) -> None:
    """Also when the answer is encoded where it was made, and from a session that waits for a thread."""
    scene.storage.engine.slow = True
    scene.operations.set(b"a/big", b"x" * 5000)
    told = Told(scene, Rate(0, 1000))
    get = Get(b"a/big", encode=lambda found: b"ok")
    outcome = scene.submit(get, told.session)
    told.session.check_rate()
    scene.run()
    assert outcome.result() == b"ok"
    with pytest.raises(RateLimited) as refused:
        told.session.check_rate()
    # 5005 bytes, of 1000 a second that were there.
    assert refused.value.retry_after == pytest.approx(4.005, abs=0.01)


@pytest.mark.parametrize(("granted", "administers"), [("config_write", False), ("config_write,admin", True)])
def test_the_configuration_is_told_who_changes_it(scene: Scene, granted: str, administers: bool) -> None:
    """By name, and whether guarded keys may be among the changes; a codec cannot say so itself."""
    actors: list[Actor] = []
    update = scene.configuration.update

    def seen(change: Any, actor: Actor) -> list[str]:
        actors.append(actor)
        return update(change)

    scene.configuration.update = seen  # type: ignore[assignment]
    for change in ({"a": 2}, '{"a": 3}'):
        command = UpdateConfig(change)
        command.actor = Actor("somebody else", administers=True)
        scene.submit(command, scene.make_session(grant(granted)))
    scene.run()
    assert actors == [Actor("p", administers)] * 2


@pytest.mark.parametrize(
    ("command", "deleted"),
    [
        (DeleteRange(b"a/"), 1),
        (DeleteRange(b"a/1", b"a/1x"), 0),
        (DeleteRange(start=b"a/", end=b"a0"), 1),
        (DeleteRange(start=b"a/", end=b"a0\0"), None),
        (DeleteRange(b"a"), None),
        (DeleteRange(start=b"a/"), None),
        (DeleteRange(b"a/", dry_run=True), 1),
        (DeleteRange(everything=True), None),
        (DeleteRange(everything=True, dry_run=True), None),
    ],
)
def test_a_range_needs_the_right_over_all_of_it(scene: Scene, command: DeleteRange, deleted: int | None) -> None:
    """Not only over the keys that are there; also to count them."""
    access = scene.access(grant("delete", prefix=b"a/"))
    if deleted is None:
        with pytest.raises(PermissionDenied):
            access.run(command)
    else:
        assert access.run(command).deleted == deleted
    assert len(scene.storage.data()) == 3 - (0 if command.dry_run else deleted or 0)


def test_a_deleted_range_is_charged_by_key_and_noted(scene: Scene) -> None:
    """Afterwards, when that is known; the log of writes has where it begins and ends."""
    written: list[tuple[str, str, list[bytes]]] = []
    principal = Principal("p", (EVERYTHING,), limiter=Limiter(Rate(2)))
    access = scene.access(
        principal=principal,
        limiter=principal.limiter,
        seconds=ManualTime(),
        written=lambda who, operation, keys: written.append((who.name, operation, list(keys))),
    )
    assert access.run(DeleteRange(everything=True, dry_run=True)).deleted == 3
    assert written == []
    assert access.run(DeleteRange(everything=True)).deleted == 3
    assert written == [("p", "delete_range", [b"", b""])]
    assert tuple(scene.recorded[-1]) == ("delete", 3, False)
    with pytest.raises(RateLimited):
        access.run(Get(b"a"))
