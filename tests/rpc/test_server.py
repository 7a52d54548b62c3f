"""A server's address, and how it stops, on every transport."""

from __future__ import annotations

import socket
import threading
from typing import Callable

import grpc
import pytest
from grpc import StatusCode

from kvtwisted.core.errors import Unavailable

from .support import PATIENCE, Client, World

#: Says that these tests run by the pool, too, at every change.
POOL_DIFFERS = True


def has_ipv6() -> bool:
    """Whether this machine can listen on ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def stop_in_background(world: World, grace: float) -> threading.Thread:
    """A thread that stops the server; returns once new calls are refused."""
    stream = world.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=PATIENCE)
    next(stream)
    stopping = threading.Thread(target=world.server.stop, args=(grace,))
    stopping.start()
    with pytest.raises(grpc.RpcError, match="the server is stopping"):
        list(stream)
    # The watchers hear of it just before the server stops listening. Check works while the threads for calls are held.
    check = world.channel.unary_unary("/grpc.health.v1.Health/Check")
    while check.future(b"", timeout=PATIENCE).exception() is None:
        pass
    return stopping


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", *(["::1", "::"] if has_ipv6() else [])])
def test_hosts(make_world: Callable[..., World], host: str) -> None:
    """Port 0 takes a free port; names, wildcards and IPv6 addresses are served."""
    world = make_world(host=host)
    assert world.client.call("Set", key="a", value="1").success


def test_a_taken_port(world: World) -> None:
    """A second server on the port fails with one line that names host and port."""
    port = int(world.address.rpartition(":")[2])
    with pytest.raises(Unavailable) as failure:
        World(port=port).server.start()
    assert str(failure.value) == f"grpc: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert world.client.call("Set", key="a", value="1").success


def test_stop_gives_the_port_back(world: World) -> None:
    """After stop nothing listens, and another server can take the port at once."""
    assert world.client.call("Set", key="a", value="1").success
    port = int(world.address.rpartition(":")[2])
    world.server.stop(PATIENCE)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    other = World(port=port)
    other.start()
    assert other.client.call("Set", key="a", value="1").success
    other.stop()


def test_stop_before_start_and_twice(world: World) -> None:
    """Stopping what does not run does nothing."""
    World().server.stop(0.0)
    world.server.stop(0.0)
    world.server.stop(0.0)


def test_running_calls_finish(world: World) -> None:
    """A call that runs when the server is stopped gets its answer; a new one is UNAVAILABLE."""
    hold = world.hold("write")
    call = world.client.start("Set", key="a", value="1")
    hold.reached()
    stopping = stop_in_background(world, PATIENCE)
    with world.connect() as channel:
        assert Client(channel).error("Get", key="a").code() is StatusCode.UNAVAILABLE
    hold.release()
    assert call.result().success
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
