"""How many connections there may be: in all, from one address, and how many there is room for."""

from __future__ import annotations

import resource

import pytest

from kvtwisted.sessions.connections import (
    IN_ALL,
    ON_TRIAL,
    PER_ADDRESS,
    RESERVED,
    Connections,
    descriptors,
    room,
    table_files,
)


class Limits:
    """Limits that a test changes, and what was refused."""

    def __init__(self, in_all: int = 0, per_address: int = 0, room: int = 100) -> None:
        self.in_all, self.per_address = in_all, per_address
        self.refused: list[tuple[str, str]] = []
        self.connections = Connections(
            lambda: self.in_all, lambda: self.per_address, room, lambda *what: self.refused.append(what)
        )


def test_in_all() -> None:
    """Both transports together, until one leaves."""
    limits = Limits(in_all=3, per_address=3)
    enter = limits.connections.enter
    assert [enter("http", "10.0.0.1"), enter("grpc", "10.0.0.2"), enter("grpc", "10.0.0.1")] == [None] * 3
    assert (enter("grpc", "10.0.0.3"), enter("http", "10.0.0.1")) == (IN_ALL, IN_ALL)
    assert limits.connections.ended == 0
    limits.connections.leave("10.0.0.2")
    assert (limits.connections.open, limits.connections.ended) == (2, 1)
    assert enter("http", "10.0.0.3") is None
    assert limits.refused == [("grpc", IN_ALL), ("http", IN_ALL)]


def test_per_address() -> None:
    """One that has its share is refused, another is not."""
    limits = Limits(in_all=10, per_address=2)
    enter = limits.connections.enter
    assert [enter("http", "10.0.0.1") for _ in range(3)] == [None, None, PER_ADDRESS]
    assert enter("grpc", "10.0.0.1") == PER_ADDRESS
    assert enter("grpc", "10.0.0.2") is None
    limits.connections.leave("10.0.0.1")
    assert enter("grpc", "10.0.0.1") is None


def test_nothing_is_remembered_of_who_left() -> None:
    """Addresses do not pile up."""
    connections = Limits().connections
    for number in range(50):
        connections.enter("http", f"10.0.0.{number}")
    for number in range(50):
        connections.leave(f"10.0.0.{number}")
    assert (connections.open, connections._counts._by_owner) == (0, {})


def test_the_limits_are_asked_anew() -> None:
    """A lower one closes nobody; it refuses."""
    limits = Limits(in_all=5, per_address=5)
    for _ in range(4):
        limits.connections.enter("http", "a")
    limits.in_all = 2
    assert limits.connections.enter("http", "a") == IN_ALL
    limits.in_all = 5
    assert limits.connections.enter("http", "a") is None


def test_zero_stands_for_what_there_is_room_for() -> None:
    """And for three quarters of it from one address, so that one cannot take all."""
    limits = Limits(room=100)
    assert (limits.connections.limit, limits.connections.limit_per_address) == (100, 75)
    limits.in_all = 1
    assert limits.connections.limit_per_address == 1
    limits.per_address = 7
    assert limits.connections.limit_per_address == 7


@pytest.mark.parametrize(
    ("limit", "wanted", "files", "connections"),
    [
        (256, 1024, 64, 64),
        (1024, 1024, 256, 1024 - 256 - RESERVED),
        (65_536, 1024, 1024, 65_536 - 1024 - RESERVED),
        (65_536, -1, -1, 32_768 - RESERVED),
        (64, 1024, 16, 16),
    ],
)
def test_room(limit: int, wanted: int, files: int, connections: int) -> None:
    """Table files get a quarter at most, connections what is left, but a quarter at least."""
    assert (table_files(wanted, limit), room(wanted, limit)) == (files, connections)


