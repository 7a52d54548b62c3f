"""Sessions: one for each principal, with its rate and its share, until it holds no longer."""

from __future__ import annotations

import threading

import pytest

from kvtwisted.commands.administration import ListBackups
from kvtwisted.core.errors import Overloaded, RateLimited, Unauthenticated
from kvtwisted.sessions import gate as gate_module
from kvtwisted.sessions import gate as gates
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.buckets import Addresses, Rate
from kvtwisted.sessions.entries import OwnRate
from kvtwisted.sessions.gate import Gate
from kvtwisted.sessions.session import Session

from .gates import Fixture, visitor
from .support import PEER, grant, made


def test_what_is_over_a_rate_is_counted() -> None:
    """By the principal's own limiter, on any of its operations."""
    shown, entry = made("a", rate=OwnRate(1, 0))
    world = Fixture(entry)
    operations = world.calls(world.gate.admit(visitor(shown)))
    operations.get(b"k")
    admitted = world.gate.admit(visitor(shown))
    for attempt in (
        lambda: operations.get(b"k"),
        lambda: operations.get_now(b"k"),
        operations.get_config,
        lambda: operations.run(ListBackups()),
        # What is no command.
        lambda: admitted.require("metrics", PEER),
    ):
        with pytest.raises(RateLimited):
            attempt()
    assert world.counted == ["rate_limited"] * 5
    assert world.lines == []
    world.seconds.now += 1
    admitted.require("metrics", PEER)
    with pytest.raises(RateLimited):
        operations.get(b"k")


def test_a_revoked_session_is_withdrawn_once() -> None:
    """The watchers hear of it at the next look, and of nothing else."""
    (a, entry_a), (b, entry_b) = made("a"), made("b")
    world = Fixture(entry_a, entry_b)
    gone, stays = world.gate.admit(visitor(a)), world.gate.admit(visitor(b))
    world.gate.look()
    assert world.withdrawn == []
    assert world.authority is not None
    world.authority.replace([entry_b])
    with pytest.raises(Unauthenticated):
        world.gate.admit(visitor(a))
    for _ in range(2):
        world.gate.look()
    assert world.withdrawn == [frozenset([gone])]
    assert not gone.is_replaced
    assert world.gate.find(visitor(a)) is None
    assert world.gate.admit(visitor(b)) is stays


def test_a_session_expires() -> None:
    """At its time, to the second; not a moment before."""
    shown, entry = made("a", not_after=2000)
    world = Fixture(entry)
    admitted = world.gate.admit(visitor(shown))
    world.wall.now = 1999.9
    world.gate.look()
    assert world.gate.find(visitor(shown)) is admitted
    world.wall.now = 2000.0
    assert world.gate.find(visitor(shown)) is None
    world.gate.look()
    assert world.withdrawn == [frozenset([admitted])]


def test_many_threads_get_the_same_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of certificates that come for the first time, while others are forgotten and the gate looks."""
    monkeypatch.setattr(gates, "_MAX_CERTIFIED", 64)
    world = Fixture(tokens=False)
    start, failures = threading.Barrier(5), []
    found: list[list[Session]] = [[], [], [], []]

    def enter(mine: list[Session]) -> None:
        try:
            start.wait()
            for number in range(64):
                mine.append(world.gate.admit(visitor(certificate=f"{number}")))
            for number in range(300):
                world.gate.admit(visitor(certificate=f"{number % 200}"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=enter, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        world.gate.look()
    assert failures == []
    world.gate.look()
    assert len(world.gate._sessions) <= 64
    assert all(len(mine) == 64 for mine in found)


def test_a_principal_that_was_revoked_meanwhile_is_let_go() -> None:
    """A thread that found it before it was revoked may remember its session afterwards, until the next look."""
    shown, entry = made("a")
    world = Fixture(entry)
    late = world.gate.admit(visitor(shown)).principal
    assert late is not None
    assert world.authority is not None
    world.authority.replace([])
    world.gate.look()
    world.gate._session(late, PEER)
    world.gate.look()
    assert len(world.withdrawn) == 2
    assert len(world.gate._sessions) == 0


def test_other_rates_do_not_change_who_is_who() -> None:
    """A token that follows the server's rate gets a new session, the old one is withdrawn."""
    shown, entry = made("a")
    world = Fixture(entry)
    old = world.gate.admit(visitor(shown))
    assert world.authority is not None
    world.authority.retune(default_rate=Rate(1), failed_logins=0)
    world.gate.look()
    assert world.withdrawn == [frozenset([old])]
    assert old.is_replaced
    new = world.calls(world.gate.admit(visitor(shown)))
    new.get(b"k")
    with pytest.raises(RateLimited):
        new.get(b"k")


