"""What a wall clock does to a server when somebody sets it: nothing but to the dates that it shows.

The clock is set under a running server by libfaketime (`tests/e2e/wall_clock.py`), which leaves the monotonic one as it
is. With the power cut: `tests/e2e/test_power_loss.py`.
"""

from __future__ import annotations

import threading
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from .clients import Answer
from .harness import PATIENCE, Launcher, Server, connect, eventually
from .test_authentication import Tokens
from .wall_clock import WallClock

HOUR = 3600
_EVERY_SECOND = (
    *("--logging-performance-interval", "1", "--monitoring-sample-interval", "1"),
    *("--storage-wal-sync-interval-ms", "100", "--http-idle-timeout", "1"),
)
#: So that the clock is not marked by the way.
_SELDOM_SWEPT = ("--storage-expiry-interval", "60")


@pytest.fixture
def wall(tmp_path: Path) -> WallClock:
    """The wall clock, which is right so far."""
    return WallClock(tmp_path / "wall")


def test_set_back(launch: Launcher, wall: WallClock) -> None:
    """By an hour, and again: periodic tasks go on, idle connections are ended, keys expire, tokens are followed.

    Dates that people read are those of the wall clock.
    """
    tokens = Tokens(launch.folder / "server")
    token = tokens.create("first", "get,set,metrics")
    server = launch("--security-tokens", str(tokens.path), *_EVERY_SECOND, env=wall.environment)

    def ask(path: str, token: str = token) -> Answer:
        # Each time on a new connection, since an idle one may be ended at any moment.
        with server.http(token) as http:
            return http.get(path)

    def metric(name: str) -> float:
        with server.http(token) as http:
            return http.metric(name)

    def lines() -> int:
        return len(server.log("performance").splitlines())

    wall.step(-HOUR)
    before = lines()
    eventually(lambda: lines() > before)
    wall.step(-HOUR)
    before, swept = lines(), metric("kv_expirations_total")
    with server.grpc(token) as client:
        assert client.call("Set", key="brief", value="1", ttl=1).success
    with connect(server.http_address) as idle:
        new = tokens.create("new", "get")
        eventually(lambda: ask("/api/v1/get/none", new).status == 404)
        eventually(lambda: ask("/api/v1/get/brief").status == 404)
        eventually(lambda: metric("kv_expirations_total") == swept + 1)
        eventually(lambda: lines() > before + 1)
        assert idle.recv(1) == b""
    assert -wall.offset - 5 < metric("kv_clock_ahead_seconds") < -wall.offset + 5
    date = parsedate_to_datetime(ask("/api/v1/get/none").headers["date"]).timestamp()
    assert abs(date - (time.time() + wall.offset)) < PATIENCE
    assert "at its next turn" not in server.log("running")


def _set_forward(server: Server, wall: WallClock, steps: int) -> None:
    """Set the clock forward by hours while clients ask, of whose requests none may fail."""
    refused: list[object] = []
    done = threading.Event()
    client, http = server.grpc(), server.http()

    def ask_http() -> None:
        answers = [
            http.post("/api/v1/set", {"key": "a", "value": "1"}),
            http.get("/api/v1/scan?prefix=a"),
            http.post("/api/v1/mset", {"key_values": {"b": "2"}}),
            http.get("/api/v1/health"),
        ]
        refused.extend(answer for answer in answers if answer.status != 200)

    def ask_grpc() -> None:
        client.call("Set", key="c", value="3")
        client.call("ScanKeys", prefix="c")

    asking = (ask_http, ask_grpc, ask_grpc)
    asked = [0 for _ in asking]

    def go_on(number: int) -> None:
        while not done.is_set():
            try:
                asking[number]()
            except Exception as error:
                refused.append(error)
            asked[number] += 1

    threads = [threading.Thread(target=go_on, args=(number,)) for number in range(len(asking))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(steps):
            before = list(asked)
            wall.step(HOUR)
            eventually(lambda before=before: refused or all(now > then + 3 for now, then in zip(asked, before)))
    finally:
        done.set()
        for thread in threads:
            thread.join(PATIENCE)
        client.channel.close()
        http.close()
    assert refused == []


@pytest.mark.long
def test_expired_and_killed(launch: Launcher, wall: WallClock) -> None:
    """A key that was once answered as absent stays so, after kill -9 and a start with a clock that was set back since.

    Set forward, also by hours at a time, the clock makes no request late and no connection idle.
    """
    server = launch(*_SELDOM_SWEPT, env=wall.environment)
    with server.http() as http, server.grpc() as client:
        keys = [f"brief{number}" for number in range(4)]
        assert client.call("MSet", key_values=dict.fromkeys(keys, "1"), ttl=1).success
        wall.step(-HOUR)
        eventually(lambda: http.get(f"/api/v1/get/{keys[0]}").status == 404)
    server.kill()
    server = launch(*_SELDOM_SWEPT, env=wall.environment)
    server.wait_for("the system's clock is 3[56].. s behind the time that the data has reached")
    with server.http() as http, server.grpc() as client:
        assert [http.get(f"/api/v1/get/{key}").status for key in keys] == [404] * 4
        assert list(client.call("ScanKeys").keys) == []
    _set_forward(server, wall, 2)


@pytest.mark.long
def test_set_forward_often(launch: Launcher, wall: WallClock) -> None:
    """The same for a day's worth of hours."""
    _set_forward(launch(env=wall.environment), wall, 24)
