"""The gate: who is let in, what they may do, when that ends, and what is told of those who were not."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from kvtwisted.core.admission import Admission
from kvtwisted.core.errors import Overloaded, PermissionDenied, RateLimited, Unauthenticated
from kvtwisted.core.health import Health
from kvtwisted.core.operations import Operations
from kvtwisted.security import gate as gates
from kvtwisted.security.audit import ANONYMOUS, ANONYMOUS_REFUSALS, REFUSAL_BURST, REFUSALS, Audit
from kvtwisted.security.authority import NOT_VALID, Authority
from kvtwisted.security.buckets import Addresses, Rate
from kvtwisted.security.entries import OwnRate, TokenEntry
from kvtwisted.security.gate import ClosedGate, OpenGate, Visitor
from kvtwisted.security.grants import Grant
from kvtwisted.security.passes import Pass
from kvtwisted.security.policy import AUTHENTICATED, NO_TOKEN, PUBLIC
from tests.support.configuration import FakeConfiguration
from tests.support.recorders import CountingRecorder
from tests.support.storage import Storage

from .support import EVERYTHING, PEER, ManualTime, grant, made


def certified(token_id: str, name: str, *grants: Grant) -> TokenEntry:
    """An entry for a client certificate."""
    return TokenEntry(token_id, b"", grants or (EVERYTHING,), certificate=name)


class Fixture:
    """A closed gate with everything around it."""

    def __init__(
        self, *entries: TokenEntry, tokens: bool = True, failed_logins: int = 0, addresses: Addresses | None = None
    ) -> None:
        configuration = FakeConfiguration({"http": {"port": 1}})
        self.operations = Operations(Storage().store, configuration, CountingRecorder(), Health())
        self.admission = Admission(8, 800)
        self.wall, self.seconds = ManualTime(), ManualTime()
        self.authority = (
            Authority(failed_logins=failed_logins, wall=self.wall, seconds=self.seconds) if tokens else None
        )
        if self.authority is not None:
            self.authority.replace(entries)
        self.lines: list[bytes] = []
        self.counted: list[str] = []
        self.gate = ClosedGate(
            self.operations,
            self.admission,
            self.authority,
            Audit(self.lines.append),
            addresses=addresses,
            count=self.counted.append,
            wall=self.wall,
            seconds=self.seconds,
        )
        self.withdrawn: list[frozenset[Pass]] = []
        self.gate.watch(self.withdrawn.append)

    def told(self) -> list[dict[str, Any]]:
        """The audit lines so far, without their times."""
        lines = [json.loads(line) for line in self.lines]
        return [{name: value for name, value in line.items() if name != "time"} for line in lines]


def visitor(*authorization: bytes, certificate: str | None = None, address: str = PEER) -> Visitor:
    """Somebody who shows this."""
    return Visitor(address, authorization, certificate)


def test_an_open_gate_lets_everybody_do_everything() -> None:
    """Whatever they show, and always with the same pass."""
    operations = Fixture().operations
    gate = OpenGate(operations, Admission(8))
    admitted = gate.admit(visitor())
    assert admitted.is_known
    assert admitted.operations.get_now == operations.get_now
    assert gate.admit(visitor(b"nonsense")) is gate.find(visitor(certificate="ann")) is admitted
    for requirement in ("get", "admin", AUTHENTICATED, PUBLIC):
        admitted.require(requirement, PEER)


def test_a_token_gives_its_pass() -> None:
    """The same for each visit, another one for each token; and it may do what is granted."""
    (a, entry_a), (b, entry_b) = made("a", grant("get", b"x/")), made("b")
    world = Fixture(entry_a, entry_b)
    admitted = world.gate.admit(visitor(a))
    assert admitted is world.gate.admit(visitor(a, address="192.0.2.9")) is world.gate.find(visitor(a))
    assert admitted is not world.gate.admit(visitor(b))
    assert admitted.principal is not None
    assert admitted.principal.name == "a"
    admitted.require("get", PEER)
    assert admitted.operations.get(b"x/1") is None
    for refused in (lambda: admitted.require("set", PEER), lambda: admitted.operations.get(b"y")):
        with pytest.raises(PermissionDenied):
            refused()
    assert world.counted == ["permission_denied"] * 2
    assert world.told() == [
        {"event": "denied", "who": "a", "operation": "set"},
        {"event": "denied", "who": "a", "operation": "get"},
    ]


def test_nobody_has_what_is_public_alone() -> None:
    """Who shows nothing is let in as nobody; the refusal is told with the address."""
    world = Fixture(made("a")[1])
    nobody = world.gate.admit(visitor())
    assert not nobody.is_known
    assert world.gate.find(visitor()) is None
    nobody.require(PUBLIC, PEER)
    for requirement in ("get", AUTHENTICATED, "unheard-of"):
        with pytest.raises(Unauthenticated, match="a token is required") as refused:
            nobody.require(requirement, PEER)
        assert str(refused.value) == NO_TOKEN
    with pytest.raises(PermissionDenied):
        nobody.operations.get(b"k")
    assert world.counted == ["unauthenticated"] * 3 + ["permission_denied"]
    assert world.told()[0] == {"event": "denied", "who": ANONYMOUS, "operation": "get", "address": PEER}


@pytest.mark.parametrize("times", [1, 2])
def test_what_is_not_valid(times: int) -> None:
    """A wrong token, or a valid one twice: refused, counted once, audited with the address, and never shown."""
    right, entry = made("a")
    world = Fixture(entry)
    shown = (right, right) if times == 2 else (right[:-1] + (b"0" if right[-1:] != b"0" else b"1"),)
    assert world.gate.find(visitor(*shown)) is None
    assert (world.counted, world.lines) == ([], [])
    with pytest.raises(Unauthenticated) as refused:
        world.gate.admit(visitor(*shown))
    assert str(refused.value) == NOT_VALID
    assert world.counted == ["unauthenticated"]
    assert world.told() == [{"event": "login_failed", "who": ANONYMOUS, "address": PEER, "reason": NOT_VALID}]


def test_failed_logins_are_limited_and_looking_is_none() -> None:
    """As many as are allowed are told as such, then there are too many; what is only looked for does not count."""
    right, entry = made("a")
    world = Fixture(entry, failed_logins=2)
    wrong = visitor(b"Bearer x")
    for _ in range(10):
        assert world.gate.find(wrong) is None
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            world.gate.admit(wrong)
    with pytest.raises(RateLimited):
        world.gate.admit(wrong)
    assert world.counted == ["unauthenticated", "unauthenticated", "rate_limited"]
    assert len(world.lines) == 2
    assert world.gate.admit(visitor(right)).is_known


def test_what_is_over_a_rate_is_counted() -> None:
    """By the principal's own limiter, on any of its operations."""
    shown, entry = made("a", rate=OwnRate(1, 0))
    world = Fixture(entry)
    operations = world.gate.admit(visitor(shown)).operations
    operations.get(b"k")
    admitted = world.gate.admit(visitor(shown))
    for attempt in (
        lambda: operations.get(b"k"),
        lambda: operations.get_now(b"k"),
        operations.get_config,
        # What the operations know nothing of.
        lambda: admitted.require("metrics", PEER),
        lambda: admitted.require("admin", PEER),
    ):
        with pytest.raises(RateLimited):
            attempt()
    assert world.counted == ["rate_limited"] * 5
    assert world.lines == []
    world.seconds.now += 1
    admitted.require("metrics", PEER)
    with pytest.raises(RateLimited):
        operations.get(b"k")


