"""Folders that go away under a running server, or lose their mount or their permissions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.clients import Grpc, Http
from tests.e2e.harness import PATIENCE, Launcher, Server, eventually

from .causes import read_only

LARGE = "x" * 200_000
OPTIONS = ("--value-disk-threshold", "100000", "--monitoring-sample-interval", "1", "--eviction-check-interval", "1")


class Scene:
    """A server with some data."""

    def __init__(self, launch: Launcher) -> None:
        self.server: Server = launch(*OPTIONS)
        self.http: Http = self.server.http()
        self.grpc: Grpc = self.server.grpc()
        self.data, self.values = self.server.folder / "data", self.server.folder / "value_data"
        for key, value in {"small": "v", "large": LARGE}.items():
            assert self.set(key, value).status == 200

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *exception: object) -> None:
        self.http.close()
        self.grpc.channel.close()

    def set(self, key: str, value: str) -> Any:
        """Set a key over HTTP."""
        return self.http.post("/api/v1/set", {"key": key, "value": value})

    def ill(self, *words: str) -> str:
        """The reason, once health has all these words in it, over both interfaces."""

        def look() -> str | None:
            health = self.http.get("/api/v1/health")
            reason = str(health.body.get("reason"))
            return reason if health.status == 503 and all(word in reason for word in words) else None

        reason = eventually(look)
        assert self.checked() == health_pb2.HealthCheckResponse.NOT_SERVING
        return reason

    def well(self) -> None:
        """Wait until the server is ready again, without a restart, and takes all writes."""
        eventually(lambda: self.http.get("/api/v1/health").status == 200)
        assert self.checked() == health_pb2.HealthCheckResponse.SERVING
        assert self.set("after", "v").status == self.set("large after", LARGE).status == 200

    def checked(self) -> Any:
        """What gRPC's health service says."""
        stub = health_pb2_grpc.HealthStub(self.grpc.channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status

    def refused(self, folder: Path) -> None:
        """Whatever would be written is refused, by name, and not tried; what is there can be read."""
        for request in ("set", {"key": "no", "value": "v"}), ("mset", {"key_values": {"no": "v"}}):
            answer = self.http.post(f"/api/v1/{request[0]}", request[1])
            assert (answer.status, answer.body["code"]) == (503, "folder_lost"), answer.body
            assert "rocksdb.path" in answer.body["error"]
            assert str(folder) in answer.body["error"]
        for method, fields in {"Set": {"key": "no", "value": "v"}, "Delete": {"key": "small"}}.items():
            with pytest.raises(grpc.RpcError, match=r"rocksdb\.path: the folder") as failed:
                self.grpc.call(method, **fields)
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert self.http.get("/api/v1/get/small").body["value"] == "v"
        assert list(self.grpc.call("ScanKeys").keys) == ["large", "small"]

    def lines(self, words: str) -> int:
        """How often the running log says so."""
        return self.server.log("running").count(words)


@pytest.fixture
def scene(launch: Launcher) -> Any:
    """A server that is well."""
    with Scene(launch) as scene:
        yield scene


def test_data_folder_that_is_renamed_and_comes_back(scene: Scene) -> None:
    """It is said once and not each second, nothing is acknowledged meanwhile, and all is well when it is back.

    An empty folder in its place is not taken for it.
    """
    aside = scene.data.rename(scene.server.folder / "aside")
    scene.ill("rocksdb.path", str(scene.data), "is lost")
    scene.refused(scene.data)
    scene.data.mkdir()
    scene.ill("rocksdb.path", "is not the one that the server has opened", "restart")
    scene.refused(scene.data)
    assert list(scene.data.iterdir()) == []
    scene.data.rmdir()
    scene.ill("is lost")
    aside.rename(scene.data)
    scene.well()
    assert scene.lines("rocksdb.path: the folder is as it was") == 1
    assert scene.lines("is lost: No such file") == 2
    assert scene.lines("Traceback") == 0
    assert "no" not in scene.grpc.call("ScanKeys").keys


@pytest.mark.long
@pytest.mark.parametrize(
    "remove",
    [shutil.rmtree, lambda folder: [file.unlink() for file in folder.iterdir() if file.is_file()]],
    ids=["folder", "files"],
)
def test_data_folder_that_is_deleted(scene: Scene, remove: Callable[[Path], object]) -> None:
    """Not ready, and nothing is acknowledged into files that nobody will find."""
    remove(scene.data)
    scene.ill("rocksdb.path", str(scene.data))
    scene.refused(scene.data)
    assert scene.lines("Traceback") == 0


@pytest.mark.long
def test_value_folder_that_is_renamed_and_comes_back(scene: Scene) -> None:
    """Large values are refused, by name, and cannot be read; small ones go on; the server is not ready."""
    aside = scene.values.rename(scene.server.folder / "aside")
    scene.ill("value.disk_path", str(scene.values), "is lost")
    answer = scene.set("no", LARGE)
    assert (answer.status, answer.body["code"]) == (500, "unusable_path")
    assert f"value.disk_path: cannot write a large value in {scene.values}" in answer.body["error"]
    answer = scene.http.get("/api/v1/get/large")
    assert (answer.status, answer.body["code"]) == (500, "unusable_path")
    assert scene.set("another small", "v").status == 200
    aside.rename(scene.values)
    scene.well()
    assert scene.http.get("/api/v1/get/large").body["value"] == LARGE
    assert scene.lines("value.disk_path: the folder is as it was") == 1


@pytest.mark.long
def test_data_folder_that_cannot_be_written(scene: Scene) -> None:
    """Read-only, as a mount or permissions make it: refused before anything is tried, and well again afterwards."""
    with read_only(scene.data):
        scene.ill("rocksdb.path", "cannot be written any more: Read-only file system")
        scene.refused(scene.data)
    scene.well()


def test_other_folders(scene: Scene) -> None:
    """A folder of backups, and a file of changes, that cannot be used: an error with a name, path and key."""
    backups = scene.server.folder / "backups"
    backups.write_text("a file in the way")
    answer = scene.http.post("/api/v1/admin/backup", {"name": "b"})
    assert (answer.status, answer.body["code"]) == (500, "unusable_path"), answer.body
    assert "backup.path: cannot make a backup" in answer.body["error"]
    assert str(backups) in answer.body["error"]
    runtime = scene.server.folder / "kvtwisted.runtime.json"
    (scene.server.folder / "kvtwisted.runtime.json.tmp").mkdir()
    answer = scene.http.post("/api/v1/config", {"eviction": {"batch_size": 5}})
    assert (answer.status, answer.body["code"]) == (500, "unusable_path"), answer.body
    assert f"{runtime} (--runtime-config) cannot be saved" in answer.body["error"]
    assert scene.http.get("/api/v1/health").status == 200
