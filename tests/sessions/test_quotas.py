"""Quotas: what a principal keeps is known, and a write that would be too much is refused, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.commands import conditions
from kvtwisted.commands.command import Command
from kvtwisted.commands.conditional import ConditionalDelete, ConditionalSet, Increment, Touch
from kvtwisted.commands.conditions import Condition
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.mdelete import MDelete
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.mutations import AddNumber, DeleteKey, SetValue, TouchKey
from kvtwisted.commands.set import Set
from kvtwisted.commands.transact import Transact
from kvtwisted.core.errors import InvalidKey, Overloaded, QuotaExceeded, RateLimited, StorageError
from kvtwisted.sessions import quotas
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.authority import Authority
from kvtwisted.sessions.buckets import Limiter, Rate
from kvtwisted.sessions.grants import Principal
from kvtwisted.sessions.quotas import Quota, Usage, outermost
from kvtwisted.sessions.weighing import WEIGHED_NOW

from ..support.doors import Blocking, Doorway
from ..support.properties import repeatable
from ..support.storage import Storage
from .support import ManualTime, grant, made

GRANT = grant("get,set,delete", b"a/")


class Scene(Doorway):
    """Somebody who may keep so much under `a/`, at a door over a store in memory."""

    def __init__(
        self,
        quota: Quota,
        *,
        slow: bool = False,
        storage: Storage | None = None,
        limiter: Limiter | None = None,
        **options: Any,
    ) -> None:
        """`slow`: what is stored is never known at once."""
        super().__init__(storage, slow=slow)
        self.usage = Usage("app", quota, [b"a/"])
        self.app = self.make_session(
            principal=Principal("app", [GRANT], usage=self.usage, limiter=limiter), limiter=limiter, **options
        )
        self.calls: Blocking = self.blocking(self.app)

    @property
    def used(self) -> tuple[int, int]:
        """Bytes and keys."""
        return self.usage.size, self.usage.keys

    @property
    def stored(self) -> tuple[int, int]:
        """The same, counted."""
        piece = self.backend.measure(b"a/", b"")
        assert piece.following is None
        return piece.size, piece.keys


@pytest.fixture(params=[False, True], ids=["known", "looked up"])
def make(request: pytest.FixtureRequest) -> Callable[..., Scene]:
    """Makes scenes: in which memory knows what is stored, and in which that takes a thread."""
    return lambda *quota, **options: Scene(Quota(*quota), slow=request.param, **options)


def test_too_many_bytes(make: Callable[..., Scene]) -> None:
    """What would be too much is refused with quota, use and limit; what adds nothing goes on, and so do deletes."""
    scene = make(100)
    scene.calls.set(b"a/1", b"v" * 47)
    scene.calls.set(b"a/2", b"v" * 47)
    assert scene.used == scene.stored == (100, 2)
    with pytest.raises(QuotaExceeded) as refused:
        scene.calls.set(b"a/3", b"v")
    assert str(refused.value) == (
        "over the token's quota: quota.bytes is 100, 100 bytes are in use, this write adds 4; "
        "deletes, and writes that add nothing, go on"
    )
    with pytest.raises(QuotaExceeded):
        scene.calls.set(b"a/2", b"v" * 48)
    scene.calls.set(b"a/2", b"w" * 47)
    scene.calls.set(b"a/2", b"w" * 40, 60)
    assert scene.used == scene.stored == (93, 2)
    with pytest.raises(QuotaExceeded):
        scene.calls.mset({b"a/2": b"", b"a/4": b"v" * 50})
    scene.calls.delete(b"a/1")
    scene.calls.delete(b"a/1")
    scene.calls.mset({b"a/4": b"v" * 50, b"a/2": b""})
    assert scene.used == scene.stored == (56, 2)
    assert scene.usage.refused == 3


def test_too_many_keys(make: Callable[..., Scene]) -> None:
    """However small they are."""
    scene = make(0, 2)
    scene.calls.mset({b"a/1": b"", b"a/2": b""})
    for pairs in ({b"a/3": b""}, {b"a/1": b"v", b"a/3": b""}):
        with pytest.raises(QuotaExceeded, match=r"quota.keys is 2, 2 keys are in use, this write adds 1;"):
            scene.calls.mset(pairs)
    scene.calls.set(b"a/1", b"v" * 1000)
    scene.calls.mdelete([b"a/1", b"a/1", b"a/9"])
    scene.calls.set(b"a/3", b"")
    assert scene.used == scene.stored == (6, 2)


def test_who_is_over_the_quota_can_get_back(make: Callable[..., Scene]) -> None:
    """Others wrote, or it was lowered: what adds nothing goes on."""
    scene = make(1000)
    scene.calls.mset({b"a/%d" % number: b"v" * 10 for number in range(10)})
    scene.usage.quota = Quota(50, 3)
    assert scene.usage.fill > 2
    scene.calls.set(b"a/1", b"w" * 10)
    scene.calls.mset({b"a/1": b"w" * 5, b"a/2": b"w" * 15})
    with pytest.raises(QuotaExceeded):
        scene.calls.set(b"a/1", b"v" * 6)
    scene.calls.mdelete([b"a/%d" % number for number in range(8)])
    scene.calls.set(b"a/1", b"v")
    assert scene.used == scene.stored


def test_a_large_batch_is_looked_up_in_a_thread() -> None:
    """On the reactor thread it would take long."""
    scene = Scene(Quota(0, 1000))
    pairs = {b"a/%d" % number: b"v" for number in range(WEIGHED_NOW + 1)}
    for _ in range(2):
        outcome = scene.submit(MSet(pairs), scene.app)
        assert (scene.backend.waiting, scene.admission.in_flight) == (1, 1)
        scene.run()
        assert outcome.result() is None
    assert scene.used == scene.stored
    assert scene.admission.in_flight == 0


def test_what_fails_is_not_counted(make: Callable[..., Scene]) -> None:
    """Whether it is refused for what it is, or by the storage."""
    scene = make(10_000)
    with pytest.raises(InvalidKey):
        scene.calls.set(b"a/" + b"k" * 5000, b"v")
    for method in ("write", "put"):
        scene.storage.engine.fail(method, StorageError("broken"))
    with pytest.raises(StorageError):
        scene.calls.set(b"a/1", b"v")
    assert scene.used == (0, 0)
    assert scene.usage._under_way == {}


_FREE = Condition(conditions.Test.ABSENT)


def test_what_decides_is_counted_as_it_came_out(make: Callable[..., Scene]) -> None:
    """What it might store is weighed before; what it has stored is looked at."""
    scene = make(100, 5)
    run = scene.calls.run
    for number in range(1, 12):
        assert run(Increment(AddNumber(b"a/n", 1))).only.value == number
        assert scene.used == scene.stored == (3 + len(str(number)), 1)
    assert run(ConditionalSet(SetValue(b"a/n", b"x" * 50), _FREE)).failed_check == 1
    assert run(ConditionalSet(SetValue(b"a/k", b"12345"), _FREE)).revision
    assert run(Touch(TouchKey(b"a/k", 10))).only.found
    assert scene.used == scene.stored == (13, 2)
    with pytest.raises(QuotaExceeded, match=r"quota\.bytes is 100, 13 bytes are in use, this write adds 103"):
        run(ConditionalSet(SetValue(b"a/new", b"x" * 98), _FREE))
    run(Transact([], [DeleteKey(b"a/n"), SetValue(b"a/k", b"1"), DeleteKey(b"a/none"), SetValue(b"a/l", b"")]))
    assert scene.used == scene.stored == (7, 2)
    assert run(ConditionalDelete(DeleteKey(b"a/k"), Condition(conditions.Test.PRESENT))).revision
    assert scene.used == scene.stored == (3, 1)


def test_a_failing_look_is_the_write_s_failure() -> None:
    """It is told to who waits, and nothing is kept of it."""
    scene = Scene(Quota(1000), slow=True)
    scene.storage.engine.fail("get", StorageError("broken"))
    told: list[None] = []
    scene.door.on_settled(lambda: told.append(None))
    with pytest.raises(StorageError):
        scene.calls.set(b"a/1", b"v")
    assert (scene.admission.in_flight, scene.admission.bytes, len(told)) == (0, 0, 1)


def test_what_is_under_way_is_reckoned_with(make: Callable[..., Scene]) -> None:
    """Many deletes of one key at once take it away once, many writes of a new one count once."""
    scene = make(1000)
    scene.calls.set(b"a/1", b"v" * 500)
    for _ in range(20):
        scene.submit(Delete(b"a/1"), scene.app)
    for size in (100, 200, 150):
        scene.submit(Set(b"a/2", b"v" * size), scene.app)
    scene.run()
    assert scene.used == scene.stored == (153, 1)
    assert scene.usage._under_way == {}


def test_nothing_slips_through_at_once(make: Callable[..., Scene]) -> None:
    """Of many new keys in one turn as many are let in as there is room for."""
    scene = make(0, 5)
    refused = 0
    outcomes = []
    for number in range(20):
        try:
            outcomes.append(scene.submit(Set(b"a/%d" % number, b""), scene.app))
        except QuotaExceeded:
            refused += 1
    scene.run()
    refused += sum(isinstance(outcome.done and outcome.done.error, QuotaExceeded) for outcome in outcomes)
    assert (refused, scene.stored) == (15, scene.used)
    assert scene.usage.keys == 5


KEYS = st.sampled_from([b"a/%d" % number for number in range(6)])
VALUES = st.binary(max_size=3).map(lambda data: data.hex().encode())
COMMANDS = st.one_of(
    st.builds(Set, KEYS, VALUES, st.sampled_from([0, 60])),
    st.builds(MSet, st.dictionaries(KEYS, VALUES, min_size=1)),
    st.builds(Delete, KEYS),
    st.builds(MDelete, st.lists(KEYS, min_size=1)),
)


#: A command, and what happens before the next: turns of the reactor, and jobs of the pool.
STEPS = st.tuples(COMMANDS, st.integers(0, 1), st.integers(0, 2))


@repeatable
@given(st.lists(STEPS, max_size=20), st.booleans(), st.integers(0, 40), st.integers(0, 4))
def test_what_is_used_is_known(steps: list[tuple[Command, int, int]], slow: bool, size: int, keys: int) -> None:
    """Of whoever writes alone, to the byte, whatever is under way together; and it is never over the quota."""
    scene = Scene(Quota(size, keys), slow=slow)
    for command, turns, jobs in steps:
        scene.asking(scene.app).submit(command)
        for _ in range(turns):
            scene.reactor.turn()
        for _ in range(min(jobs, scene.pool.waiting)):
            scene.pool.run_one()
        assert scene.usage.fill <= 1
    scene.run()
    assert scene.used == scene.stored
    assert scene.usage.fill <= 1
    assert (scene.usage._under_way, scene.usage._changed, scene.usage._looking) == ({}, {}, 0)
    assert (scene.admission.in_flight, scene.admission.bytes) == (0, 0)


def test_a_look_that_was_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before another write of the same key ended is read again: many deletes take it away once."""
    scene = Scene(Quota(1000), slow=True)
    scene.calls.mset({b"a/1": b"v" * 300, b"a/2": b"v" * 300})
    looks: list[Callable[[], object]] = []

    def sizes(keys: Sequence[bytes], owner: object, told: Callable[[Any], object]) -> None:
        looks.append(partial(told, scene.storage.store.sizes(keys)))

    monkeypatch.setattr(scene.backend, "sizes", sizes)
    outcomes = [scene.submit(Delete(b"a/1"), scene.app) for _ in range(5)]
    outcomes.append(scene.submit(Set(b"a/2", b""), scene.app))
    while looks:
        looks.pop(0)()
        scene.run()
    assert [outcome.result() for outcome in outcomes] == [None] * 6
    assert scene.used == scene.stored == (3, 1)