def test_a_revoked_pass_is_withdrawn_once() -> None:
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


def test_a_pass_expires() -> None:
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


def test_a_certificate_that_is_listed() -> None:
    """It has the grants of its entry; when that changes it has the new ones, and the old pass ends."""
    world = Fixture(certified("ann", "ann.example", grant("get", b"x/")))
    ann = visitor(certificate="ann.example")
    old = world.gate.admit(ann)
    assert old.principal is not None
    assert old.principal.name == "ann"
    with pytest.raises(PermissionDenied):
        old.operations.get(b"y")
    assert world.authority is not None
    world.authority.replace([certified("ann", "ann.example", grant("get", b"y"))])
    new = world.gate.admit(ann)
    assert new is not old
    assert new.operations.get(b"y") is None
    world.gate.look()
    assert world.withdrawn == [frozenset([old])]
    # The name goes to another entry.
    world.authority.replace([certified("bob", "ann.example", grant("scan"))])
    moved = world.gate.admit(ann).principal
    assert moved is not None
    assert moved.name == "bob"
    assert world.gate.admit(visitor(certificate="ann")) is world.gate.admit(visitor())


def test_a_token_goes_before_the_certificate() -> None:
    """Also one that is not valid: whoever shows it is not let in as somebody else."""
    shown, entry = made("a")
    world = Fixture(entry, certified("ann", "ann"))
    by_token = world.gate.admit(visitor(shown, certificate="ann")).principal
    assert by_token is not None
    assert by_token.name == "a"
    with pytest.raises(Unauthenticated):
        world.gate.admit(visitor(b"Bearer x", certificate="ann"))
    assert world.gate.find(visitor(b"Bearer x", certificate="ann")) is None


def test_nobody_logs_in_with_the_id_of_a_certificate() -> None:
    """It has no secret that could be right: neither none nor the digest that nobody has."""
    world = Fixture(certified("ann", "ann"))
    for secret in (b"", b"0" * 43, b"A" * 43):
        assert world.gate.find(visitor(b"Bearer kv1_ann_" + secret)) is None


def test_certificates_without_tokens() -> None:
    """Each may do everything, under its name; a token is refused."""
    world = Fixture(tokens=False)
    ann = world.gate.admit(visitor(certificate="ann"))
    assert ann.principal is not None
    assert ann.principal.name == "cert:ann"
    ann.require("admin", PEER)
    assert ann is world.gate.admit(visitor(certificate="ann"))
    assert ann is not world.gate.admit(visitor(certificate="bob"))
    assert not world.gate.admit(visitor()).is_known
    with pytest.raises(Unauthenticated, match="goes by client certificates"):
        world.gate.admit(visitor(made("a")[0], certificate="ann"))


