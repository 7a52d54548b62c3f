"""The gate: who is let in, what they may do, when that ends, and what is told of those who were not."""

from __future__ import annotations

import pytest

from kvtwisted.core.errors import PermissionDenied, RateLimited, Unauthenticated
from kvtwisted.sessions import gate as gates
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.audit import ANONYMOUS, EACH_BURST, TOGETHER_BURST, WINDOW
from kvtwisted.sessions.authority import NOT_VALID
from kvtwisted.sessions.entries import TokenEntry
from kvtwisted.sessions.gate import OpenGate
from kvtwisted.sessions.grants import Grant
from kvtwisted.sessions.policy import AUTHENTICATED, NO_TOKEN, PUBLIC
from kvtwisted.sessions.session import Session

from .gates import Fixture, visitor
from .support import EVERYTHING, PEER, grant, made


def certified(token_id: str, name: str, *grants: Grant) -> TokenEntry:
    """An entry for a client certificate."""
    return TokenEntry(token_id, b"", grants or (EVERYTHING,), certificate=name)


def test_an_open_gate_lets_everybody_do_everything() -> None:
    """Whatever they show, and always with the same session."""
    door = Fixture().door
    gate = OpenGate(door, Admission(8))
    admitted = gate.admit(visitor())
    assert admitted.is_known
    assert admitted.get_now == door.get_now
    assert gate.admit(visitor(b"nonsense")) is gate.find(visitor(certificate="ann")) is admitted
    for requirement in ("get", "admin", AUTHENTICATED, PUBLIC):
        admitted.require(requirement, PEER)


def test_a_token_gives_its_session() -> None:
    """The same for each visit, another one for each token; and it may do what is granted."""
    (a, entry_a), (b, entry_b) = made("a", grant("get", b"x/")), made("b")
    world = Fixture(entry_a, entry_b)
    admitted = world.gate.admit(visitor(a))
    assert admitted is world.gate.admit(visitor(a, address="192.0.2.9")) is world.gate.find(visitor(a))
    assert admitted is not world.gate.admit(visitor(b))
    assert admitted.principal is not None
    assert admitted.principal.name == "a"
    admitted.require("get", PEER)
    assert world.calls(admitted).get(b"x/1") is None
    for refused in (lambda: admitted.require("set", PEER), lambda: world.calls(admitted).get(b"y")):
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
    with pytest.raises(Unauthenticated):
        world.calls(nobody).get(b"k")
    assert world.counted == ["unauthenticated"] * 4
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


def test_a_certificate_that_is_listed() -> None:
    """It has the grants of its entry; when that changes it has the new ones, and the old session ends."""
    world = Fixture(certified("ann", "ann.example", grant("get", b"x/")))
    ann = visitor(certificate="ann.example")
    old = world.gate.admit(ann)
    assert old.principal is not None
    assert old.principal.name == "ann"
    with pytest.raises(PermissionDenied):
        world.calls(old).get(b"y")
    assert world.authority is not None
    world.authority.replace([certified("ann", "ann.example", grant("get", b"y"))])
    new = world.gate.admit(ann)
    assert new is not old
    assert world.calls(new).get(b"y") is None
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
    assert len(world.gate._sessions) == len(world.gate._certified) == 3
    assert first in world.withdrawn[0]
    again = world.gate.admit(visitor(certificate="0"))
    assert again is not first
    assert again.is_known


def test_refusals_cannot_flood_the_audit_log() -> None:
    """Of each address and of all of them some lines are written; those of a token are beside them. The rest is told."""
    shown, entry = made("a", grant("get"))
    world = Fixture(entry)
    nobody = world.gate.admit(visitor())

    def refuse(admitted: Session, address: str) -> None:
        with pytest.raises((Unauthenticated, PermissionDenied)):
            admitted.require("set", address)

    for _ in range(1000):
        refuse(nobody, PEER)
    assert len(world.lines) == EACH_BURST
    for number in range(1000):
        refuse(nobody, f"198.51.100.{number % 250}")
    assert len(world.lines) == TOGETHER_BURST
    written = len(world.lines)
    for _ in range(1000):
        refuse(world.gate.admit(visitor(shown)), PEER)
    assert len(world.lines) == written + EACH_BURST
    assert len(world.counted) == 3000
    written = len(world.lines)
    world.seconds.now += WINDOW
    world.gate.look()
    told = world.told()[written:]
    assert sum(line["left_out"] for line in told) == 3000 - written
    assert {"event": "denied", "who": "a", "left_out": 990, "last": {"operation": "set"}} in told
    assert any(line["who"] == ANONYMOUS and line.get("address") == PEER for line in told)
    assert len([line for line in told if line["who"] == ANONYMOUS]) < 20
    world.gate.look()
    assert len(world.told()) == written + len(told)


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


def test_a_certificate_counts_until_it_ends() -> None:
    """By the wall clock, at each visit: TLS has looked at it only when the connection was made."""
    world = Fixture(certified("a", "ann"))
    end = world.wall() + 10
    ann = visitor(certificate="ann")._replace(certificate_until=end)
    assert world.gate.admit(ann).is_known
    world.wall.now += 9.9
    assert world.gate.find(ann) is not None
    world.wall.now = end
    assert world.gate.find(ann) is None
    assert not world.gate.admit(ann).is_known