def test_a_batch_is_not_overtaken_for_ever() -> None:
    """Whoever writes one key of it in every turn does not keep it from being let in."""
    scene = Scene(Quota(0, 1000))
    scene.calls.set(b"a/0", b"v")
    outcome = scene.submit(MSet({b"a/%d" % number: b"new" for number in range(WEIGHED_NOW + 1)}), scene.app)
    for number in range(5):
        scene.submit(Set(b"a/0", b"v" * number), scene.app)
        scene.reactor.turn()
        if scene.pool.waiting:
            scene.pool.run_one()
    assert outcome.result() is None
    scene.run()
    assert scene.used == scene.stored == (sum(len(b"a/%d" % n) + 3 for n in range(1, WEIGHED_NOW + 1)) + 7, 65)


def test_deletes_elsewhere_make_no_room(make: Callable[..., Scene]) -> None:
    """What lies outside of the prefixes that it may write does not count, so that it does not count when it goes."""
    scene = make(100)
    scene.app = scene.make_session(
        principal=Principal("app", [grant("set", b"a/"), grant("delete", b"")], usage=scene.usage)
    )
    calls = scene.blocking(scene.app)
    scene.blocking().mset({b"b/1": b"v" * 500, b"b/2": b"v" * 500})
    calls.set(b"a/1", b"v" * 97)
    calls.delete(b"b/1")
    calls.mdelete([b"b/2", b"b/3"])
    assert scene.used == scene.stored == (100, 1)


