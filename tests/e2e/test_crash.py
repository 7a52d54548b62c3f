"""What is acknowledged survives kill -9."""

from __future__ import annotations

import time

import pytest

from .harness import PATIENCE, Launcher, eventually
from .ledger import LARGE, Ledger, start_writers

#: Times the server is killed. A larger number makes a longer trial.
ROUNDS = 3
#: Writes that are acknowledged before each kill.
WRITES = 300


@pytest.mark.parametrize("options", [(), ("--value-disk-threshold", str(LARGE))], ids=["inline", "files"])
def test_nothing_acknowledged_is_lost(launch: Launcher, options: tuple[str, ...]) -> None:
    """After each kill under load every key holds what its writer was last told, and no batch is half there.

    Neither is a large value, and no file is left over after a start.
    """
    ledger = Ledger()
    for _ in range(ROUNDS):
        server = launch(*options)
        ledger.compare(server)
        writers = start_writers(server, ledger)
        ledger.wait_for_more(WRITES, PATIENCE)
        server.kill()
        for writer in writers:
            writer.join(PATIENCE)
            assert writer.failure is not None
            assert not isinstance(writer.failure, AssertionError)
    server = launch(*options)
    files = list((server.folder / "value_data").glob("??/*"))
    ledger.compare(server)
    assert len(ledger) >= ROUNDS * WRITES
    with server.grpc() as client:
        large = sum(len(value) >= LARGE for value in client.call("ScanKeyValues").key_values.values())
    assert len(files) == (large if options else 0)
    assert bool(large)


def test_everything_is_there_after_a_crash(launch: Launcher) -> None:
    """Data of both interfaces, deadlines and configuration are there after kill -9; what has expired is not.

    No sweep comes so soon: the expired records are in the storage, and yet nobody gets to see them.
    """
    server = launch("--storage-expiry-interval", "60")
    longest = "ü" * 524_288
    with server.http() as http, server.grpc() as client:
        http.post("/api/v1/set", {"key": "expires before", "value": "x", "ttl": 1})
        http.post("/api/v1/set", {"key": "expires later", "value": "x", "ttl": 1000})
        client.call("MSet", key_values={"stays": longest, "deleted": "x"})
        client.call("Delete", key="deleted")
        http.post("/api/v1/config", {"eviction": {"batch_size": 33}})
        eventually(lambda: http.get("/api/v1/get/expires%20before").status == 404)
        client.call("Set", key="expires meanwhile", value="x", ttl=1)
        gone_at = time.time() + 1
    server.kill()
    eventually(lambda: time.time() >= gone_at)
    restarted = launch("--storage-expiry-interval", "60")
    with restarted.http() as http, restarted.grpc() as client:
        assert list(client.call("ScanKeys").keys) == ["expires later", "stays"]
        gone = ["expires before", "expires meanwhile", "deleted"]
        assert [client.call("Get", key=key).found for key in gone] == [False] * 3
        assert http.post("/api/v1/mget", {"keys": [*gone, "expires later"]}).body == {"results": {"expires later": "x"}}
        assert client.call("Get", key="stays").value == longest
        assert 900 < client.call("Get", key="expires later").ttl <= 1000
        assert http.get("/api/v1/config").body["eviction"]["batch_size"] == 33
