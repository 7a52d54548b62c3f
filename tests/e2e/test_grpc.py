"""All operations over gRPC, and that both interfaces serve the same data."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from .harness import PATIENCE, REPOSITORY, Server

_REQUIREMENTS = REPOSITORY / "tests" / "rpc" / "requirements.proto"


def test_all_operations(server: Server) -> None:
    """The ten operations with the package's own messages, ttl and cursor included."""
    with server.grpc() as client:
        assert client.call("Set", key="grpc/a", value="1").success
        assert client.call("MSet", key_values={"grpc/b": "2", "grpc/c": "3"}, ttl=1000).success
        found = client.call("Get", key="grpc/a")
        assert (found.found, found.value, found.ttl, found.error) == (True, "1", 0, "")
        found = client.call("Get", key="grpc/b")
        assert (found.found, found.value) == (True, "2")
        assert 900 < found.ttl <= 1000
        missing = client.call("Get", key="grpc/missing")
        assert (missing.found, missing.value, missing.ttl, missing.error) == (False, "", 0, "")
        values = client.call("MGet", keys=["grpc/c", "grpc/missing", "grpc/a"])
        assert (dict(values.key_values), values.error) == ({"grpc/a": "1", "grpc/c": "3"}, "")
        page = client.call("ScanKeys", prefix="grpc/", limit=2)
        assert (list(page.keys), page.next_cursor, page.error) == (["grpc/a", "grpc/b"], "grpc/b", "")
        page = client.call("ScanKeyValues", prefix="grpc/", limit=2, cursor=page.next_cursor)
        assert (dict(page.key_values), page.next_cursor, page.error) == ({"grpc/c": "3"}, "", "")
        assert client.call("Delete", key="grpc/a").success
        assert client.call("Delete", key="grpc/a").success
        assert client.call("MDelete", keys=["grpc/b", "grpc/missing"]).success
        assert list(client.call("ScanKeys", prefix="grpc/").keys) == ["grpc/c"]
        assert client.call("UpdateConfig", config='{"eviction": {"batch_size": 60}}').success
        assert json.loads(client.call("GetConfig").config)["eviction"]["batch_size"] == 60


def test_one_interface_reads_what_the_other_wrote(server: Server) -> None:
    """Values, deadlines, batches and deletions made through one interface are there in the other."""
    with server.http() as http, server.grpc() as client:
        http.post("/api/v1/set", {"key": "both/http", "value": "né", "ttl": 1000})
        client.call("MSet", key_values={"both/grpc": "ü", "both/gone": "x"})
        found = client.call("Get", key="both/http")
        assert (found.found, found.value) == (True, "né")
        assert 900 < found.ttl <= 1000
        assert http.get("/api/v1/get/both/grpc").body == {"key": "both/grpc", "value": "ü"}
        http.call("DELETE", "/api/v1/delete/both/gone")
        assert not client.call("Get", key="both/gone").found
        assert http.post("/api/v1/mget", {"keys": ["both/grpc", "both/gone"]}).body == {"results": {"both/grpc": "ü"}}
        assert list(client.call("ScanKeys", prefix="both/").keys) == ["both/grpc", "both/http"]
        client.call("MDelete", keys=["both/grpc", "both/http"])
        assert http.get("/api/v1/scan?prefix=both/").body["count"] == 0


def test_batches_are_seen_whole(server: Server) -> None:
    """While batches are set and deleted through one interface, no read of the other sees a part of one."""
    keys = [f"whole/{number}" for number in range(50)]
    reading = threading.Event()

    def write() -> int:
        number = 0
        with server.grpc() as client:
            while reading.is_set():
                number += 1
                assert client.call("MSet", key_values=dict.fromkeys(keys, str(number))).success
                if number % 5 == 0:
                    assert client.call("MDelete", keys=keys).success
        return number

    seen = set()
    reading.set()
    with ThreadPoolExecutor(1) as pool, server.http() as http:
        written = pool.submit(write)
        try:
            for _ in range(100):
                for found in (
                    http.get("/api/v1/scan?prefix=whole/").body["results"],
                    http.post("/api/v1/mget", {"keys": keys}).body["results"],
                ):
                    assert len(found) in (0, 50)
                    assert len(set(found.values())) <= 1
                    seen.update(found.values())
        finally:
            reading.clear()
        assert written.result() >= len(seen) > 1


def test_a_client_made_from_the_requirements(server: Server, tmp_path: Path) -> None:
    """A client generated from the requirements' text, which names no package, does all ten operations."""
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={_REQUIREMENTS.parent}"]
    generate = [*protoc, f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}", _REQUIREMENTS.name]
    subprocess.run(generate, check=True, timeout=PATIENCE)
    client = str(Path(__file__).with_name("requirements_client.py"))
    done = subprocess.run(
        [sys.executable, client, str(tmp_path), server.grpc_address],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    refused, error = answers.pop("refused")
    assert not refused
    assert error.startswith("key: ")
    assert answers == {
        "set": [True, ""],
        "mset": [True, ""],
        "get": [True, "1", ""],
        "get missing": [False, "", ""],
        "mget": {"req/a": "1", "req/c": "3"},
        "scan keys": ["req/a", "req/b", "req/c"],
        "scan": {"req/a": "1", "req/b": "2", "req/c": "3"},
        "delete": [True, ""],
        "mdelete": [True, ""],
        "left": ["req/c"],
        "update": [True, ""],
        "config": 7,
    }


@pytest.mark.parametrize("name", ["", "kv.v1.KeyValueService", "KeyValueService"])
def test_health(server: Server, name: str) -> None:
    """grpc.health.v1 answers SERVING for the server and for both names of its service."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        request = health_pb2.HealthCheckRequest(service=name)
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection(server: Server) -> None:
    """Reflection lists the services, so that grpcurl needs no proto file."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        names = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {"kv.v1.KeyValueService", "KeyValueService", "grpc.health.v1.Health"} <= names