def _with_files(folder: Path) -> Storage:
    """Values of a thousand bytes get files, which are written in a thread."""
    return Storage(files=ValueFiles(str(folder)), spill_threshold=1000)


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "looked up"])
@pytest.mark.parametrize("sizes", [(5000, 1), (1, 5000), (5000, 1, 6000, 2)])
def test_writes_that_overtake_each_other(sizes: Sequence[int], is_known: bool, tmp_path: Path) -> None:
    """What counts in the end is what is there, whichever write of a key was the last."""
    scene = Scene(Quota(10_000_000), storage=_with_files(tmp_path))
    outcomes = [scene.submit(Set(b"a/1", b"v" * size), scene.app) for size in sizes]
    scene.storage.engine.slow = not is_known
    scene.run()
    assert [outcome.result() for outcome in outcomes] == [None] * len(sizes)
    assert scene.used == scene.stored
    assert scene.usage._under_way == {}


def test_a_key_in_doubt_that_is_written(tmp_path: Path) -> None:
    """Of several doubts the last one is resolved, and one that cannot be is left to the recount."""
    scene = Scene(Quota(10_000_000), storage=_with_files(tmp_path))
    for size in (5000, 1):
        scene.submit(Set(b"a/1", b"v" * size), scene.app)
    scene.storage.engine.slow = True
    scene.reactor.turn()
    scene.pool.run_one()
    assert scene.pool.waiting == 1
    scene.submit(Set(b"a/1", b"v" * 20), scene.app)
    scene.run()
    assert scene.used == scene.stored == (23, 1)
    for size in (5000, 1):
        scene.submit(Set(b"a/1", b"v" * size), scene.app)
    scene.reactor.turn()
    scene.pool.run_one()
    scene.storage.engine.fail("get", StorageError("broken"), 1)
    scene.run()
    assert scene.usage._under_way == {}
    scene.calls.delete(b"a/1")
    assert scene.stored == (0, 0)


