"""Health of a real server whose one storage thread always has scans waiting for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .harness import PATIENCE, Launcher, Server, eventually

#: Scans under way at any time.
SCANS = 40
CHECKS = 20


@contextmanager
def scanning(server: Server) -> Iterator[None]:
    """So many scans wait for the storage thread, while the block runs."""
    url = f"http://{server.http_address}/api/v1/scan?limit=10000&keys_only=true"
    # Of another process, that this one's answers wait for nothing but the server.
    load = subprocess.Popen(
        ["h2load", "--h1", f"--clients={SCANS}", "--requests=1000000", url], stdout=subprocess.DEVNULL
    )
    try:
        yield
        assert load.poll() is None, "the load has ended"
    finally:
        load.kill()
        load.wait()


def test_health_does_not_wait_for_scans(launch: Launcher) -> None:
    """By the queue each check would wait for all scans before it; it is answered while a few of them are done."""
    server = launch("--storage-threads", "1")
    with server.http() as client:
        pairs = {f"key/{number:05}": "v" for number in range(10_000)}
        assert client.post("/api/v1/mset", {"key_values": pairs}).status == 200
        with scanning(server), grpc.insecure_channel(server.grpc_address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            eventually(lambda: client.metric("kv_pool_queue_depth") > SCANS // 2)
            before = client.metrics()
            for _ in range(CHECKS):
                assert client.get("/api/v1/health").body == {"status": "ok"}
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            after = client.metrics()
    gone = {
        name: after[name, frozenset()] - before[name, frozenset()]
        for name in ("kv_scans_total", "kv_health_checks_total")
    }
    assert gone["kv_health_checks_total"] == 2 * CHECKS

    assert gone["kv_scans_total"] < CHECKS * SCANS / 2
