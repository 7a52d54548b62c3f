"""A copy that is kept by watching is what there is: scan, watch after the revision of that, and do what is told."""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
import time

import pytest

from .harness import PATIENCE, Launcher, Server, eventually
from .registers import collect, start
from .watching import Watcher, copy_of, keep, lasting

SEED = int(os.environ.get("KVTWISTED_HISTORY_SEED", time.time_ns() % 1_000_000))


class Batches(threading.Thread):
    """Writes of many keys at once, of all kinds, on the same keys as others and on more."""

    def __init__(self, server: Server, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._http = server.http()
        self._chance = chance
        self.over = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Write until told to end."""
        try:
            for number in itertools.count():
                if self.over.is_set():
                    return
                self._write(number)
        except BaseException as failure:
            self.failure = failure
        finally:
            self._http.close()

    def _write(self, number: int) -> None:
        keys = self._chance.sample([*(f"b/{key}" for key in range(50)), "t/0", "t/1", "r/0"], 20)
        kind = self._chance.choice(["mset", "mdelete", "import", "delete_range"])
        if kind == "mset":
            pairs = {key: f"{number}" * self._chance.choice((1, 800)) for key in keys}
            answer = self._http.post("/api/v1/mset", {"key_values": pairs, "ttl": self._chance.choice((0, 1, 100))})
        elif kind == "mdelete":
            answer = self._http.post("/api/v1/mdelete", {"keys": keys})
        elif kind == "delete_range":
            first, second = sorted(keys[:2])
            answer = self._http.post("/api/v1/delete_range", {"start": first, "end": second})
        else:
            lines = "\n".join(json.dumps({"key": key, "value": f"imported {number}"}) for key in keys)
            answer = self._http.call("POST", "/api/v1/import", lines.encode(), "application/x-ndjson")
        assert answer.status == 200, answer


def _copy(launch: Launcher, seconds: float, *options: str) -> None:
    print(f"\nseed {SEED}")
    chance = random.Random(SEED)
    server = launch("--value-disk-threshold", "2000", "--storage-expiry-interval", "1", *options)
    clients = start(server, ("r/0", "r/1"), ("t/0", "t/1"), chance, each=1)
    batches = Batches(server, random.Random(chance.random()))
    batches.start()
    copies = []
    for number in range(4):
        threading.Event().wait(seconds / 4)
        copy, revision = copy_of(server)
        breaks = random.Random(chance.random()) if number % 2 else None
        watcher = Watcher(server, f"watcher {number}", breaks, after=revision)
        watcher.start()
        copies.append((copy, watcher))
    threading.Event().wait(seconds / 4)
    batches.over.set()
    done = list(collect(clients))
    batches.join(PATIENCE)
    if batches.failure is not None:
        raise batches.failure
    original, revision = copy_of(server)
    now_ms = time.time() * 1000
    for copy, watcher in copies:
        eventually(lambda watcher=watcher: watcher.reached >= revision or watcher.failure)  # type: ignore[misc]
        assert watcher.failure is None, watcher.failure
        keep(copy, watcher.commits, revision)
        assert lasting(copy, now_ms) == lasting(original, now_ms), watcher.name
    print(f"{len(done)} operations, {sum(len(watcher.commits) for _, watcher in copies)} commits watched")
    assert original


def test_a_copy(launch: Launcher) -> None:
    """Four of them, begun at different times, two with connections that break."""
    _copy(launch, 1.5)


@pytest.mark.long
@pytest.mark.parametrize("transport", ["native", "threaded"])
def test_a_copy_for_long(launch: Launcher, transport: str) -> None:
    """On both transports."""
    _copy(launch, 15, "--grpc-transport", transport)
