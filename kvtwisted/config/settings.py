"""Every configuration key of the server, declared once, as frozen dataclasses (one per section).

The names of sections and fields are the keys: `settings.http.port` is `http.port`. What is not in a section's class
does not exist. See `docs/configuration.md` for the same table with explanations; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..core.options import DATA, DURABILITY, GIB, KIB, MIB, REACH, SERVICE, EngineOptions, option


@dataclass(frozen=True)
class RocksdbSettings:
    """Section `rocksdb`."""

    path: str = option("./data", "Folder of the RocksDB database; made when missing.", guarded=DATA)
    options: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True)
class StorageSettings:
    """Section `storage`."""

    engine: str = option(
        "auto", "RocksDB binding: auto takes rocksdict, else lbry. memory keeps nothing and is for trials.",
        choices=("auto", "rocksdict", "lbry", "memory"), guarded=DATA,
    )  # fmt: skip
    threads: int = option(8, "Threads that do storage work for the reactor.", low=1, high=256, guarded=SERVICE)
    wal_sync_interval_ms: int = option(
        1000,
        "Milliseconds between fsyncs of the write-ahead log: what a power loss may take; 0 leaves it to the kernel.",
        low=0,
        high=3_600_000,
        live=True,
        guarded=DURABILITY,
    )
    expiry_interval: int = option(
        1,
        "Seconds between two sweeps that delete expired keys (they are invisible before).",
        low=1,
        high=60,
        live=True,
    )


@dataclass(frozen=True)
class CacheSettings:
    """Section `cache`."""

    max_bytes: int = option(
        128 * MIB,
        "Bytes of values kept in memory for Get; 0 turns the cache off.",
        low=0,
        high=1024 * GIB,
        live=True,
        guarded=SERVICE,
    )


@dataclass(frozen=True)
class GrpcSettings:
    """Section `grpc`."""

    host: str = option("127.0.0.1", "Address the gRPC server listens on.", guarded=REACH)
    port: int = option(50051, "TCP port of the gRPC server; 0 takes any free one.", low=0, high=65535, guarded=REACH)
    transport: str = option(
        "native",
        "gRPC server: native runs on the reactor and is many times as fast; threaded is grpcio's.",
        choices=("native", "threaded"),
        guarded=SERVICE,
    )
    threads: int = option(
        16, "Threads that run gRPC calls; for the threaded transport.", low=1, high=256, guarded=SERVICE
    )
    tls_certificate: str = option(
        "",
        "PEM file of the gRPC server's certificate and its chain; empty: no TLS.",
        guarded=REACH,
    )
    tls_private_key: str = option("", "PEM file of that certificate's private key.", guarded=REACH)
    tls_client_ca: str = option(
        "", "PEM file of the authorities whose certificates gRPC clients must present; empty: none is asked for.",
        guarded=REACH,
    )  # fmt: skip
    max_response_bytes: int = option(
        4 * MIB,
        "Bytes of one answer at most; clients accept 4 MiB by default.",
        low=2 * MIB,
        high=1 * GIB,
        live=True,
        guarded=SERVICE,
    )


@dataclass(frozen=True)
class HttpSettings:
    """Section `http`."""

    host: str = option("127.0.0.1", "Address the HTTP server listens on.", guarded=REACH)
    port: int = option(8080, "TCP port of the HTTP server; 0 takes any free one.", low=0, high=65535, guarded=REACH)
    tls_certificate: str = option(
        "",
        "PEM file of the HTTP server's certificate and its chain; empty: no TLS.",
        guarded=REACH,
    )
    tls_private_key: str = option("", "PEM file of that certificate's private key.", guarded=REACH)
    tls_client_ca: str = option(
        "", "PEM file of the authorities whose certificates HTTP clients must present; empty: none is asked for.",
        guarded=REACH,
    )  # fmt: skip
    max_response_bytes: int = option(
        4 * MIB,
        "Bytes of keys and values in one answer at most.",
        low=2 * MIB,
        high=1 * GIB,
        live=True,
        guarded=SERVICE,
    )
    allowed_hosts: str = option(
        "",
        "Names, with commas between, that HTTP requests may call the server by while it asks for no authentication.",
        guarded=REACH,
    )
    cors_origins: str = option(
        "",
        "Origins, with commas between, whose pages browsers may let talk to the server; * is every one; empty: none.",
        guarded=REACH,
    )
    idle_timeout: int = option(
        75, "Seconds without traffic after which a connection is closed.", low=1, high=3600, guarded=SERVICE
    )
    header_timeout: int = option(
        20,
        "Seconds from a request's first byte within which its head must be complete.",
        low=1,
        high=3600,
        guarded=SERVICE,
    )
    body_timeout: int = option(
        30,
        "Seconds from the end of its head within which its body must be complete; each 16 KiB received add one.",
        low=1,
        high=3600,
        guarded=SERVICE,
    )
    send_timeout: int = option(
        60,
        "Seconds within which a client must take 64 KiB of an answer, or all that is left.",
        low=1,
        high=3600,
        guarded=SERVICE,
    )
    fast_lane: bool = option(
        True, "Answer plain requests for single keys, mset and mget without Klein, many times as fast.", guarded=SERVICE
    )


@dataclass(frozen=True)
class ValueSettings:
    """Section `value`."""

    disk_threshold: int = option(
        1 * MIB,
        "Bytes from which a value is stored in a file of its own.",
        low=1 * KIB,
        high=1 * GIB,
        live=True,
        guarded=SERVICE,
    )
    disk_path: str = option("./value_data", "Folder of large values; made when missing.", guarded=DATA)


@dataclass(frozen=True)
class BackupSettings:
    """Section `backup`."""

    path: str = option("./backups", "Folder of backups; made at the first one.", guarded=DATA)


@dataclass(frozen=True)
class EvictionSettings:
    """Section `eviction`."""

    enabled: bool = option(True, "Delete keys when the disk fills up.", live=True, guarded=DATA)
    disk_usage_threshold: int = option(
        80,
        "Percent of the data's file system in use from which keys are evicted.",
        low=1,
        high=100,
        live=True,
        guarded=DATA,
    )
    check_interval: int = option(
        60, "Seconds between two looks at the disk.", low=1, high=86400, live=True, guarded=DATA
    )
    batch_size: int = option(100, "Keys deleted in one batch.", low=1, high=10_000, live=True, guarded=DATA)
    policy: str = option(
        "lru",
        "Which keys go after expired ones: lru (approximate), oldest (written first), ttl (soonest to expire), none.",
        choices=("lru", "oldest", "ttl", "none"),
        live=True,
        guarded=DATA,
    )
    high_water_mark: int = option(
        95, "Percent of a file system in use from which writes are refused, also when eviction is off.",
        low=1, high=100, live=True, guarded=SERVICE,
    )  # fmt: skip


@dataclass(frozen=True)
class MonitoringSettings:
    """Section `monitoring`."""

    enabled: bool = option(True, "Serve the Prometheus metrics.", guarded=SERVICE)
    metrics_path: str = option("/metrics", "HTTP path of the Prometheus metrics.", guarded=SERVICE)
    health_path: str = option("/api/v1/health", "HTTP path of the health check.", guarded=SERVICE)
    sample_interval: int = option(
        10, "Seconds between two samples of disk and RocksDB figures.", low=1, high=3600, live=True
    )


@dataclass(frozen=True)
class LimitSettings:
    """Section `limits`."""

    max_batch_keys: int = option(
        10_000, "Keys in one MSet, MGet or MDelete.", low=1, high=1_000_000, live=True, guarded=SERVICE
    )
    max_request_bytes: int = option(
        16 * MIB,
        "Bytes of one request's keys and values; a body or message may have a quarter more.",
        low=8 * MIB,
        high=1 * GIB,
        guarded=SERVICE,
    )
    max_in_flight: int = option(
        1024,
        "Requests being worked on or waiting; one more is refused as overloaded.",
        low=1,
        high=100_000,
        guarded=SERVICE,
    )
    max_in_flight_per_principal: int = option(
        0,
        "Of those, requests of one token or certificate; 0: three quarters.",
        low=0,
        high=100_000,
        guarded=SERVICE,
    )
    max_bytes_in_flight: int = option(
        256 * MIB,
        "Bytes that those requests may have; a principal may have as large a part of them as of max_in_flight.",
        low=8 * MIB,
        high=1024 * GIB,
        guarded=SERVICE,
    )
    max_pipelines: int = option(
        100,
        "Open gRPC pipelines; of one token or certificate three quarters. With grpc.transport = threaded each takes a "
        "thread, and there are at most half of grpc.threads.",
        low=1, high=100_000, guarded=SERVICE,
    )  # fmt: skip
    max_watches: int = option(
        1000,
        "Open Watch streams of gRPC's health service; from one address three quarters.",
        low=1,
        high=100_000,
        guarded=SERVICE,
    )
    max_connections: int = option(
        0,
        "Connections to HTTP and native gRPC together; 0: as many as there are file descriptors for.",
        low=0, high=1_000_000, live=True, guarded=SERVICE,
    )  # fmt: skip
    max_connections_per_address: int = option(
        0,
        "Of those, connections from one address (IPv6: from one /64); 0: three quarters of all.",
        low=0, high=1_000_000, live=True, guarded=SERVICE,
    )  # fmt: skip
    max_unfinished_bytes: int = option(
        256 * MIB,
        "Bytes of incomplete requests, over each interface; then those that come slowly are refused.",
        low=24 * MIB, high=1024 * GIB, live=True, guarded=SERVICE,
    )  # fmt: skip
    max_unsent_bytes: int = option(
        256 * MIB,
        "Bytes of answers that clients have not taken, over each interface; then those that read least are cut off.",
        low=16 * MIB, high=1024 * GIB, live=True, guarded=SERVICE,
    )  # fmt: skip
    request_timeout: int = option(
        30,
        "Seconds a request may wait and run before it is given up.",
        low=1,
        high=3600,
        live=True,
        guarded=SERVICE,
    )
    shutdown_grace: int = option(
        10,
        "Seconds that running requests get to finish at shutdown.",
        low=0,
        high=3600,
        live=True,
        guarded=SERVICE,
    )


@dataclass(frozen=True)
class SecuritySettings:
    """Section `security`."""

    tokens: str = option(
        "",
        "File of the tokens that clients must send; empty: no tokens, and no client has to send one.",
        guarded=REACH,
    )
    failed_logins: int = option(
        30, "Failed logins of one address in a minute; more are answered with 429; 0: no limit.",
        low=0, high=1_000_000, live=True, guarded=REACH,
    )  # fmt: skip
    address_operations: int = option(
        0,
        "Operations per second of one address; 0: no limit.",
        low=0,
        high=1_000_000_000,
        live=True,
        guarded=REACH,
    )
    address_bytes: int = option(
        0, "Bytes per second of one address, sent and received; 0: no limit.",
        low=0, high=1_000_000_000_000, live=True, guarded=REACH,
    )  # fmt: skip
    token_operations: int = option(
        0, "Operations per second of one token that has no rate of its own; 0: no limit.",
        low=0, high=1_000_000_000, live=True, guarded=REACH,
    )  # fmt: skip
    token_bytes: int = option(
        0, "Bytes per second of one token that has no rate of its own, sent and received; 0: no limit.",
        low=0, high=1_000_000_000_000, live=True, guarded=REACH,
    )  # fmt: skip
    unauthenticated_body_bytes: int = option(
        64 * KIB, "Bytes of an HTTP body that are read before it is known who sends it; a longer one is not read.",
        low=0, high=1 * MIB, live=True, guarded=REACH,
    )  # fmt: skip
    audit_writes: bool = option(False, "Write a line to writes.log for each write, with its first key.", guarded=REACH)


@dataclass(frozen=True)
class LoggingSettings:
    """Section `logging`."""

    directory: str = option("./logs", "Folder of the log files; empty writes none.", guarded=DATA)
    format: str = option("text", "Form of the log files.", choices=("text", "json"))
    level: str = option("info", "Least level in running.log.", choices=("debug", "info", "warn", "error"), live=True)
    access: bool = option(False, "Write access.log, a line of JSON for each HTTP request.")
    max_bytes: int = option(
        10 * MIB,
        "Bytes of a log file before it is rotated.",
        low=64 * KIB,
        high=1 * GIB,
        guarded=SERVICE,
    )
    max_files: int = option(5, "Rotated files kept of each log.", low=1, high=1000, guarded=SERVICE)
    performance_interval: int = option(
        60, "Seconds between two lines of the performance log.", low=1, high=86400, live=True
    )


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
