"""A disk that stops taking writes and takes them again: fsync, write and open fail, it fills up, it turns read-only.

Every test has readers going on meanwhile, and a server that recovers without being restarted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.clients import Answer, Grpc, Http
from tests.e2e.harness import Launcher, Server, eventually

from .causes import failing_calls, fill, read_only

#: Small buffers, so that little is needed to fill them; a look at the storage every second; nothing but what is tested.
OPTIONS = (
    *("--rocksdb-options-write-buffer-size", "65536"),
    *("--rocksdb-options-max-total-wal-size", "1048576"),
    *("--monitoring-sample-interval", "1"),
    *("--storage-wal-sync-interval-ms", "0"),
    *("--value-disk-threshold", "100000"),
)
SYNC = ("--rocksdb-options-sync", "true")
OLD = {f"old{number}": f"value{number}" * 20 for number in range(50)}
LARGE = "large" * 30_000


class Scene:
    """A server with some data, a reader that never rests, and a ledger of what was acknowledged."""

    def __init__(self, server: Server, http: Http, client: Grpc) -> None:
        self.server = server
        self.http = http
        self.client = client
        self.pid = server.pid
        self.ledger = {**OLD, "large": LARGE}
        self.uncertain: set[str] = set()
        self._stop = threading.Event()
        self._reads = 0
        self._wrong: list[object] = []
        #: What the running log says when all is well again.
        self.last_line = "writes work again"
        assert client.call("MSet", key_values=OLD).success
        assert self.set("large", LARGE).status == 200

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within the block all that is old is read over and over, and must be right; refusals may be tried again."""
        reader = threading.Thread(target=self._read)
        reader.start()
        try:
            yield
        finally:
            self._stop.set()
            reader.join()
        assert self._wrong == []
        assert self._reads > 20

    def _read(self) -> None:
        with self.server.http() as http, self.server.grpc() as client:
            while not self._stop.is_set():
                for key in ("old7", "large"):
                    answer = http.get(f"/api/v1/get/{key}")
                    self._check(answer.status == 503 or answer.body.get("value") == self.ledger[key], answer)
                try:
                    found = dict(client.call("MGet", keys=list(OLD)).key_values)
                    self._check(found == OLD, found)
                    found = dict(client.call("ScanKeyValues", prefix="old").key_values)
                    self._check(found == OLD, found)
                except grpc.RpcError as error:
                    self._check(error.code() is grpc.StatusCode.UNAVAILABLE, error)
                self._reads += 1

    def _check(self, right: bool, seen: object) -> None:
        if not right:
            self._wrong.append(seen)

    def set(self, key: str, value: str) -> Answer:
        """A Set over HTTP, entered in the ledger."""
        self.uncertain.add(key)
        answer = self.http.post("/api/v1/set", {"key": key, "value": value})
        if answer.status == 200:
            self.ledger[key] = value
            self.uncertain.discard(key)
        return answer

    def first_refusal(self, name: str) -> Answer:
        """Write until that is refused."""
        for number in range(2000):
            answer = self.set(f"{name}{number}", f"{number:04}" * 500)
            if answer.status != 200:
                return answer
        raise AssertionError("no write was refused")

    def assert_refused(self, answer: Answer, status: int, code: str, grpc_code: grpc.StatusCode) -> None:
        """Writes fail over both interfaces as they should, and both health checks say that the server is not well."""
        assert (answer.status, answer.body["code"]) == (status, code), answer
        if status == 500:
            self.server.wait_for_log("error", answer.body["incident"])
        self.uncertain.add("refused")
        with pytest.raises(grpc.RpcError) as refused:
            self.client.call("Set", key="refused", value="x" * 3000)
        assert refused.value.code() is grpc_code
        self.assert_ill()

    def assert_ill(self) -> str:
        """Health says that writes fail; reads go on; the log tells it once."""
        health = self.http.get("/api/v1/health")
        assert (health.status, health.body["status"]) == (503, "unavailable")
        assert "writes fail: " in health.body["reason"]
        assert self.http.get("/api/v1/get/old7").body["value"] == OLD["old7"]
        self.lines("writes fail, and are tried again")
        return str(health.body["reason"])

    def lines(self, text: str) -> list[str]:
        """The lines of the running log with that text, at least one."""
        return eventually(lambda: [line for line in self.server.log("running").splitlines() if text in line])

    def recovered(self) -> None:
        """The same process is well again by itself, takes writes and has everything; a crash loses nothing either."""
        eventually(lambda: self.http.get("/api/v1/health").status == 200)
        assert self.set("after", "it works").status == 200
        assert self.set("large after", LARGE).status == 200
        assert self.client.call("Set", key="by grpc", value="too").success
        self.ledger["by grpc"] = "too"
        assert len(self.lines(self.last_line)) == 1
        assert self.server.process.poll() is None
        assert self.server.pid == self.pid
        self.assert_complete(self.client)

    def assert_complete(self, client: Grpc) -> None:
        """All that was acknowledged is there; of what was refused, the whole value or nothing."""
        found = all_pairs(client)
        missing = {key: value for key, value in self.ledger.items() if found.get(key) != value}
        assert missing.keys() == set()
        assert found.keys() - self.ledger.keys() <= self.uncertain


def all_pairs(client: Grpc) -> dict[str, str]:
    """Everything, page by page."""
    found: dict[str, str] = {}
    cursor = ""
    while True:
        page: Any = client.call("ScanKeyValues", limit=500, cursor=cursor)
        found.update(page.key_values)
        cursor = page.next_cursor
        if not cursor:
            return found


