"""What is acknowledged survives kill -9.

KVTWISTED_CRASH_ROUNDS sets how often each server is killed (3); KVTWISTED_CRASH_SEED repeats a run's random moments.
A long trial: KVTWISTED_CRASH_ROUNDS=100 python -m pytest tests/e2e/test_crash.py -s
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from .harness import PATIENCE, Launcher, eventually
from .history import LARGE
from .ledger import Ledger, check_files, end, start_readers, start_writers

#: Times each server is killed.
ROUNDS = int(os.environ.get("KVTWISTED_CRASH_ROUNDS", "3"))
SEED = int(os.environ.get("KVTWISTED_CRASH_SEED", time.time_ns() % 1_000_000))
#: Writes that are acknowledged before a kill, at most.
WRITES = 300
_SWEEPING = ("--storage-expiry-interval", "1")
_FILES = ("--value-disk-threshold", str(LARGE))


@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(_FILES, marks=pytest.mark.long),
        pytest.param((*_FILES, "--rocksdb-options-sync", "true"), marks=pytest.mark.long),
    ],
    ids=["inline", "files", "files-synced"],
)
def test_nothing_acknowledged_is_lost(launch: Launcher, options: tuple[str, ...]) -> None:
    """After each kill every key holds what its writer was last told, and no batch is half there, nor ever seems so.

    The server is killed under load, while it stops, and while it starts. No file is left over or missing afterwards.
    """
    options = (*_SWEEPING, *options)
    print(f"\nseed {SEED}")
    chance = random.Random(SEED)
    ledger = Ledger()
    looked = large = 0
    for number in range(ROUNDS):
        begun = time.monotonic()
        server = launch(*options)
        to_start = time.monotonic() - begun
        ledger.compare(server)
        large += check_files(server, spilled=_FILES[0] in options)
        writers = start_writers(server, ledger)
        readers = start_readers(server, writers)
        ledger.wait_for_more(chance.randint(1, WRITES), PATIENCE)
        pause(chance.uniform(0, 0.02))
        if number % 3 == 1:
            server.send(signal.SIGTERM)
            pause(chance.uniform(0, 0.5))
        server.kill()
        end(writers)
        for reader in readers:
            reader.join(PATIENCE)
            assert reader.halves == []
            looked += reader.looked
        if number % 3 == 2:
            for _ in range(2):
                starting = launch(*options, ready=False)
                pause(chance.uniform(0, to_start))
                starting.kill()
    server = launch(*options)
    ledger.compare(server)
    large += check_files(server, spilled=_FILES[0] in options)
    print(f"{ROUNDS} kills, {len(ledger)} writes acknowledged, none lost; {looked} looks at batches")
    print(dict(ledger.kinds))
    assert len(ledger) >= ROUNDS
    assert looked
    assert large


def pause(seconds: float) -> None:
    """Let a random moment pass. Nothing is expected to have happened by then."""
    threading.Event().wait(seconds)


@pytest.mark.long
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
