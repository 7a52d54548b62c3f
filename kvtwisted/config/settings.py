"""Every configuration key of the server, declared once, as frozen dataclasses (one per section).

The names of sections and fields are the keys: `settings.http.port` is `http.port`. What is not in a section's class
does not exist. See `docs/configuration.md` for the same table with explanations; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..core.options import DATA, DURABILITY, GIB, KIB, MIB, REACH, SERVICE, EngineOptions, number, option


@dataclass(frozen=True)
class RocksdbSettings:
    """Section `rocksdb`."""

    path: str = option("./data", "Folder of the RocksDB database; made when missing.", DATA)
    options: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True)
class StorageSettings:
    """Section `storage`."""

    engine: str = option(
        "auto", "RocksDB binding: auto takes rocksdict, else lbry. memory keeps nothing and is for trials.",
        DATA, choices=("auto", "rocksdict", "lbry", "memory"),
    )  # fmt: skip
    threads: int = number(8, 1, 256, "Threads that do storage work for the reactor.", SERVICE)
    wal_sync_interval_ms: int = number(
        1000,
        0,
        3_600_000,
        "Milliseconds between fsyncs of the write-ahead log: what a power loss may take; 0 leaves it to the kernel.",
        DURABILITY,
        live=True,
    )
    expiry_interval: int = number(
        1, 1, 60, "Seconds between two sweeps that delete expired keys (they are invisible before).", live=True
    )


@dataclass(frozen=True)
class CacheSettings:
    """Section `cache`."""

    max_bytes: int = number(
        128 * MIB, 0, 1024 * GIB, "Bytes of values kept in memory for Get; 0 turns the cache off.", SERVICE, live=True
    )


@dataclass(frozen=True)
class GrpcSettings:
    """Section `grpc`."""

    host: str = option("127.0.0.1", "Address the gRPC server listens on.", REACH)
    port: int = number(50051, 0, 65535, "TCP port of the gRPC server; 0 takes any free one.", REACH)
    transport: str = option(
        "native",
        "gRPC server: native runs on the reactor and is many times as fast; threaded is grpcio's.",
        SERVICE,
        choices=("native", "threaded"),
    )
    threads: int = number(16, 1, 256, "Threads that run gRPC calls; for the threaded transport.", SERVICE)
    tls_certificate: str = option("", "PEM file of the gRPC server's certificate and its chain; empty: no TLS.", REACH)
    tls_private_key: str = option("", "PEM file of that certificate's private key.", REACH)
    tls_client_ca: str = option(
        "", "PEM file of the authorities whose certificates gRPC clients must present; empty: none is asked for.", REACH
    )
    max_response_bytes: int = number(
        4 * MIB, 2 * MIB, 1 * GIB, "Bytes of one answer at most; clients accept 4 MiB by default.", SERVICE, live=True
    )


@dataclass(frozen=True)
class HttpSettings:
    """Section `http`."""

    host: str = option("127.0.0.1", "Address the HTTP server listens on.", REACH)
    port: int = number(8080, 0, 65535, "TCP port of the HTTP server; 0 takes any free one.", REACH)
    tls_certificate: str = option("", "PEM file of the HTTP server's certificate and its chain; empty: no TLS.", REACH)
    tls_private_key: str = option("", "PEM file of that certificate's private key.", REACH)
    tls_client_ca: str = option(
        "", "PEM file of the authorities whose certificates HTTP clients must present; empty: none is asked for.", REACH
    )
    max_response_bytes: int = number(
        4 * MIB, 2 * MIB, 1 * GIB, "Bytes of keys and values in one answer at most.", SERVICE, live=True
    )
    allowed_hosts: str = option(
        "",
        "Names, with commas between, that HTTP requests may call the server by while it asks for no authentication.",
        REACH,
    )
    cors_origins: str = option(
        "",
        "Origins, with commas between, whose pages browsers may let talk to the server; * is every one; empty: none.",
        REACH,
    )
    idle_timeout: int = number(75, 1, 3600, "Seconds without traffic after which a connection is closed.", SERVICE)
    header_timeout: int = number(
        20, 1, 3600, "Seconds from a request's first byte within which its head must be complete.", SERVICE
    )
    body_timeout: int = number(
        30,
        1,
        3600,
        "Seconds from the end of its head within which its body must be complete; each 16 KiB received add one.",
        SERVICE,
    )
    send_timeout: int = number(
        60, 1, 3600, "Seconds within which a client must take 64 KiB of an answer, or all that is left.", SERVICE
    )
    fast_lane: bool = option(
        True, "Answer plain requests for single keys, mset, mget and scan without Klein, many times as fast.", SERVICE
    )


@dataclass(frozen=True)
class ValueSettings:
    """Section `value`."""

    disk_threshold: int = number(
        1 * MIB, 1 * KIB, 1 * GIB, "Bytes from which a value is stored in a file of its own.", SERVICE, live=True
    )
    disk_path: str = option("./value_data", "Folder of large values; made when missing.", DATA)


@dataclass(frozen=True)
class BackupSettings:
    """Section `backup`."""

    path: str = option("./backups", "Folder of backups; made at the first one.", DATA)


@dataclass(frozen=True)
class EvictionSettings:
    """Section `eviction`."""

    enabled: bool = option(True, "Delete keys when the disk fills up.", DATA, live=True)
    disk_usage_threshold: int = number(
        80, 1, 100, "Percent of the data's file system in use from which keys are evicted.", DATA, live=True
    )
    check_interval: int = number(60, 1, 86400, "Seconds between two looks at the disk.", DATA, live=True)
    batch_size: int = number(100, 1, 10_000, "Keys deleted in one batch.", DATA, live=True)
    policy: str = option(
        "lru",
        "Which keys go after expired ones: lru (approximate), oldest (written first), ttl (soonest to expire), none.",
        DATA,
        choices=("lru", "oldest", "ttl", "none"),
        live=True,
    )
    protected_prefixes: str = option(
        "", "Prefixes, with commas between; keys that begin with one go only once they have expired.", DATA, live=True
    )
    high_water_mark: int = number(
        95, 1, 100, "Percent of a file system in use from which writes are refused, also when eviction is off.",
        SERVICE, live=True,
    )  # fmt: skip


@dataclass(frozen=True)
class MonitoringSettings:
    """Section `monitoring`."""

    enabled: bool = option(True, "Serve the Prometheus metrics.", SERVICE)
    metrics_path: str = option("/metrics", "HTTP path of the Prometheus metrics.", SERVICE)
    health_path: str = option("/api/v1/health", "HTTP path of the health check.", SERVICE)
    sample_interval: int = number(10, 1, 3600, "Seconds between two samples of disk and RocksDB figures.", live=True)


@dataclass(frozen=True)
class LimitSettings:
    """Section `limits`."""

    max_batch_keys: int = number(10_000, 1, 1_000_000, "Keys in one MSet, MGet or MDelete.", SERVICE, live=True)
    max_range_delete_keys: int = number(
        10_000,
        1,
        1_000_000,
        "Keys that one DeleteRange removes at most where the storage engine deletes them one by one (`lbry`).",
        SERVICE,
        live=True,
    )
    max_request_bytes: int = number(
        16 * MIB,
        8 * MIB,
        1 * GIB,
        "Bytes of one request's keys and values; a body or message may have a quarter more.",
        SERVICE,
    )
    max_in_flight: int = number(
        1024, 1, 100_000, "Requests being worked on or waiting; one more is refused as overloaded.", SERVICE
    )
    max_in_flight_per_principal: int = number(
        0, 0, 100_000, "Of those, requests of one token or certificate; 0: three quarters.", SERVICE
    )
    max_bytes_in_flight: int = number(
        256 * MIB,
        8 * MIB,
        1024 * GIB,
        "Bytes that those requests may have; a principal may have as large a part of them as of max_in_flight.",
        SERVICE,
    )
    max_pipelines: int = number(
        100, 1, 100_000,
        "Open gRPC pipelines; of one token or certificate three quarters. With grpc.transport = threaded each takes a "
        "thread, and there are at most half of grpc.threads.", SERVICE,
    )  # fmt: skip
    max_watches: int = number(
        1000, 1, 100_000, "Open Watch streams of gRPC's health service; from one address three quarters.", SERVICE
    )
    max_watchers: int = number(
        2000, 1, 100_000, "Open Watches of keys, over both interfaces; of one token or certificate three quarters.",
        SERVICE,
    )  # fmt: skip
    max_watch_history_bytes: int = number(
        16 * MIB, 0, 64 * GIB,
        "Bytes of the last commits, kept in memory for Watches that go on where they were; 0: only the last one.",
        SERVICE, live=True,
    )  # fmt: skip
    max_scan_streams: int = number(
        64, 1, 100_000,
        "Open ScanStreams and exports, over both interfaces; of one token or certificate three quarters.", SERVICE,
    )  # fmt: skip
    max_connections: int = number(
        0, 0, 1_000_000, "Connections to HTTP and native gRPC together; 0: as many as there are file descriptors for.",
        SERVICE, live=True,
    )  # fmt: skip
    max_connections_per_address: int = number(
        0, 0, 1_000_000, "Of those, connections from one address (IPv6: from one /64); 0: three quarters of all.",
        SERVICE, live=True,
    )  # fmt: skip
    max_unfinished_bytes: int = number(
        256 * MIB, 24 * MIB, 1024 * GIB,
        "Bytes of incomplete requests, over each interface; then those that come slowly are refused.",
        SERVICE, live=True,
    )  # fmt: skip
    max_unsent_bytes: int = number(
        256 * MIB, 16 * MIB, 1024 * GIB,
        "Bytes of answers that clients have not taken, over each interface; then those that read least are cut off.",
        SERVICE, live=True,
    )  # fmt: skip
    request_timeout: int = number(
        30, 1, 3600, "Seconds a request may wait and run before it is given up.", SERVICE, live=True
    )
    max_snapshot_seconds: int = number(
        3600, 1, 86_400, "Seconds that a streamed scan has its snapshot for; then it ends with a cursor.",
        SERVICE, live=True,
    )  # fmt: skip
    shutdown_grace: int = number(
        10, 0, 3600, "Seconds that running requests get to finish at shutdown.", SERVICE, live=True
    )


@dataclass(frozen=True)
class SecuritySettings:
    """Section `security`."""

    tokens: str = option(
        "", "File of the tokens that clients must send; empty: no tokens, and no client has to send one.", REACH
    )
    failed_logins: int = number(
        30, 0, 1_000_000, "Failed logins of one address in a minute; more are answered with 429; 0: no limit.",
        REACH, live=True,
    )  # fmt: skip
    address_operations: int = number(
        0, 0, 1_000_000_000, "Operations per second of one address; 0: no limit.", REACH, live=True
    )
    address_bytes: int = number(
        0, 0, 1_000_000_000_000, "Bytes per second of one address, sent and received; 0: no limit.", REACH, live=True
    )
    token_operations: int = number(
        0, 0, 1_000_000_000, "Operations per second of one token that has no rate of its own; 0: no limit.",
        REACH, live=True,
    )  # fmt: skip
    token_bytes: int = number(
        0, 0, 1_000_000_000_000,
        "Bytes per second of one token that has no rate of its own, sent and received; 0: no limit.",
        REACH, live=True,
    )  # fmt: skip
    unauthenticated_body_bytes: int = number(
        64 * KIB, 0, 1 * MIB,
        "Bytes of an HTTP body that are read before it is known who sends it; a longer one is not read.",
        REACH, live=True,
    )  # fmt: skip
    audit_writes: bool = option(False, "Write a line to writes.log for each write, with its first key.", REACH)


@dataclass(frozen=True)
class LoggingSettings:
    """Section `logging`."""

    directory: str = option("./logs", "Folder of the log files; empty writes none.", DATA)
    format: str = option("text", "Form of the log files.", choices=("text", "json"))
    level: str = option("info", "Least level in running.log.", choices=("debug", "info", "warn", "error"), live=True)
    access: bool = option(False, "Write access.log, a line of JSON for each HTTP request.")
    max_bytes: int = number(10 * MIB, 64 * KIB, 1 * GIB, "Bytes of a log file before it is rotated.", SERVICE)
    max_files: int = number(5, 1, 1000, "Rotated files kept of each log.", SERVICE)
    performance_interval: int = number(60, 1, 86400, "Seconds between two lines of the performance log.", live=True)


@dataclass(frozen=True)
class Settings:
    """The whole configuration; immutable, so that a change is a new object."""

    rocksdb: RocksdbSettings = field(default_factory=RocksdbSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    grpc: GrpcSettings = field(default_factory=GrpcSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    value: ValueSettings = field(default_factory=ValueSettings)
    backup: BackupSettings = field(default_factory=BackupSettings)
    eviction: EvictionSettings = field(default_factory=EvictionSettings)
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    security: SecuritySettings = field(default_factory=SecuritySettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
