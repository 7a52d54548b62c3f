"""The rules between keys: each refusal names the keys, and what is allowed stays allowed."""

from __future__ import annotations

import pytest

from kvtwisted.config.schema import build
from kvtwisted.core.errors import InvalidConfig

MIB = 1 << 20
COMPACTION = "rocksdb.options.level0_file_num_compaction_trigger"
SLOWDOWN = "rocksdb.options.level0_slowdown_writes_trigger"
STOP = "rocksdb.options.level0_stop_writes_trigger"
METRICS, HEALTH = "monitoring.metrics_path", "monitoring.health_path"

REFUSED = [
    ({COMPACTION: 21}, f"{SLOWDOWN} must be at least {COMPACTION} (21), not 20"),
    ({STOP: 19}, f"{STOP} must be at least {SLOWDOWN} (20), not 19"),
    (
        {"eviction.high_water_mark": 79},
        "eviction.high_water_mark must be at least eviction.disk_usage_threshold (80), not 79",
    ),
    (
        {"eviction.disk_usage_threshold": 96},
        "eviction.high_water_mark must be at least eviction.disk_usage_threshold (96), not 95",
    ),
    ({"eviction.protected_prefixes": "locks/, "}, "eviction.protected_prefixes: a prefix is empty"),
    ({"http.port": 50051}, "grpc.port and http.port must differ on the same host; both are 50051"),
    (
        {"http.port": 9, "grpc.port": 9, "http.host": "0.0.0.0", "grpc.host": "10.0.0.1"},
        "grpc.port and http.port must differ on the same host; both are 9",
    ),
    ({"value.disk_path": "data"}, "rocksdb.path and value.disk_path must be different folders; both are data"),
    ({"value.disk_path": "x/../data/"}, "rocksdb.path and value.disk_path must be different folders"),
    ({"logging.directory": "./data"}, "rocksdb.path and logging.directory must be different folders"),
    ({"backup.path": "data"}, "rocksdb.path and backup.path must be different folders; both are data"),
    ({"logging.directory": "./value_data"}, "value.disk_path and logging.directory must be different folders"),
    ({"grpc.tls_certificate": "a.pem"}, "grpc.tls_certificate and grpc.tls_private_key must be given together"),
    ({"grpc.tls_private_key": "a.pem"}, "grpc.tls_certificate and grpc.tls_private_key must be given together"),
    ({"http.tls_certificate": "a.pem"}, "http.tls_certificate and http.tls_private_key must be given together"),
    ({"http.tls_private_key": "a.pem"}, "http.tls_certificate and http.tls_private_key must be given together"),
    ({"grpc.tls_client_ca": "a.pem"}, "grpc.tls_client_ca needs grpc.tls_certificate and grpc.tls_private_key"),
    ({"http.tls_client_ca": "a.pem"}, "http.tls_client_ca needs http.tls_certificate and http.tls_private_key"),
    ({METRICS: "metrics"}, f"{METRICS} must start with / and have only letters"),
    ({METRICS: "/me trics"}, f"{METRICS} must start with / and have only letters"),
    ({METRICS: "/a?b"}, f"{METRICS} must start with / and have only letters"),
    ({METRICS: "/a%2Fb"}, f"{METRICS} must start with / and have only letters"),
    ({METRICS: "/<path>"}, f"{METRICS} must start with / and have only letters"),
    ({METRICS: "//a"}, f"{METRICS} must start with / and have only letters"),
    ({METRICS: "/a/"}, f"{METRICS} must start with / and have only letters"),
    ({METRICS: "/../a"}, f"{METRICS} must start with / and have only letters"),
    ({METRICS: "/m\n"}, f"{METRICS} must start with / and have only letters"),
    ({HEALTH: "/ä"}, f"{HEALTH} must start with / and have only letters"),
    ({METRICS: "/api/v1/get/x"}, f"{METRICS} must not lie under /api/v1, where it would hide the API"),
    ({METRICS: "/api/v1/health", HEALTH: "/h"}, f"{METRICS} must not lie under /api/v1"),
    ({HEALTH: "/api/v1/set"}, f"{HEALTH} must not lie under /api/v1"),
    ({HEALTH: "/api/v1"}, f"{HEALTH} must not lie under /api/v1"),
    ({HEALTH: "/metrics"}, f"{METRICS} and {HEALTH} must differ; both are /metrics"),
    (
        {"limits.max_unfinished_bytes": 3 * 16_777_216 - 1},
        "limits.max_unfinished_bytes must be at least 50331648, 3 times limits.max_request_bytes (16777216), "
        "not 50331647",
    ),
    (
        {"limits.max_request_bytes": 1 << 30},
        "limits.max_unfinished_bytes must be at least 3221225472, 3 times limits.max_request_bytes (1073741824), "
        "not 268435456",
    ),
    (
        {"limits.max_unsent_bytes": 32 * MIB - 1},
        "limits.max_unsent_bytes must be at least 33554432, 8 times grpc.max_response_bytes (4194304), not 33554431",
    ),
    (
        {"http.max_response_bytes": 32 * MIB + 1},
        "limits.max_unsent_bytes must be at least 268435464, 8 times http.max_response_bytes (33554433), not 268435456",
    ),
]

