"""One failed call of the disk, under traffic, in a server whose collector never runs: reads go on and writes return.

What keeps the old database would keep it for ever here.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.clients import Http
from tests.e2e.harness import FREE_PORTS, Launcher, Server, engine, eventually, transport

from .causes import failing_calls, fill

#: twistd without the collector.
TWISTD = (
    sys.executable,
    "-c",
    "import gc, sys; gc.disable(); from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()",
)
OPTIONS = ("--monitoring-sample-interval", "1", "--storage-wal-sync-interval-ms", "100", "--cache-max-bytes", "0")
#: Reads of a reader in a row that may be refused, with a pause of PAUSE seconds between two.
MOST_REFUSED, PAUSE = 20, 0.05
#: Of a write that fails, on a disk that is full or not, and of what is being reopened.
EXPECTED = (grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
KEYS = {f"key{number:03}": "v" * 2000 for number in range(300)}


class Traffic:
    """Clients that read, write and page through everything, slowly, until told to stop."""

    def __init__(self, server: Server, clients: int) -> None:
        self._server = server
        self._stop = threading.Event()
        self.wrong: list[object] = []
        self.most_refused = 0
        self.acknowledged: dict[str, str] = {}
        jobs = [self._read, *[self._write, self._scan, self._mget][: 3 if clients > 1 else 1]] * max(1, clients // 3)
        self._threads = [
            threading.Thread(target=self._run, args=(job, number)) for number, job in enumerate(jobs[: clients + 1])
        ]

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Within the block they are at it."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _run(self, job: Any, number: int) -> None:
        with self._server.http() as http, self._server.grpc() as client:
            for turn in itertools.count():
                if self._stop.wait(PAUSE):
                    return
                try:
                    job(http, client, f"{number}-{turn}")
                except grpc.RpcError as error:
                    if error.code() not in EXPECTED:
                        self.wrong.append(error)
                except Exception as error:
                    self.wrong.append(error)
                    return

    def _read(self, http: Http, client: Any, turn: str) -> None:
        """One key, again and again until it is there."""
        for refused in itertools.count():
            answer = http.get("/api/v1/get/key007")
            if answer.status != 503:
                break
            self.most_refused = max(self.most_refused, refused + 1)
            time.sleep(PAUSE)
        assert answer.body["value"] == KEYS["key007"], answer

    def _write(self, http: Http, client: Any, turn: str) -> None:
        assert http.post("/api/v1/set", {"key": f"new{turn}", "value": turn}).status in (200, 500, 503, 507)
        pairs = {f"pair{turn}": turn, f"expires{turn}": turn}
        if client.call("MSet", key_values=pairs, ttl=1000).success:
            self.acknowledged.update(pairs)

    def _scan(self, http: Http, client: Any, turn: str) -> None:
        cursor = ""
        while not self._stop.is_set():
            page = client.call("ScanKeyValues", prefix="key", limit=10, cursor=cursor)
            cursor = page.next_cursor
            if not cursor:
                return

    def _mget(self, http: Http, client: Any, turn: str) -> None:
        assert dict(client.call("MGet", keys=list(KEYS)).key_values) == KEYS


def launched(launch: Launcher, *options: str) -> Server:
    """A server without collector, with KEYS."""
    chosen = ("--storage-engine", engine(), "--grpc-transport", transport())
    server = launch.run([*TWISTD, "-n", "--pidfile=", "kvtwisted", *FREE_PORTS, *chosen, *OPTIONS, *options])
    with server.grpc() as client:
        assert client.call("MSet", key_values=KEYS).success
    return server


@pytest.mark.parametrize("clients", [1, pytest.param(9, marks=pytest.mark.long)], ids=["light", "heavy"])
def test_one_failed_write_of_the_log(launch: Launcher, clients: int) -> None:
    """Twice in a row: whatever holds on to the first database, the second is opened, and so is the third."""
    server = launched(launch)
    traffic = Traffic(server, clients)
    with server.http() as http, traffic.flowing():

        def write() -> int:
            return int(http.post("/api/v1/mset", {"key_values": {"a": "1", "b": "2"}, "ttl": 500}).status)

        for turn in range(2):
            logs = list((server.folder / "data").glob("*.log"))
            with failing_calls(server, "write,pwrite64", files=logs):
                eventually(lambda: write() == 500)
            eventually(lambda turn=turn: server.output.count("writes work again") == turn + 1)
            eventually(lambda: write() == 200)
    assert traffic.wrong == []
    assert traffic.most_refused <= MOST_REFUSED
    server.kill()
    with launch(*OPTIONS).grpc() as client:
        found = dict(client.call("ScanKeyValues").key_values)
    assert {**KEYS, **traffic.acknowledged}.items() <= found.items()


@pytest.mark.long
def test_full_disk_whose_space_comes_back(small_disk: Path, launch: Launcher) -> None:
    """Under light traffic, without a restart."""
    small = ("--rocksdb-options-write-buffer-size", "65536", "--rocksdb-options-max-total-wal-size", "1048576")
    server = launched(launch, *small, "--eviction-enabled", "false", "--eviction-high-water-mark", "100")
    traffic = Traffic(server, 1)
    with server.http() as http, traffic.flowing():
        for _ in range(2):
            filler = small_disk / "filler"
            fill(filler)
            pairs = {f"fill{number}": "x" * 10_000 for number in range(10)}
            eventually(lambda pairs=pairs: http.post("/api/v1/mset", {"key_values": pairs}).status == 507)
            filler.unlink()
            eventually(lambda: http.get("/api/v1/health").status == 200)
            assert http.post("/api/v1/mset", {"key_values": pairs}).status == 200
    assert traffic.wrong == []
    assert traffic.most_refused <= MOST_REFUSED