def test_a_key_in_doubt_that_cannot_be_read() -> None:
    """Who wrote it is answered all the same."""
    scene = Scene(Quota(1000))
    outcomes = [scene.submit(Set(b"a/1", b"v" * size), scene.app) for size in (3, 2)]
    scene.storage.engine.fail("peek", StorageError("broken"))
    scene.run()
    assert [outcome.result() for outcome in outcomes] == [None, None]
    assert scene.used == scene.stored == (5, 1)
    assert scene.usage._under_way == {}


def test_a_failure_among_writes_of_one_key(tmp_path: Path) -> None:
    """Those after it were weighed as if it had been written."""
    scene = Scene(Quota(10_000_000), storage=_with_files(tmp_path))
    scene.calls.set(b"a/1", b"v" * 10)
    late = MSet({b"a/1": b"v" * 5000, b"a/2": b"v" * 5000})
    outcomes = [scene.submit(late, scene.app), scene.submit(Set(b"a/1", b"v"), scene.app)]
    late.deadline = 0.0
    scene.run()
    with pytest.raises(Overloaded):
        outcomes[0].result()
    assert outcomes[1].result() is None
    assert scene.used == scene.stored == (4, 1)
    assert scene.usage._under_way == {}


def test_many_changes_while_sizes_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of them is bounded; then sizes are looked up once more."""
    monkeypatch.setattr(quotas, "MAX_CHANGED", 3)
    scene = Scene(Quota(1000), slow=True)
    outcomes = [scene.submit(Set(b"a/%d" % number, b"v"), scene.app) for number in range(10)]
    for _ in range(100):
        if scene.pool.waiting:
            scene.pool.run_one()
        scene.reactor.turn()
        assert len(scene.usage._changed) <= 3
    assert [outcome.result() for outcome in outcomes] == [None] * 10
    assert scene.used == scene.stored == (40, 10)


# In the order of what is looked at.


def test_rate_then_room_then_quota() -> None:
    """A refusal for the quota costs an operation, one for want of room nothing; neither is audited as a write."""
    time = ManualTime()
    limiter = Limiter(Rate(2))
    written: list[object] = []
    scene = Scene(Quota(0, 1), limiter=limiter, seconds=time, written=lambda *write: written.append(write))
    scene.calls.set(b"a/1", b"v")
    with pytest.raises(QuotaExceeded):
        scene.submit(Set(b"a/2", b"v"), scene.app)
    with pytest.raises(RateLimited):
        scene.submit(Set(b"a/2", b"v"), scene.app)
    time.now += 1
    full = scene.app.admission = Admission(1)
    full.enter()
    for _ in range(5):
        with pytest.raises(Overloaded):
            scene.submit(Set(b"a/2", b"v"), scene.app)
    full.leave()
    for _ in range(2):
        scene.calls.set(b"a/1", b"v")
    assert full.in_flight == 0
    assert len(written) == 3


def test_without_a_quota_nothing_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor for reads of who has one."""
    scene = Scene(Quota(100))
    asked: list[bytes] = []
    monkeypatch.setattr(scene.backend, "size_now", lambda key: asked.append(key) or 0)
    scene.blocking().set(b"b", b"v")
    scene.calls.get(b"a/1")
    assert asked == []
    scene.calls.set(b"a/1", b"v")
    assert asked == [b"a/1"]