def test_each_principal_has_a_share_of_what_may_be_under_way() -> None:
    """One for all addresses that it comes from, and another one than others'; nobody who is not known has any."""
    (a, entry_a), (b, entry_b) = made("a"), made("b")
    world = Fixture(entry_a, entry_b, addresses=Addresses(Rate(10, 0)))
    here, there = world.gate.admit(visitor(a)), world.gate.admit(visitor(a, address="192.0.2.9"))
    assert here is not there
    assert here.admission is there.admission is not world.gate.admit(visitor(b)).admission
    for _ in range(6):
        here.admission.enter(1)
    with pytest.raises(Overloaded, match=r"limits\.max_in_flight_per_principal is 6"):
        there.admission.enter(1)
    world.gate.admit(visitor(b)).admission.enter(1)
    assert (world.admission.in_flight, world.admission.bytes) == (7, 7)


def test_administrators_have_the_rate_of_an_address_to_themselves() -> None:
    """Others at their address cannot use it up; they share it with each other, and it holds for them too."""
    (root, entry_root), (a, entry_a), (b, entry_b) = made("root"), made("a", grant("get")), made("b", grant("get"))
    world = Fixture(entry_root, entry_a, entry_b, addresses=Addresses(Rate(1, 0)))
    world.calls(world.gate.admit(visitor(a))).get(b"k")
    administrator = world.gate.admit(visitor(root))
    with pytest.raises(RateLimited):
        world.calls(world.gate.admit(visitor(b))).get(b"k")
    administrator.require("admin", PEER)
    world.calls(administrator).get_config()
    with pytest.raises(RateLimited, match="the address"):
        world.calls(administrator).run(ListBackups())


def test_an_open_gate_has_no_shares() -> None:
    """Everybody is the same there."""
    admission = Admission(8)
    gate = Gate(Fixture().door, admission)
    assert gate.admit(visitor()).admission is gate.admit(visitor(address="192.0.2.9")).admission is admission


def test_a_changed_token_has_the_share_that_it_had() -> None:
    """As long as there are requests of it, under its old rights; it does not get another three quarters of all."""
    shown, entry = made("a")
    world = Fixture(entry)
    old = world.gate.admit(visitor(shown)).admission
    for _ in range(6):
        old.enter(1)
    assert world.authority is not None
    world.authority.replace([entry._replace(not_after=1 << 40)])
    world.gate.look()
    new = world.gate.admit(visitor(shown)).admission
    with pytest.raises(Overloaded, match="max_in_flight_per_principal is 6"):
        new.enter(1)
    old.leave(6, 6)
    new.enter(1)
    assert (world.admission.in_flight, world.admission.bytes) == (1, 1)


@pytest.mark.parametrize(
    ("own", "addresses", "whose"),
    [
        (OwnRate(1, 0), Rate(), "the token (which may have 1 operations a second)"),
        (OwnRate(1, 500), Rate(), "the token (which may have 1 operations and 500 bytes a second)"),
        (None, Rate(1, 1_000_000), "the address (which may have 1 operations and 1000000 bytes a second)"),
        (
            OwnRate(1, 0),
            Rate(2, 0),
            "the token (which may have 1 operations a second) or the address (which may have 2 operations a second)",
        ),
    ],
)
def test_a_refusal_for_a_rate_names_it(own: OwnRate | None, addresses: Rate, whose: str) -> None:
    """For operations on keys, and for what is about none."""
    shown, entry = made("a", rate=own)
    world = Fixture(entry, addresses=Addresses(addresses))
    admitted = world.gate.admit(visitor(shown))
    world.calls(admitted).get_now(b"k")
    for refused in (lambda: world.calls(admitted).get_now(b"k"), lambda: admitted.require("metrics", PEER)):
        with pytest.raises(RateLimited) as caught:
            refused()
        assert str(caught.value) == f"{whose} is over its rate; try again in 1.000 s"


def test_of_too_many_sessions_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next look; their principals are good, and only have to come again."""
    monkeypatch.setattr(gate_module, "MAX_SESSIONS", 2)
    world = Fixture(tokens=False)
    sessions = [world.gate.admit(visitor(certificate=name)) for name in "abcd"]
    assert world.withdrawn == []
    world.gate.look()
    assert world.withdrawn == [frozenset(sessions[:2])]
    assert all(session.is_replaced for session in sessions[:2])
    assert world.gate.admit(visitor(certificate="d")) is sessions[3]
    assert world.gate.admit(visitor(certificate="a")) is not sessions[0]
