"""Checking an address before grpcio gets it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from kvtwisted.core.errors import Unavailable
from kvtwisted.rpc import listening
from kvtwisted.rpc.listening import check_address, joined

#: Says that these are about no backend.
WITHOUT_BACKEND = True


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of 127.0.0.1 that somebody listens on, with every option that could let a second one in."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_taken_port(taken: int, host: str) -> None:
    """A port is taken when any address of the host is, and the sentence names host and port."""
    with pytest.raises(Unavailable, match=rf"^grpc: cannot listen on {host}:{taken}: Address already in use$"):
        check_address(host, taken)


def test_a_free_port(taken: int) -> None:
    """Any free port, and one that was only just closed."""
    check_address("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", taken)):
        pass
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
    check_address("127.0.0.1", port)


def test_an_address_of_another_machine() -> None:
    """An address that this machine does not have."""
    with pytest.raises(Unavailable, match=r"^grpc: cannot listen on 203\.0\.113\.7:50051: Cannot assign requested"):
        check_address("203.0.113.7", 50051)


def test_an_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that nobody knows."""

    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unavailable, match=r"^grpc: cannot listen on nowhere:1: Name or service not known$"):
        check_address("nowhere", 1)


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        ({"::1": errno.EADDRNOTAVAIL, "127.0.0.1": 0}, None),
        ({"::1": errno.EAFNOSUPPORT, "127.0.0.1": 0}, None),
        ({"::1": 0, "127.0.0.1": errno.EADDRINUSE}, "Address already in use"),
        ({"::1": errno.EACCES, "127.0.0.1": errno.EACCES}, "Permission denied"),
        ({"::1": errno.EADDRNOTAVAIL, "127.0.0.1": errno.EADDRNOTAVAIL}, "Cannot assign requested address"),
    ],
)
def test_a_host_with_two_addresses(
    monkeypatch: pytest.MonkeyPatch, results: dict[str, int], sentence: str | None
) -> None:
    """An address of a family that the machine lacks does not count, unless it is the only one; any other does."""
    monkeypatch.setattr(listening, "_bind", lambda family, address: results[address[0]])
    addresses = [(socket.AF_INET6, 1, 6, "", ("::1", 80)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: addresses)
    if sentence is None:
        check_address("localhost", 80)
    else:
        with pytest.raises(Unavailable, match=f"localhost:80: {sentence}"):
            check_address("localhost", 80)


def test_joined() -> None:
    """IPv6 addresses are put in brackets."""
    assert joined("127.0.0.1", 1) == "127.0.0.1:1"
    assert joined("::1", 1) == "[::1]:1"
