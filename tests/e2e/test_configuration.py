"""Configuration: its layers, and changes of a server that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .clients import Grpc
from .harness import Launcher, eventually, occupy

_TOML = """
[eviction]
batch_size = 11
check_interval = 12
[limits]
max_batch_keys = 13
[storage]
expiry_interval = 14
"""


def test_layers(launch: Launcher) -> None:
    """File < run-time updates < environment < command line, over a restart."""
    _write(launch, "kv.toml", _TOML)
    server = launch("--config", "kv.toml")
    with server.http() as http:
        change = {"eviction.check_interval": 24, "limits.max_batch_keys": 24, "storage.expiry_interval": 24}
        assert http.post("/api/v1/config", change).status == 200
    server.stop()
    env = {"KV_LIMITS_MAX_BATCH_KEYS": "35", "KV_STORAGE_EXPIRY_INTERVAL": "36"}
    server = launch("--config", "kv.toml", "--storage-expiry-interval", "46", env=env)
    with server.http() as http, server.grpc() as client:
        for config in (http.get("/api/v1/config").body, _config(client)):
            assert config["eviction"]["batch_size"] == 11  # the file's
            assert config["eviction"]["check_interval"] == 24  # changed at run time
            assert config["limits"]["max_batch_keys"] == 35  # the environment's
            assert config["storage"]["expiry_interval"] == 46  # the command line's
            assert config["limits"]["request_timeout"] == 30  # nobody's
        refusal = http.post("/api/v1/config", {"limits": {"max_batch_keys": 5}})
        assert (refusal.status, refusal.body["code"]) == (400, "invalid_config")
        assert "KV_LIMITS_MAX_BATCH_KEYS" in refusal.body["error"]


def test_json_file(launch: Launcher) -> None:
    """A JSON file says the same as a TOML one, options of RocksDB included."""
    document = {"rocksdb": {"options": {"write_buffer_size": 1_048_576}}, "limits": {"max_batch_keys": 2}}
    _write(launch, "kv.json", json.dumps(document))
    server = launch("--config", "kv.json")
    with server.http() as http:
        config = http.get("/api/v1/config").body
        assert config["rocksdb"]["options"]["write_buffer_size"] == 1_048_576
        assert "limits.max_batch_keys is 2" in http.post("/api/v1/mget", {"keys": ["a", "b", "c"]}).body["error"]


def _write(launch: Launcher, name: str, text: str) -> Path:
    folder = launch.folder / "server"
    folder.mkdir()
    path = folder / name
    path.write_text(text)
    return path


def _config(client: Grpc) -> Any:
    return json.loads(client.call("GetConfig").config)


def test_changes_take_effect_at_once(launch: Launcher) -> None:
    """A limit, the pace of a task, a task's rule and the log's level follow a change without a restart."""
    server = launch()
    occupy(server.folder)
    with server.http() as http, server.grpc() as client:
        assert http.post("/api/v1/config", {"limits": {"max_batch_keys": 2}}).status == 200
        assert "limits.max_batch_keys is 2" in client.call("MDelete", keys=["a", "b", "c"]).error
        assert http.post("/api/v1/mset", {"key_values": dict.fromkeys("abc", "1")}).body["code"] == "too_large"

        # Nothing of this would have happened in the first minute.
        assert http.metric("kv_evictions_futile_total") == 0
        assert server.log("performance") == ""
        change = {
            "eviction": {"check_interval": 1, "disk_usage_threshold": 1},
            "logging": {"performance_interval": 1, "level": "debug"},
        }
        assert client.call("UpdateConfig", config=json.dumps(change)).success
        assert client.call("Set", key="a", value="1", ttl=1).success
        eventually(lambda: http.metric("kv_evictions_futile_total"))
        eventually(lambda: "set_per_second=" in server.log("performance"))
        eventually(lambda: "1 expired keys deleted" in server.log("running"))

        # From here on warnings are left out, and the next turn of the task would bring one.
        assert http.post("/api/v1/config", {"logging": {"level": "error"}}).status == 200
        warnings = server.log("running").count("nothing is evicted")
        looks = http.metric("kv_evictions_futile_total")
        eventually(lambda: http.metric("kv_evictions_futile_total") > looks + 1)
        assert server.log("running").count("nothing is evicted") == warnings


def test_changes_outlive_the_process(launch: Launcher) -> None:
    """What was changed is there after a restart; what needed the restart is named until then."""
    server = launch()
    with server.http() as http, server.grpc() as client:
        change = {"storage": {"threads": 3}, "http": {"idle_timeout": 5}, "eviction": {"enabled": False}}
        answer = http.post("/api/v1/config", change)
        assert answer.body == {
            "success": True,
            "message": "config updated successfully",
            "restart_required": ["http.idle_timeout", "storage.threads"],
        }
        assert _config(client)["storage"]["threads"] == 3
        before = http.get("/api/v1/config").body
    server.kill()
    with launch().http() as http:
        assert http.get("/api/v1/config").body == before
        answer = http.post("/api/v1/config", change)
        assert answer.body == {"success": True, "message": "config updated successfully"}


def test_a_refused_change_changes_nothing(launch: Launcher) -> None:
    """One bad key refuses the whole change, names the key, and leaves configuration, file and counter alone."""
    server = launch()
    runtime_file = server.folder / "kvtwisted.runtime.json"
    with server.http() as http, server.grpc() as client:
        assert http.post("/api/v1/config", {"eviction": {"batch_size": 5}}).status == 200
        before = http.get("/api/v1/config").body
        saved = runtime_file.read_bytes()
        bad = {
            "limits.max_batch_kyes": {"limits": {"max_batch_keys": 7, "max_batch_kyes": 7}},
            "eviction.check_interval": {"limits": {"max_batch_keys": 7}, "eviction": {"check_interval": "60"}},
            "eviction.batch_size": {"limits": {"max_batch_keys": 7}, "eviction": {"batch_size": 0}},
            "monitoring.metrics_path": {"limits": {"max_batch_keys": 7}, "monitoring": {"metrics_path": "m"}},
        }
        for key, change in bad.items():
            answer = http.post("/api/v1/config", change)
            assert (answer.status, answer.body["success"], answer.body["code"]) == (400, False, "invalid_config")
            assert key in answer.body["error"]
            refusal = client.call("UpdateConfig", config=json.dumps(change))
            assert not refusal.success
            assert key in refusal.error
        assert not client.call("UpdateConfig", config="{").success
        assert http.get("/api/v1/config").body == before == _config(client)
        assert runtime_file.read_bytes() == saved
        assert http.metric("kv_config_updates_total") == 1


@pytest.mark.long
def test_changes_that_the_next_start_could_not_bear(launch: Launcher) -> None:
    """Each is refused when it is made, with the key, the value and why; the trials leave nothing behind."""
    server = launch()
    (server.folder / "file").touch()
    with server.http() as http:
        assert http.post("/api/v1/set", {"key": "large", "value": "x" * (1 << 20)}).status == 200
        before = sorted(path.name for path in server.folder.rglob("*"))
        bad: dict[str, dict[str, Any]] = {
            "security.tokens": {"security.tokens": "none.json"},
            "rocksdb.path": {"rocksdb.path": "file/data"},
            "value.disk_path": {"value.disk_path": "elsewhere"},
            "backup.path": {"backup.path": "/proc/none"},
            "logging.directory": {"logging.directory": "file/logs"},
            "http.tls_private_key": {"http.tls_certificate": "none.pem", "http.tls_private_key": "none.pem"},
            "grpc.host": {"grpc.host": "127.0.0.300"},
            "cache.max_bytes": {"cache.max_bytes": 1 << 40},
        }
        for key, change in bad.items():
            answer = http.post("/api/v1/config", change)
            assert (answer.status, answer.body["code"]) == (400, "invalid_config"), change
            assert any(name in answer.body["error"] for name in (key, *change))
        assert sorted(path.name for path in server.folder.rglob("*")) == before
    server.stop()
    with launch().http() as http:
        assert http.get("/api/v1/health").status == 200