# Whose it is.


def test_prefixes_within_others_count_once() -> None:
    """As a grant for `a/` covers `a/b/`."""
    assert outermost([b"b/", b"a/b/", b"a/", b"a/b/", b"ab"]) == (b"a/", b"ab", b"b/")
    assert outermost([b"x", b""]) == (b"",)


def test_what_is_used_outlasts_changes_of_the_token() -> None:
    """Of its rate or quota, not of the prefixes that it may write."""
    authority = Authority()
    token, entry = made("app", GRANT)
    entry = entry._replace(quota=Quota(100))
    authority.replace([entry])

    def usage() -> Usage | None:
        return authority.principal([token], "").usage

    first = usage()
    assert first is not None
    assert first is authority.usages["app"]
    assert (first.prefixes, first.is_counted) == ((b"a/",), False)
    authority.replace([entry._replace(quota=Quota(0, 7))])
    assert usage() is first
    assert first.quota == Quota(0, 7)
    authority.retune(default_rate=Rate(5), failed_logins=0)
    assert usage() is first
    authority.replace([entry._replace(grants=(grant("set"),))])
    assert usage() is not first
    assert (usage() or first).prefixes == (b"",)
    authority.replace([entry._replace(quota=Quota())])
    assert usage() is None
    assert not authority.usages
