"""A disk that fills up or fails: eviction, clear errors, reads that go on, and recovery."""

from __future__ import annotations

import os
import random
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .clients import Grpc, Http
from .harness import PATIENCE, Launcher, eventually, occupy
from .small_disks import can_mount, mounted

_DISK_SIZE = 64 * 1024 * 1024
#: Small files, so that a small disk is enough. RocksDB takes up writing again when a write buffer's size is free.
_SMALL = (
    *("--rocksdb-options-write-buffer-size", "1048576"),
    *("--rocksdb-options-max-total-wal-size", "1048576"),
    *("--rocksdb-options-target-file-size-base", "1048576"),
    *("--rocksdb-options-compression", "none", "--rocksdb-options-bottommost-compression", "none"),
    *("--monitoring-sample-interval", "1"),
)
_RANDOM = random.Random(2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of _DISK_SIZE where that is possible; else one on whatever disk there is."""
    folder = tmp_path / "server"
    if can_mount():
        with mounted(folder, _DISK_SIZE):
            yield folder
    else:
        folder.mkdir()
        yield folder


def _value(size: int) -> str:
    """Text of `size` characters, a different one each time."""
    return _RANDOM.getrandbits(size * 4).to_bytes(size // 2, "big").hex()


def _percent(folder: Path) -> float:
    figures = os.statvfs(folder)
    used = figures.f_blocks - figures.f_bfree
    return 100 * used / (used + figures.f_bavail)


def test_eviction(small_disk: Path, launch: Launcher) -> None:
    """Keys are evicted, and the batches logged and counted, until the disk is under the threshold.

    On a disk that is full of something else nothing is evicted, and a warning and a metric say so.
    """
    server = launch(*_SMALL)
    occupy(server.folder)
    with server.http() as http, server.grpc() as client:
        keys = [f"key{number:03}" for number in range(40)]
        for key in keys:
            assert client.call("Set", key=key, value=_value(600_000)).success
        # What is stored is 37 % of the small disk, so that this takes the eviction of about a third of it.
        threshold = 25 if can_mount() else 1
        change = {"check_interval": 1, "disk_usage_threshold": threshold, "batch_size": 4}
        assert http.post("/api/v1/config", {"eviction": change}).status == 200
        if can_mount():

            def settled() -> list[str]:
                # In this order: an eviction between the keys and the disk would pair the old keys with the new disk.
                enough = _percent(small_disk) < threshold
                left = list(client.call("ScanKeys").keys)
                counted = http.metric("kv_evictions_total", reason="lru") or 0
                return left if enough and 0 < counted == len(keys) - len(left) else []

            left = eventually(settled)
            assert 10 < len(left) < 30, left

            def told() -> int:
                evicted = re.findall(r"evicted (\d+) keys, \d+ bytes \(lru\)", server.log("running"))
                return sum(map(int, evicted))

            eventually(lambda: told() == len(keys) - len(left))
            assert http.metric("kv_evicted_bytes_total", reason="lru") > 600_000 * (len(keys) - len(left))
        else:
            eventually(lambda: http.metric("kv_evictions_futile_total"))
            server.wait_for_log("running", "nothing is evicted")
            assert list(client.call("ScanKeys").keys) == keys


if can_mount():  # nobody's own disk is filled up; elsewhere `test_a_failing_disk` has to do

    def test_a_full_disk(small_disk: Path, launch: Launcher) -> None:
        """Without space, writes say so, reads go on and health is bad; with space again, all is well by itself."""
        server = launch(*_SMALL)
        with server.http() as http, server.grpc() as client:
            assert client.call("MSet", key_values={"a": "1", "b": "2"}).success
            filler = small_disk / "filler"
            _fill(filler)
            value = _value(100_000)
            # Until the server looks at the disk again.
            answers = (http.post("/api/v1/set", {"key": f"log{number}", "value": value}) for number in range(100))
            answer = next(answer for answer in answers if answer.status != 200)
            assert (answer.status, answer.body["code"]) == (507, "storage_full")
            with pytest.raises(grpc.RpcError, match="full") as refused:
                client.call("Set", key="d", value=value)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            answer = http.post("/api/v1/config", {"eviction": {"batch_size": 5}})
            assert (answer.status, answer.body["code"]) == (507, "storage_full")
            eventually(lambda: "nearly full" in http.get("/api/v1/health").body.get("reason", ""))
            _assert_ill(http, client, "nearly full")

            filler.unlink()
            eventually(lambda: http.get("/api/v1/health").status == 200)
            assert http.post("/api/v1/set", {"key": "c", "value": "3"}).status == 200
            assert client.call("Set", key="d", value="4").success
            assert http.get("/api/v1/config").body["eviction"]["batch_size"] == 100
            assert http.post("/api/v1/config", {"eviction": {"batch_size": 5}}).status == 200
        server.kill()
        with launch(*_SMALL).grpc() as client:
            assert dict(client.call("MGet", keys="abcd").key_values) == {"a": "1", "b": "2", "c": "3", "d": "4"}


def _fill(path: Path) -> None:
    """Write to `path` until the disk is full."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65_536))
        except OSError:
            pass


def _assert_ill(http: Http, client: Grpc, reason: str) -> None:
    """Both health checks say that the server is not well, and everything can still be read."""
    health = http.get("/api/v1/health")
    assert (health.status, health.body["status"]) == (503, "unavailable")
    assert reason in health.body["reason"]
    check = health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert check.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert http.get("/api/v1/get/a").body == {"key": "a", "value": "1"}
    assert dict(client.call("MGet", keys="abcd").key_values) == {"a": "1", "b": "2"}
    assert list(client.call("ScanKeys", limit=2).keys) == ["a", "b"]
    assert http.metric("kv_set_errors_total") >= 2
    assert http.metric("kv_get_errors_total") == 0


def test_a_failing_disk(launch: Launcher) -> None:
    """A disk that refuses writes for another reason: an incident for the client, the cause in the log, reads go on.

    After a restart on a disk that works everything acknowledged is there.
    """
    server = launch()
    with server.http() as http, server.grpc() as client:
        assert client.call("MSet", key_values={"a": "1", "b": "2"}).success
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
        value = _value(100_000)
        answer = http.post("/api/v1/set", {"key": "c", "value": value})
        assert (answer.status, answer.body["code"]) == (500, "storage_error")
        assert "File too large" not in answer.body["error"]
        server.wait_for("File too large")
        server.wait_for(answer.body["incident"])
        with pytest.raises(grpc.RpcError, match="under incident") as refused:
            client.call("Set", key="d", value=value)
        assert refused.value.code() is grpc.StatusCode.INTERNAL
        _assert_ill(http, client, "File too large")
    server.stop()
    with launch().grpc() as client:
        found = dict(client.call("ScanKeyValues").key_values)
        assert found.pop("c", value) == found.pop("d", value) == value
        assert found == {"a": "1", "b": "2"}