def test_certificates_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than there is room for the first is forgotten, and welcome again."""
    monkeypatch.setattr(gates, "_MAX_CERTIFIED", 3)
    world = Fixture(tokens=False)
    first = world.gate.admit(visitor(certificate="0"))
    for number in range(1, 50):
        world.gate.admit(visitor(certificate=str(number)))
    world.gate.look()
    assert len(world.gate._passes) == len(world.gate._certified) == 3
    assert first in world.withdrawn[0]
    again = world.gate.admit(visitor(certificate="0"))
    assert again is not first
    assert again.is_known


def test_many_threads_get_the_same_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of certificates that come for the first time, while others are forgotten and the gate looks."""
    monkeypatch.setattr(gates, "_MAX_CERTIFIED", 64)
    world = Fixture(tokens=False)
    start, failures = threading.Barrier(5), []
    found: list[list[Pass]] = [[], [], [], []]

    def enter(mine: list[Pass]) -> None:
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
    assert len(world.gate._passes) <= 64
    assert all(len(mine) == 64 for mine in found)


def test_a_principal_that_was_revoked_meanwhile_is_let_go() -> None:
    """A thread that found it before it was revoked may remember its pass afterwards, until the next look."""
    shown, entry = made("a")
    world = Fixture(entry)
    late = world.gate.admit(visitor(shown)).principal
    assert late is not None
    assert world.authority is not None
    world.authority.replace([])
    world.gate.look()
    world.gate._passes.of(late, PEER)
    world.gate.look()
    assert len(world.withdrawn) == 2
    assert len(world.gate._passes) == 0


def test_other_rates_do_not_change_who_is_who() -> None:
    """A token that follows the server's rate gets a new pass, the old one is withdrawn."""
    shown, entry = made("a")
    world = Fixture(entry)
    old = world.gate.admit(visitor(shown))
    assert world.authority is not None
    world.authority.retune(default_rate=Rate(1), failed_logins=0)
    world.gate.look()
    assert world.withdrawn == [frozenset([old])]
    assert old.is_replaced
    new = world.gate.admit(visitor(shown)).operations
    new.get(b"k")
    with pytest.raises(RateLimited):
        new.get(b"k")


def test_refusals_cannot_flood_the_audit_log() -> None:
    """Of each address and of all of them some lines are written; those of a token are beside them. The rest is told."""
    shown, entry = made("a", grant("get"))
    world = Fixture(entry)
    nobody = world.gate.admit(visitor())

    def refuse(admitted: Pass, address: str) -> None:
        with pytest.raises((Unauthenticated, PermissionDenied)):
            admitted.require("set", address)

    each, together = int(REFUSALS * REFUSAL_BURST), int(ANONYMOUS_REFUSALS * REFUSAL_BURST)
    for _ in range(1000):
        refuse(nobody, PEER)
    assert len(world.lines) == each
    for number in range(1000):
        refuse(nobody, f"198.51.100.{number % 250}")
    assert together - 1 <= len(world.lines) <= together
    written = len(world.lines)
    for _ in range(1000):
        refuse(world.gate.admit(visitor(shown)), PEER)
    assert len(world.lines) == written + each
    assert len(world.counted) == 3000
    world.seconds.now += 1
    refuse(nobody, PEER)
    lines = world.told()
    assert sum(line.get("left_out", 0) for line in lines) + len(lines) == 3001


def test_a_certificate_s_name_forges_no_line() -> None:
    """What a name holds is escaped: one line for one refusal."""
    name = 'ann", "who": "root'
    world = Fixture(certified("ann", name, grant("get")))
    with pytest.raises(PermissionDenied):
        world.gate.admit(visitor(certificate=name)).require("set", PEER)
    without = Fixture(tokens=False)
    principal = without.gate.admit(visitor(certificate=name)).principal
    assert principal is not None
    without.gate._refused(principal.name, "", "set", PermissionDenied(""))
    assert [line["who"] for line in (*world.told(), *without.told())] == ["ann", f"cert:{name}"]


def test_what_is_shown_is_not_written_down() -> None:
    """A visitor may come into a traceback or a log: without the secret."""
    shown, _ = made("a")
    assert shown.decode() not in repr(visitor(shown))
    assert "1 authorization" in repr(visitor(shown, certificate="ann\n"))


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


def test_an_open_gate_has_no_shares() -> None:
    """Everybody is the same there."""
    operations, admission = Fixture().operations, Admission(8)
    gate = OpenGate(operations, admission)
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
    admitted.operations.get_now(b"k")
    for refused in (lambda: admitted.operations.get_now(b"k"), lambda: admitted.require("metrics", PEER)):
        with pytest.raises(RateLimited) as caught:
            refused()
        assert str(caught.value) == f"{whose} is over its rate; try again in 1.000 s"
