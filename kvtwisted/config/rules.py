"""Rules between several keys. All are checked whenever settings are made."""

from __future__ import annotations

import ipaddress
import os
import re
from operator import attrgetter

from ..core.errors import InvalidConfig
from .origins import ANY, cors_origins
from .settings import Settings

_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound
_API = "/api/v1"
_HEALTH = "/api/v1/health"
_HTTP_PATH = re.compile(r"/|(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")


def check_together(settings: Settings) -> None:
    """Raise `InvalidConfig`, naming the keys, when values that are valid alone do not go together."""
    _check_rising(settings)
    _check_ports(settings)
    _check_folders(settings)
    _check_http_paths(settings)
    _check_tls(settings)
    _check_reach(settings)
    _check_cors(settings)
    protected_prefixes(settings)
    _check_bytes(settings)
    _check_share(settings)


#: Keys of which each must be at least the one before it. RocksDB must start to compact before it delays writes, and
#: delay them before it stops them. If writes were refused before keys are evicted, the disk would never be full enough
#: for an eviction.
_RISING = (
    ("rocksdb.options.level0_file_num_compaction_trigger", "rocksdb.options.level0_slowdown_writes_trigger"),
    ("rocksdb.options.level0_slowdown_writes_trigger", "rocksdb.options.level0_stop_writes_trigger"),
    ("eviction.disk_usage_threshold", "eviction.high_water_mark"),
)


def _check_rising(settings: Settings) -> None:
    for lower, higher in _RISING:
        low, high = attrgetter(lower)(settings), attrgetter(higher)(settings)
        if low > high:
            raise InvalidConfig(f"{higher} must be at least {lower} ({low}), not {high}")


def _check_ports(settings: Settings) -> None:
    grpc, http = settings.grpc, settings.http
    overlap = grpc.host == http.host or bool({grpc.host, http.host} & _EVERY_ADDRESS)
    if grpc.port == http.port != 0 and overlap:
        raise InvalidConfig(f"grpc.port and http.port must differ on the same host; both are {http.port}")


def _check_folders(settings: Settings) -> None:
    """Each of these deletes leftovers in its folder, and would delete the others' files."""
    seen: dict[str, str] = {}
    for name in ("rocksdb.path", "value.disk_path", "backup.path", "logging.directory"):
        folder = attrgetter(name)(settings)
        if folder:
            other = seen.setdefault(os.path.abspath(folder), name)
            if other != name:
                raise InvalidConfig(f"{other} and {name} must be different folders; both are {folder}")


def _check_tls(settings: Settings) -> None:
    """With only one of them the server would run without TLS although its operator believes that it has it."""
    for name, listener in (("grpc", settings.grpc), ("http", settings.http)):
        if bool(listener.tls_certificate) != bool(listener.tls_private_key):
            raise InvalidConfig(f"{name}.tls_certificate and {name}.tls_private_key must be given together")
        if listener.tls_client_ca and not listener.tls_certificate:
            raise InvalidConfig(f"{name}.tls_client_ca needs {name}.tls_certificate and {name}.tls_private_key")


def _check_reach(settings: Settings) -> None:
    """A server that can be reached from other machines must ask clients who they are."""
    for name, listener in (("grpc", settings.grpc), ("http", settings.http)):
        if not (_is_loopback(listener.host) or settings.security.tokens or listener.tls_client_ca):
            raise InvalidConfig(
                f"{name}.host is {listener.host}, which others can reach, and nobody would be asked who they are: set "
                f"security.tokens, or {name}.tls_client_ca, or listen on 127.0.0.1"
            )


def _check_cors(settings: Settings) -> None:
    """With `*` and without tokens, every page that a browser on the machine shows could do everything."""
    if ANY in cors_origins(settings.http.cors_origins) and not settings.security.tokens:
        raise InvalidConfig(
            "http.cors_origins is *, which needs security.tokens: without them any page could do all that the browser "
            "it is in may do; set security.tokens, or list the origins"
        )


def protected_prefixes(settings: Settings) -> tuple[bytes, ...]:
    """Those of `eviction.protected_prefixes`. An empty one is InvalidConfig: it would protect every key."""
    text = settings.eviction.protected_prefixes
    if not text:
        return ()
    prefixes = [prefix.strip(" ") for prefix in text.split(",")]
    if not all(prefixes):
        raise InvalidConfig(
            "eviction.protected_prefixes: a prefix is empty, which would protect every key; to evict nothing but "
            'expired keys set eviction.policy to "none"'
        )
    return tuple(prefix.encode() for prefix in prefixes)


def _check_bytes(settings: Settings) -> None:
    """The bytes that all clients share must have room for the largest request and the largest answer.

    Native gRPC reserves half of the unfinished bytes for data that comes without being asked for, and a message may
    have a quarter more bytes than its keys and values. Of the unsent bytes each connection gets an eighth, and JSON may
    make six bytes out of one.
    """
    for total, times, largest in (
        ("limits.max_unfinished_bytes", 3, "limits.max_request_bytes"),
        ("limits.max_unsent_bytes", 8, "grpc.max_response_bytes"),
        ("limits.max_unsent_bytes", 8, "http.max_response_bytes"),
    ):
        configured, size = attrgetter(total)(settings), attrgetter(largest)(settings)
        if configured < times * size:
            raise InvalidConfig(
                f"{total} must be at least {times * size}, {times} times {largest} ({size}), not {configured}"
            )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may lead anywhere


def _check_http_paths(settings: Settings) -> None:
    metrics, health = settings.monitoring.metrics_path, settings.monitoring.health_path
    for name, path in (("monitoring.metrics_path", metrics), ("monitoring.health_path", health)):
        if not _HTTP_PATH.fullmatch(path):
            raise InvalidConfig(
                f"{name} must start with / and have only letters, digits and . _ ~ - between slashes, not {path!a}"
            )
        is_default_health = path == _HEALTH and name == "monitoring.health_path"
        if (path == _API or path.startswith(_API + "/")) and not is_default_health:
            raise InvalidConfig(f"{name} must not lie under {_API}, where it would hide the API, not {path!a}")
    if metrics == health:
        raise InvalidConfig(f"monitoring.metrics_path and monitoring.health_path must differ; both are {metrics}")


def _check_share(settings: Settings) -> None:
    """A larger share would be a limit that never applies."""
    share, whole = settings.limits.max_in_flight_per_principal, settings.limits.max_in_flight
    if share > whole:
        raise InvalidConfig(
            f"limits.max_in_flight_per_principal must be at most limits.max_in_flight ({whole}), not {share}"
        )
