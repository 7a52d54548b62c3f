"""How many connections there may be: in all, from one address, and how many there is room for."""

from __future__ import annotations

import resource

import pytest

from kvtwisted.security.connections import (
    IN_ALL,
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
