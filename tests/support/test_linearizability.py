"""The checker of histories sees what it is there to see, and nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .linearizability import (
    Answer,
    Condition,
    Did,
    Model,
    Mutation,
    NotLinearizable,
    Operation,
    Read,
    Request,
    State,
    Undecided,
    check,
    check_revisions,
    etag_of,
)
from .properties import repeatable

ABSENT, PRESENT = Condition("absent"), Condition("present")


def at(called: float, ended: float, request: Request, answer: Answer | None) -> Operation:
    """Of one client."""
    return Operation("client", request, called, ended, answer)


def read(called: float, ended: float, value: bytes | None, ttl: int | None = None) -> Operation:
    """A Get of `k`."""
    return at(called, ended, Request(reads=("k",)), Answer(reads=(Read(value, ttl),)))


def write(called: float, ended: float, value: bytes, ttl: int = 0, *, key: str = "k", revision: int = 0) -> Operation:
    """A Set that was done."""
    return at(called, ended, Request(mutations=(Mutation("set", key, value, ttl),)), Answer(revision=revision))


def unheard(called: float, ended: float, value: bytes) -> Operation:
    """A Set of which the client heard nothing."""
    return at(called, ended, Request(mutations=(Mutation("set", "k", value),)), None)


def swap(
    called: float, ended: float, condition: Condition, value: bytes, *, failed: bool = False, etag: str = ""
) -> Operation:
    """A conditional Set of `k`."""
    request = Request((), (("k", condition),), (Mutation("set", "k", value),))
    return at(called, ended, request, Answer(failed=1, etag=etag) if failed else Answer())


def touch(called: float, ended: float, ttl: int, *, found: bool = True) -> Operation:
    """A Touch of `k`."""
    return at(called, ended, Request(mutations=(Mutation("touch", "k", b"", ttl),)), Answer(did=(Did(found),)))


def add(called: float, ended: float, delta: int, number: int, *, found: bool = True) -> Operation:
    """An Increment of `k`."""
    request = Request(mutations=(Mutation("increment", "k", delta=delta),))
    return at(called, ended, request, Answer(did=(Did(found, number),)))


def delete(called: float, ended: float) -> Operation:
    """A Delete of `k`."""
    return at(called, ended, Request(mutations=(Mutation("delete", "k"),)), Answer())


def transfer(called: float, ended: float, failed: int = 0) -> Operation:
    """If `k` is there and `m` is not: one goes, the other comes."""
    mutations = (Mutation("delete", "k"), Mutation("set", "m", b"1"))
    answer = Answer(failed=failed) if failed else Answer(did=(Did(True), Did(False)))
    return at(called, ended, Request((), (("k", PRESENT), ("m", ABSENT)), mutations), answer)


def both(called: float, ended: float, k: bytes | None, m: bytes | None) -> Operation:
    """An MGet."""
    return at(called, ended, Request(reads=("k", "m")), Answer(reads=(Read(k), Read(m))))


GOOD = {
    "nothing": [],
    "read what was written": [write(0, 1, b"a"), read(2, 3, b"a")],
    "either of two at once": [write(0, 3, b"a"), write(1, 4, b"b"), read(5, 6, b"a")],
    "old while it is replaced": [write(0, 1, b"a"), write(2, 6, b"b"), read(3, 4, b"a"), read(4.5, 5, b"b")],
    "one of two that swap": [
        write(0, 1, b"a"),
        swap(2, 4, Condition("value", b"a"), b"b"),
        swap(2, 5, Condition("etag", etag=etag_of(b"a")), b"c", failed=True, etag=etag_of(b"b")),
        read(6, 7, b"b"),
    ],
    "the other was later": [swap(0, 5, ABSENT, b"a"), swap(1, 2, PRESENT, b"b", failed=True), read(6, 7, b"a")],
    "unheard, and done": [unheard(0, 2, b"a"), read(3, 4, b"a")],
    "unheard, and not done": [unheard(0, 2, b"a"), read(3, 4, None)],
    "unheard, and done late": [unheard(0, math.inf, b"a"), read(3, 4, None), read(5, 6, b"a")],
    "expired": [write(0, 0.1, b"a", 1), read(0.5, 0.6, b"a", 1), read(1.15, 1.2, b"a", 1), read(1.15, 1.3, None)],
    "touched in time": [write(0, 0.1, b"a", 1), touch(0.5, 0.6, 0), read(9, 9.1, b"a", 0)],
    "touched too late": [write(0, 0.1, b"a", 1), touch(2, 2.1, 5, found=False), read(3, 3.1, None)],
    "absent once it has expired": [write(0, 0.1, b"a", 1), swap(2, 3, ABSENT, b"b"), read(4, 5, b"b")],
    "numbers": [add(0, 4, 2, 2, found=False), add(1, 3, 3, 5), read(5, 6, b"5"), add(7, 8, -9, -4)],
    "moved": [write(0, 1, b"x"), transfer(2, 5), both(3, 4, None, b"1"), transfer(6, 7, failed=1)],
}
BAD = {
    "stale read": [write(0, 1, b"a"), write(2, 3, b"b"), read(4, 5, b"a")],
    "read of nothing": [read(0, 1, b"a")],
    "read before it was written": [read(0, 1, b"a"), write(2, 3, b"a")],
    "back and forth": [write(0, 1, b"a"), write(2, 9, b"b"), read(3, 4, b"b"), read(5, 6, b"a")],
    "lost update": [add(0, 1, 1, 1, found=False), add(2, 4, 1, 2), add(2, 5, 1, 2)],
    "lost write": [write(0, 1, b"a"), read(2, 3, None)],
    "double success": [swap(0, 2, ABSENT, b"a"), swap(1, 3, ABSENT, b"b")],
    "double success by value": [
        write(0, 1, b"a"),
        swap(2, 4, Condition("value", b"a"), b"b"),
        swap(2, 4, Condition("value", b"a"), b"c"),
    ],
    "failed although it held": [write(0, 1, b"a"), swap(2, 3, Condition("value", b"a"), b"b", failed=True)],
    "another etag": [write(0, 1, b"a"), swap(2, 3, ABSENT, b"b", failed=True, etag=etag_of(b"b"))],
    "both outcomes of one unheard": [unheard(0, 2, b"a"), read(3, 4, b"a"), read(5, 6, None)],
    "done after its server had died": [unheard(0, 2, b"a"), read(3, 4, None), read(5, 6, b"a")],
    "expired too soon": [write(0, 0.1, b"a", 2), read(1, 1.1, None)],
    "expired too late": [write(0, 0.1, b"a", 1), read(1.5, 1.6, b"a")],
    "back after it had expired": [write(0, 0.1, b"a", 1), read(1.05, 1.06, None), read(1.07, 1.08, b"a")],
    "touched what has expired": [write(0, 0.1, b"a", 1), touch(2, 2.1, 5)],
    "the ttl was lost": [write(0, 0.1, b"a", 10), read(1, 1.1, b"a", 0)],
    "the ttl is another's": [write(0, 0.1, b"a", 10), touch(1, 1.1, 100), read(2, 2.1, b"a", 8)],
    "half of a transaction": [write(0, 1, b"x"), transfer(2, 5), both(3, 4, None, None)],
    "a check out of turn": [write(0, 1, b"x"), transfer(2, 3, failed=2)],
    "not there, and touched": [touch(0, 1, 5)],
    "another number": [write(0, 1, b"7"), add(2, 3, 1, 9)],
    "revisions against the order": [write(0, 1, b"a", revision=9), write(2, 3, b"b", revision=8)],
    "revisions explain no other value": [
        write(0, 3, b"a", revision=9),
        write(0, 3, b"b", revision=8),
        read(4, 5, b"b"),
    ],
    "deleted, and there": [write(0, 1, b"a"), delete(2, 3), read(4, 5, b"a")],
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD)
def test_good_histories(history: Sequence[Operation]) -> None:
    """What can have happened passes, in whatever order it is told."""
    check(history)
    check(list(reversed(history)))


@pytest.mark.parametrize("history", BAD.values(), ids=BAD)
def test_bad_histories(history: Sequence[Operation]) -> None:
    """What cannot have happened is refused, with the answer that nothing explains, also among other keys."""
    others = [write(0, 9, b"1", key="other"), write(1, 8, b"2", key="third")]
    with pytest.raises(NotLinearizable, match="no order explains this answer"):
        check([*others, *history])


def test_what_is_evicted() -> None:
    """Only keys that may vanish do, and they do not come back."""
    history = [write(0, 1, b"a"), read(2, 3, None)]
    check(history, Model(frozenset({"k"})))
    with pytest.raises(NotLinearizable):
        check([*history, read(4, 5, b"a")], Model(frozenset({"k"})))


def test_errors() -> None:
    """What is no number is not added to, and nothing is changed; a whole transaction neither."""
    request = Request(mutations=(Mutation("set", "m", b"1"), Mutation("increment", "k", delta=1)))
    refused = at(2, 3, request, Answer(error="not_a_number"))
    check([write(0, 1, b"01"), refused, both(4, 5, b"01", None)])
    with pytest.raises(NotLinearizable):
        check([write(0, 1, b"1"), refused])
    full = at(2, 3, Request(mutations=(Mutation("increment", "k", delta=1),)), Answer(error="number_overflow"))
    check([write(0, 1, b"%d" % (2**63 - 1)), full])


def test_revisions_over_all_keys() -> None:
    """They grow with time, also where keys have nothing to do with each other, and none is given twice."""
    one, two = write(0, 1, b"a", revision=5), write(2, 3, b"b", key="m", revision=6)
    assert check_revisions([two, one, read(4, 5, b"a")]) == 2
    check_revisions([replace(one, ended=2.5, answer=Answer(revision=7)), two])
    for wrong in (4, 5):
        with pytest.raises(NotLinearizable, match="not above an earlier one"):
            check_revisions([one, replace(two, answer=Answer(revision=wrong))])
    with pytest.raises(NotLinearizable):
        check_revisions([replace(one, ended=9), replace(two, answer=Answer(revision=5))])


def test_it_gives_up_in_time() -> None:
    """Too many orders are told, not looked at for ever."""
    with pytest.raises(Undecided):
        check([*(unheard(0, math.inf, b"%d" % n) for n in range(12)), read(1, 2, b"x")], most=1000)


REQUESTS = st.one_of(
    st.just(Request(reads=("k",))),
    st.builds(lambda n: Request(mutations=(Mutation("set", "k", b"%d" % n),)), st.integers(0, 3)),
    st.just(Request(mutations=(Mutation("delete", "k"),))),
    st.just(Request(mutations=(Mutation("increment", "k", delta=1),))),
    st.builds(lambda n: Request((), (("k", Condition("value", b"%d" % n)),), (Mutation("set", "k", b"9"),)),
              st.integers(0, 3)),
    st.just(Request((), (("k", ABSENT),), (Mutation("set", "k", b"0"),))),
)  # fmt: skip
ANSWERS = st.one_of(
    st.builds(lambda value: Answer(reads=(Read(value),)), st.sampled_from([None, b"0", b"1", b"9"])),
    st.just(Answer()),
    st.just(Answer(failed=1)),
    st.none(),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Up to six operations, some at once, with answers that may or may not be right."""
    history = []
    for _ in range(draw(st.integers(1, 6))):
        request = draw(REQUESTS)
        called = draw(st.integers(0, 6))
        answer = draw(ANSWERS)
        if answer is not None and request.reads and not answer.reads:
            answer = Answer(reads=(Read(None),))
        history.append(at(called, called + draw(st.integers(0, 4)) + 0.5, request, answer))
    return history


def by_trying_all(history: Sequence[Operation]) -> bool:
    """Whether any order explains it, the plain way."""
    for order in itertools.permutations(history):
        if any(later.ended < earlier.called for earlier, later in itertools.combinations(order, 2)):
            continue
        states = {State()}
        for operation in order:
            states = {after for state in states for after in Model().steps(state, operation)}
        if states:
            return True
    return False


@repeatable
@given(histories())
def test_it_finds_what_trying_all_orders_finds(history: list[Operation]) -> None:
    """The same verdict."""
    try:
        check(history)
    except NotLinearizable:
        assert not by_trying_all(history)
    else:
        assert by_trying_all(history)