def test_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft limit, which may be none."""
    assert descriptors() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert descriptors() == 1 << 20


class Idler:
    """A connection that idles, or does not."""

    def __init__(self, address: str, idle: float | None = 60.0, *, known: bool = False) -> None:
        self.address, self.idle, self.known = address, idle, known
        self.gone = False

    def idle_seconds(self) -> float | None:
        """As the test says."""
        return self.idle

    def is_of_somebody(self) -> bool:
        """As the test says."""
        return self.known

    def make_way(self) -> None:
        """It is told once."""
        assert not self.gone
        self.gone = True

    abort = make_way


class Crowd(Limits):
    """Limits, with connections that may have to make way, and a time that a test moves."""

    def __init__(self, *idlers: Idler, in_all: int, administrators: int = 0) -> None:
        super().__init__()
        self.now = 100.0
        self.connections = Connections(
            lambda: in_all, lambda: in_all, 100, lambda *what: self.refused.append(what),
            administrators=administrators, seconds=lambda: self.now,
        )  # fmt: skip
        self.connections.of(lambda: idlers)
        for idler in idlers:
            assert self.connections.enter("http", idler.address) is None

    def tries(self, address: str) -> Idler:
        """One that is let in on trial."""
        assert self.connections.enter("http", address) == ON_TRIAL
        idler = Idler(address)
        self.connections.try_out(idler, "http")
        return idler


def test_idle_connections_of_nobody_make_way() -> None:
    """The one that has idled longest, of the address that has most; the newcomer has its place, the count is right."""
    few, old, young = Idler("10.0.0.2", 90), Idler("10.0.0.1", 80), Idler("10.0.0.1", 70)
    crowd = Crowd(few, old, young, in_all=3)
    assert crowd.connections.enter("grpc", "10.0.0.3") is None
    assert [idler.gone for idler in (few, old, young)] == [False, True, False]
    assert (crowd.connections.open, crowd.connections.made_way, crowd.refused) == (3, 1, [])
    crowd.connections.leave(old.address, old)
    assert crowd.connections.open == 3  # it was not counted any more


def test_nobody_known_goes_before_somebody() -> None:
    """Whatever the addresses have, and however long."""
    known, unknown = Idler("10.0.0.1", 900, known=True), Idler("10.0.0.2", 2)
    crowd = Crowd(known, Idler("10.0.0.1", 900, known=True), unknown, in_all=3)
    assert crowd.connections.enter("http", "10.0.0.3") is None
    assert (known.gone, unknown.gone) == (False, True)


@pytest.mark.parametrize(
    "busy",
    [
        Idler("10.0.0.1", None),
        Idler("10.0.0.1", 0.5),
        Idler("10.0.0.1", 4, known=True),
        Idler("10.0.0.3", 900, known=True),
    ],
)
def test_who_does_not_make_way(busy: Idler) -> None:
    """Who has something under way, may be about to, or has no more places than the newcomer would have."""
    crowd = Crowd(busy, in_all=1)
    assert crowd.connections.enter("http", "10.0.0.3") == IN_ALL
    assert (busy.gone, crowd.refused) == (False, [("http", IN_ALL)])


def test_a_known_client_s_goes_to_who_has_fewer() -> None:
    """So that one address with many does not keep others out, and two with as many do not take each other's."""
    crowd = Crowd(*[Idler("10.0.0.1", 60, known=True) for _ in range(4)], in_all=4)
    assert [crowd.connections.enter("http", "10.0.0.2") for _ in range(3)] == [None, None, IN_ALL]


def test_a_look_that_finds_nobody_is_not_repeated_at_once() -> None:
    """A flood of newcomers is not to cost a look at all connections each."""
    looks: list[int] = []
    crowd = Crowd(in_all=0, administrators=0)
    crowd.connections = Connections(lambda: 1, lambda: 1, 100, seconds=lambda: crowd.now)
    crowd.connections.of(lambda: looks.append(1) or ())  # type: ignore[func-returns-value]
    crowd.connections.enter("http", "a")
    for _ in range(100):
        assert crowd.connections.enter("http", "b") == IN_ALL
    assert len(looks) == 1
    crowd.now += 1
    assert crowd.connections.enter("http", "b") == IN_ALL
    assert len(looks) == 2


def test_slots_for_administrators() -> None:
    """Beside all others a few are let in on trial; others are refused, and their slots are free again."""
    crowd = Crowd(Idler("10.0.0.1", None), in_all=1, administrators=2)
    enter, leave = crowd.connections.enter, crowd.connections.leave
    on_trial = crowd.tries("10.0.0.2"), crowd.tries("10.0.0.2")
    assert crowd.connections.open == 3
    assert crowd.connections.refused_on_trial("http") == IN_ALL
    leave("10.0.0.2", on_trial[0])
    assert enter("grpc", "10.0.0.2") == ON_TRIAL
    assert crowd.refused == [("http", IN_ALL)]
    assert (crowd.connections.open, on_trial[1].gone) == (2, False)


def test_trials_make_way_for_other_addresses() -> None:
    """A newcomer takes the slot of the oldest connection of the address with most: a flood closes its own."""
    crowd = Crowd(Idler("10.0.0.1", None), in_all=1, administrators=3)
    first, second, other = crowd.tries("10.0.0.2"), crowd.tries("10.0.0.2"), crowd.tries("10.0.0.3")
    administrator = crowd.tries("10.0.0.4")
    assert [idler.gone for idler in (first, second, other)] == [True, False, False]
    for _ in range(5):
        for flooding in ("10.0.0.2", "10.0.0.3"):
            crowd.tries(flooding)
    assert not administrator.gone
    assert crowd.connections.open == 4
    crowd.connections.leave(first.address, first)
    assert crowd.connections.open == 4  # it was not counted any more


def test_administrators_do_not_make_way_for_trials() -> None:
    """Administrators stay; when they have all slots, newcomers are refused."""
    crowd = Crowd(Idler("10.0.0.1", None), in_all=1, administrators=2)
    administrators = crowd.tries("10.0.0.2"), crowd.tries("10.0.0.2")
    for administrator in administrators:
        crowd.connections.passed(administrator)
    assert crowd.connections.enter("http", "10.0.0.3") == IN_ALL
    crowd.connections.leave("10.0.0.2", administrators[0])
    assert crowd.connections.enter("http", "10.0.0.3") == ON_TRIAL


@pytest.mark.parametrize("passed", [False, True])
def test_a_slot_for_administrators_makes_no_other_free(passed: bool) -> None:
    """However long it idles: it has none of those that a newcomer could have."""
    busy = Idler("10.0.0.1", None)
    crowd = Crowd(busy, in_all=1, administrators=1)
    idle = crowd.tries("10.0.0.2")
    if passed:
        crowd.connections.passed(idle)
    crowd.connections.of(lambda: [idle])
    crowd.now += 1
    assert crowd.connections.enter("http", "10.0.0.3") == (IN_ALL if passed else ON_TRIAL)
    assert crowd.connections.made_way == 0
    for connection in (idle, busy):
        crowd.connections.leave(connection.address, connection)
    assert crowd.connections.open == 0