@contextmanager
def scene(launch: Launcher, *options: str) -> Iterator[Scene]:
    """A scene that is well at the end, and whose data survives that the server is then killed."""
    server = launch(*OPTIONS, *options)
    with server.http() as http, server.grpc() as client:
        this = Scene(server, http, client)
        with this.reading():
            yield this
            this.recovered()
    server.kill()
    with launch(*OPTIONS, *options).grpc() as again:
        this.assert_complete(again)


def test_fsync_fails(launch: Launcher) -> None:
    """A write that waits for the disk is refused when the fsync fails, and taken when it works again."""
    with scene(launch, *SYNC) as this, failing_calls(this.server, "fsync,fdatasync"):
        answer = this.set("k", "v")
        this.assert_refused(answer, 500, "storage_error", grpc.StatusCode.INTERNAL)
        assert "Input/output error" in this.assert_ill()


@pytest.mark.long
def test_fsync_in_the_background_fails(launch: Launcher) -> None:
    """Where writes do not wait, the periodic fsync finds it out, and health says so."""
    with scene(launch, "--storage-wal-sync-interval-ms", "100") as this, failing_calls(this.server, "fsync,fdatasync"):
        this.set("k", "v")
        eventually(lambda: this.http.get("/api/v1/health").status == 503)
        assert "Input/output error" in this.assert_ill()


@pytest.mark.long
def test_flush_fails(launch: Launcher) -> None:
    """A table file that cannot be synced stops RocksDB for good; it is opened anew once the disk works."""
    with scene(launch) as this, failing_calls(this.server, "fsync,fdatasync"):
        answer = this.first_refusal("fill")
        this.assert_refused(answer, 500, "storage_error", grpc.StatusCode.INTERNAL)
        assert "Input/output error" in this.assert_ill()


def test_log_cannot_be_written(launch: Launcher) -> None:
    """Input/output errors of the write-ahead log refuse the write, and every one after it until they are over."""
    with scene(launch) as this:
        logs = list((this.server.folder / "data").glob("*.log"))
        with failing_calls(this.server, "write,pwrite64", files=logs):
            answer = this.set("k", "v")
            assert (answer.status, answer.body["code"]) == (500, "storage_error")
            this.server.wait_for_log("error", answer.body["incident"])


@pytest.mark.long
def test_large_values_while_the_log_cannot_be_written(launch: Launcher) -> None:
    """However often a large value is refused, at most one file is left, which goes once the database was reopened."""
    with scene(launch) as this:
        values = this.server.folder / "value_data"
        logs = list((this.server.folder / "data").glob("*.log"))
        with failing_calls(this.server, "write,pwrite64", files=logs):
            for _ in range(5):
                answer = this.set("large refused", LARGE)
                assert (answer.status, answer.body["code"]) == (500, "storage_error")
            assert len(list(values.glob("??/*"))) <= 2
        this.recovered()
        # Whether the first refused one is there after all is uncertain; what is there has its file, and no other is.
        large = [key for key, value in all_pairs(this.client).items() if value == LARGE]
        assert {"large", "large after"} <= set(large) <= {"large", "large after", "large refused"}
        eventually(lambda: len(list(values.glob("??/*"))) == len(large))


def test_full_disk(small_disk: Path, launch: Launcher) -> None:
    """Without space writes are 507, large ones too; with space all is well, also where writes wait for an fsync."""
    with scene(launch, *SYNC, "--eviction-enabled", "false") as this:
        filler = small_disk / "filler"
        fill(filler)
        answer = this.set("large refused", "x" * 500_000)
        assert (answer.status, answer.body["code"]) == (507, "storage_full")
        answer = this.first_refusal("fill")
        this.assert_refused(answer, 507, "storage_full", grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert "no space" in this.assert_ill().lower()
        filler.unlink()


def test_read_only_disk(small_disk: Path, launch: Launcher) -> None:
    """What can be read is read; writes are refused, and not tried, as soon as it is noticed; then all is well again."""
    folders = small_disk / "data", small_disk / "value_data"
    with scene(launch, "--eviction-enabled", "false") as this, read_only(*folders):
        this.last_line = "rocksdb.path: the folder is as it was"
        eventually(lambda: this.http.get("/api/v1/health").body.get("reason", "").count("Read-only file system") == 2)
        for value in ("v", LARGE):
            answer = this.set("refused", value)
            assert (answer.status, answer.body["code"]) == (503, "folder_lost")
            assert f"rocksdb.path: the folder {folders[0]} cannot be written any more" in answer.body["error"]
        with pytest.raises(grpc.RpcError, match=r"rocksdb\.path: the folder") as refused:
            this.client.call("Delete", key="old7")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert this.http.get("/api/v1/get/old7").body["value"] == OLD["old7"]


@pytest.mark.long
def test_value_folder_alone(small_disk: Path, launch: Launcher) -> None:
    """Only large values need their folder: small ones are taken all the time; the database stays open."""
    with scene(launch, "--eviction-enabled", "false") as this:
        opened = set((small_disk / "data").glob("OPTIONS-*"))
        with read_only(small_disk / "value_data"):
            answer = this.set("large refused", LARGE)
            assert (answer.status, answer.body["code"]) == (500, "unusable_path")
            assert "value.disk_path: cannot write a large value" in answer.body["error"]
            assert this.set("small", "v").status == 200
            this.lines("writes fail, and are tried again")
            assert "Read-only file system" in this.assert_ill()
        assert set((small_disk / "data").glob("OPTIONS-*")) == opened
