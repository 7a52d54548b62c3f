"""The metrics, as Prometheus itself sees them."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .clients import Grpc, Http
from .harness import PATIENCE, Server, eventually

#: The least of which each must have a sample, whatever the engine.
DOCUMENTED = [
    *(f"kv_{name}_latency_seconds_count" for name in ("set", "get", "delete", "scan", "health_check")),
    *(f"kv_{name}_total" for name in ("sets", "gets", "deletes", "scans", "config_updates", "health_checks")),
    *(f"kv_{name}_errors_total" for name in ("set", "get", "delete", "scan")),
    *("kv_data_bytes", "kv_value_bytes", "kv_disk_used_bytes", "kv_disk_free_bytes", "kv_disk_used_percent"),
    *("kv_keys", "kv_in_flight_requests", "kv_pool_queue_depth", "kv_connections", "kv_build_info"),
    *("kv_expirations_total", "kv_evictions_futile_total", "kv_rocksdb_estimate_num_keys"),
]


class Prometheus:
    """A real one, which scrapes one server every second."""

    def __init__(self, folder: Path, target: str) -> None:
        """Start it. Its data stays in `folder`."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config = folder / "prometheus.yml"
        jobs = [{"job_name": "kv", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}]
        config.write_text(json.dumps({"scrape_configs": jobs}))  # JSON is YAML
        self.output = folder / "prometheus.txt"
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address={self.address}",
                ],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def query(self, expression: str) -> Any:
        """The result of an instant query, an empty list as long as it is not up."""
        assert self.process.poll() is None, self.output.read_text()
        url = f"http://{self.address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]["result"]
        except OSError:
            return []

    def value(self, expression: str) -> float:
        """The one value of a query, or NaN."""
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else float("nan")

    def end(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def prometheus(server: Server, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the shared server."""
    started = Prometheus(tmp_path, server.http_address)
    yield started
    started.end()


def _use(http: Http, client: Grpc) -> None:
    """10 sets with 4 errors, 11 gets with 3 errors, 7 deletes with 2 errors, 5 scans with 1 error; ..."""
    http.post("/api/v1/set", {"key": "a", "value": "1"})
    client.call("Set", key="b", value="1")
    http.post("/api/v1/mset", {"key_values": {"c": "1", "d": "1"}})
    client.call("MSet", key_values={"e": "1", "f": "1"})
    assert http.post("/api/v1/set", {"key": "", "value": "1"}).status == 400
    assert client.call("Set", key="g", value="1", ttl=-1).error
    assert http.post("/api/v1/mset", {"key_values": {"h": "1", "": "1"}}).status == 400

    http.get("/api/v1/get/a")
    client.call("Get", key="b")
    assert http.get("/api/v1/get/missing").status == 404
    assert not client.call("Get", key="missing").found
    http.post("/api/v1/mget", {"keys": ["a", "missing"]})
    client.call("MGet", keys=["a", "missing"])
    assert client.call("Get", key="").error
    assert client.call("MGet", keys=["a", ""]).error

    http.call("DELETE", "/api/v1/delete/a")
    client.call("Delete", key="missing")
    http.post("/api/v1/mdelete", {"keys": ["b", "missing"]})
    client.call("MDelete", keys=["c"])
    assert client.call("MDelete", keys=["d", ""]).error

    http.get("/api/v1/scan?prefix=e")
    http.get("/api/v1/scan?keys_only=true")
    client.call("ScanKeys", prefix="e")
    client.call("ScanKeyValues", prefix="e")
    assert client.call("ScanKeys", prefix="x" * 1025).error

    http.post("/api/v1/config", {"eviction": {"batch_size": 99}})
    client.call("UpdateConfig", config="{}")
    assert client.call("UpdateConfig", config="[]").error
    http.get("/api/v1/health")


_COUNTED = {
    "kv_sets_total": 10,
    "kv_set_errors_total": 4,
    "kv_set_latency_seconds_count": 7,
    "kv_gets_total": 11,
    "kv_get_errors_total": 3,
    "kv_get_latency_seconds_count": 8,
    "kv_deletes_total": 7,
    "kv_delete_errors_total": 2,
    "kv_delete_latency_seconds_count": 5,
    "kv_scans_total": 5,
    "kv_scan_errors_total": 1,
    "kv_scan_latency_seconds_count": 5,
    "kv_config_updates_total": 2,
    "kv_health_checks_total": 1,
    "kv_health_check_latency_seconds_count": 1,
}


@pytest.mark.long
def test_counters(server: Server, prometheus: Prometheus) -> None:
    """Prometheus finds the server up, and its counters are exactly what the clients did: each key of a batch counts,
    a missing key is no error, and a refused call is one for each of its keys."""
    with server.http() as http, server.grpc() as client:
        eventually(lambda: prometheus.value("up") == 1)
        before = {name: http.metric(name) for name in _COUNTED}
        _use(http, client)
        counted = {name: http.metric(name) - before[name] for name in _COUNTED}
    assert counted == _COUNTED
    for name, value in counted.items():
        eventually(lambda name=name, value=value: prometheus.value(name) == before[name] + value)
    assert prometheus.value("up") == 1
    assert prometheus.query("scrape_samples_scraped > 100")


def test_the_text_is_well_formed(server: Server) -> None:
    """`promtool check metrics` finds nothing wrong, and every documented metric is there."""
    with server.http() as http:
        eventually(lambda: http.metric("kv_data_bytes"))
        answer = http.get("/metrics")
        names = {name for name, _ in http.metrics()}
    assert answer.headers["content-type"].startswith("text/plain; version=")
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=answer.body,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert set(DOCUMENTED) <= names