ALLOWED = [
    {"limits.max_unfinished_bytes": 48 * MIB, "limits.max_unsent_bytes": 32 * MIB},
    {"limits.max_unfinished_bytes": 24 * MIB, "limits.max_request_bytes": 8 * MIB},
    {
        "limits.max_unsent_bytes": 16 * MIB,
        "http.max_response_bytes": 2 * MIB,
        "grpc.max_response_bytes": 2 * MIB,
    },
    {COMPACTION: 8, SLOWDOWN: 8, STOP: 8},
    {"http.port": 0, "grpc.port": 0},
    {"http.port": 9, "grpc.port": 9, "http.host": "127.0.0.1", "grpc.host": "127.0.0.2"},
    {"logging.directory": ""},
    {"rocksdb.path": "/srv/kv", "value.disk_path": "/srv/kv/values"},
    {"grpc.tls_certificate": "a.pem", "grpc.tls_private_key": "a.pem"},
    {"http.tls_certificate": "a.pem", "http.tls_private_key": "a.pem", "http.tls_client_ca": "b.pem"},
    {METRICS: "/", HEALTH: "/-/healthy.json"},
    {METRICS: "/api/v10/metrics", HEALTH: "/api/v1/health"},
]


@pytest.mark.parametrize(("flat", "message"), REFUSED)
def test_values_that_do_not_go_together(flat: dict[str, object], message: str) -> None:
    """Values that are valid alone are refused together, naming the keys."""
    with pytest.raises(InvalidConfig) as refused:
        build(flat)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("flat", ALLOWED)
def test_values_that_go_together(flat: dict[str, object]) -> None:
    """The rules refuse no more than they must."""
    build(flat)


@pytest.mark.parametrize("listener", ["grpc", "http"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "store.example", "169.254.0.1", "::ffff:192.0.2.1"])
def test_an_open_server_is_reached_from_loopback_alone(listener: str, host: str) -> None:
    """Elsewhere it has to ask who is there; the refusal names the two settings that would have it do so."""
    with pytest.raises(InvalidConfig, match=rf"{listener}\.host is .*security\.tokens, or {listener}\.tls_client_ca"):
        build({f"{listener}.host": host})
    assert build({f"{listener}.host": host, "security.tokens": "t.json"})
    pair = {f"{listener}.{name}": "x.pem" for name in ("tls_certificate", "tls_private_key")}
    with pytest.raises(InvalidConfig, match=rf"{listener}\.host is "):  # TLS alone asks nobody
        build({f"{listener}.host": host, **pair})
    tls = dict.fromkeys(("tls_certificate", "tls_private_key", "tls_client_ca"), "x.pem")
    assert build({f"{listener}.host": host, **{f"{listener}.{name}": path for name, path in tls.items()}})


def test_every_origin_needs_tokens() -> None:
    """Without them any page could do everything; the refusal names both keys. A certificate for clients is no token."""
    tls = {f"http.{name}": "x.pem" for name in ("tls_certificate", "tls_private_key", "tls_client_ca")}
    for open_server in ({}, tls):
        with pytest.raises(
            InvalidConfig, match=r"^http\.cors_origins is \*.*set security\.tokens, or list the origins"
        ):
            build({"http.cors_origins": "*", **open_server})
        assert build({"http.cors_origins": "http://localhost:3000", **open_server})
        assert build({"http.cors_origins": "*", "security.tokens": "t.json", **open_server})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    """Whoever is on the machine may do everything."""
    assert build({"grpc.host": host, "http.host": host})


def test_a_share_is_at_most_the_whole() -> None:
    """The refusal names both keys."""
    assert build({"limits.max_in_flight": 8, "limits.max_in_flight_per_principal": 8})
    with pytest.raises(InvalidConfig) as refused:
        build({"limits.max_in_flight": 8, "limits.max_in_flight_per_principal": 9})
    assert str(refused.value) == "limits.max_in_flight_per_principal must be at most limits.max_in_flight (8), not 9"
