"""Conditional operations on a few keys, from all interfaces at once and across kill -9, are one after the other.

KVTWISTED_HISTORY_ROUNDS sets how often a server is killed in the long form (6), KVTWISTED_HISTORY_SECONDS how long
clients work before that (5), KVTWISTED_HISTORY_SEED repeats a run's random choices.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from ..support.linearizability import Model, Operation, Request, check, check_revisions
from .harness import Launcher, Server
from .registers import collect, over_grpc, start
from .small_disks import MIB, can_mount, mounted, text
from .watching import Watcher, check_watched

ROUNDS = int(os.environ.get("KVTWISTED_HISTORY_ROUNDS", "6"))
SECONDS = float(os.environ.get("KVTWISTED_HISTORY_SECONDS", "5"))
SEED = int(os.environ.get("KVTWISTED_HISTORY_SEED", time.time_ns() % 1_000_000))

KEYS = ("r/0", "r/1", "r/2")
#: Groups of these are changed and read together.
JOINED = ("t/0", "t/1")
_OPTIONS = ("--value-disk-threshold", "2000", "--storage-expiry-interval", "1")
_SYNC = ("--rocksdb-options-sync", "true")


def _look(server: Server, keys: Sequence[str]) -> list[Operation]:
    """What is there, as one client reads it."""
    ask, close = over_grpc(server)
    operations = []
    for key in keys:
        request, called = Request(reads=(key,)), time.monotonic()
        answer = ask(request)
        operations.append(Operation("look", request, called, time.monotonic(), answer))
    close()
    return operations


def _judge(history: Sequence[Operation], vanishing: Sequence[str] = ()) -> str:
    looked = check(history, Model(frozenset(vanishing)))
    revisions = check_revisions(history)
    answered = [one for one in history if one.answer is not None]
    failed = sum(bool(one.answer and one.answer.failed) for one in answered)
    return (
        f"{len(answered)} operations answered, {len(history) - len(answered)} not, {failed} conditions did not hold, "
        f"{revisions} revisions; {looked} explanations"
    )


def _kill_again_and_again(launch: Launcher, options: Sequence[str], rounds: int, seconds: float) -> None:
    print(f"\nseed {SEED}")
    chance = random.Random(SEED)
    history: list[Operation] = []
    commits = 0
    server = launch(*_OPTIONS, *options)
    for _ in range(rounds):
        watchers = [Watcher(server, "steady"), Watcher(server, "resuming", random.Random(chance.random()))]
        for watcher in watchers:
            watcher.start()
        clients = start(server, KEYS, JOINED, chance)
        threading.Event().wait(chance.uniform(0.7, 1) * seconds)
        server.kill()
        done = list(collect(clients, time.monotonic()))
        commits += check_watched(done, watchers)
        history += done
        server = launch(*_OPTIONS, *options)
        history += _look(server, [*KEYS, *JOINED])
    print(f"{_judge(history)}; {commits} commits watched")
    ways = {one.client.rstrip("0123456789-") for one in history if one.answer is not None and one.request.mutations}
    assert {"grpc", "json", "raw", "pipeline"} <= ways


def test_histories(launch: Launcher) -> None:
    """A server is killed twice while four kinds of clients work on five keys, and two watch."""
    _kill_again_and_again(launch, (), 2, 0.8)


@pytest.mark.long
@pytest.mark.parametrize("transport", ["native", "threaded"])
@pytest.mark.parametrize("options", [(), _SYNC], ids=["nosync", "sync"])
def test_long_histories(launch: Launcher, transport: str, options: tuple[str, ...]) -> None:
    """The same for longer, on both transports, with and without sync."""
    _kill_again_and_again(launch, ("--grpc-transport", transport, *options), ROUNDS, SECONDS)


@pytest.mark.long
@pytest.mark.skipif(not can_mount(), reason="mounting a file system needs root")
def test_histories_beside_eviction(launch: Launcher, tmp_path: Path) -> None:
    """Keys with a ttl vanish for want of room while clients work on them, but not those that are protected."""
    print(f"\nseed {SEED}")
    chance = random.Random(SEED)
    with mounted(tmp_path / "server" / "disk", 96 * MIB) as disk:
        server = launch(
            *_OPTIONS, "--rocksdb-path", str(disk / "data"), "--value-disk-path", str(disk / "values"),
            "--eviction-check-interval", "1", "--eviction-disk-usage-threshold", "40", "--eviction-batch-size", "1000",
            "--eviction-policy", "ttl",
            "--eviction-protected-prefixes", "t/", "--rocksdb-options-write-buffer-size", "1048576",
            "--cache-max-bytes", "0",
        )  # fmt: skip
        watchers = [Watcher(server, "steady")]
        watchers[0].start()
        clients = start(server, KEYS, JOINED, chance)
        evicted = 0.0
        with server.http() as http, server.grpc() as client:
            deadline = time.monotonic() + 4 * SECONDS
            for number in itertools.count():
                client.call("Set", key=f"fill/{number}", value=text(60_000), ttl=100_000)
                if number % 100 == 0:
                    evicted = http.metric("kv_evictions_total", reason="ttl")
                    if time.monotonic() > deadline:
                        break
        done = list(collect(clients))
        server.kill()
        commits = check_watched(done, watchers)
        gone = {event.key for _, events in watchers[0].commits for event in events if event.type == kv.Event.EVICT}
        print(f"{_judge(done, KEYS)}; {commits} commits watched; {evicted:.0f} keys evicted")
        assert gone & {*KEYS}
        assert not gone & {*JOINED}
        launch.end()
