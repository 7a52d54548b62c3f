"""Every metric that the server shows: its name, type, labels and help, here and nowhere else.

docs/operations.md lists the same; a test compares the two. Code that counts something names an entry of this module,
and tells `Metrics.show` how to read the count.
"""

from __future__ import annotations

from typing import NamedTuple

from ..commands.command import DELETE, GET, OPERATIONS, SCAN, SET

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class Entry(NamedTuple):
    """One metric: its name as it is shown, its type, a sentence of help, and the labels that each of its values has."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()


def _counter(name: str, help: str, *labels: str) -> Entry:
    return Entry(f"{name}_total", COUNTER, help, labels)


def _gauge(name: str, help: str, *labels: str) -> Entry:
    return Entry(name, GAUGE, help, labels)


def _histogram(name: str, help: str) -> Entry:
    return Entry(name, HISTOGRAM, help)


_PLURALS = {SET: "sets", GET: "gets", DELETE: "deletes", SCAN: "scans"}


def _operation(name: str) -> tuple[Entry, Entry, Entry]:
    """What is shown of one operation: its latency, its keys, its errors."""
    return (
        _histogram(f"kv_{name}_latency_seconds", f"Seconds of one {name} call, a batch being one."),
        _counter(f"kv_{_PLURALS[name]}", f"{name.capitalize()} operations; a batch counts its keys."),
        _counter(f"kv_{name}_errors", f"{name.capitalize()} operations that failed; a missing key does not."),
    )


def _resource(name: str) -> tuple[Entry, Entry]:
    """What is shown of a resource of the process: how many are in use, and the limit."""
    shown = f"kv_{name.replace(' ', '_')}"
    return (
        _gauge(shown, f"How many {name} are in use."),
        _gauge(f"{shown}_limit", f"How many {name} there may be; 0: no limit."),
    )


# Operations, configuration and health.

#: By the operation's name.
OF_OPERATIONS = {name: _operation(name) for name in OPERATIONS}
CONDITIONS_FAILED = _counter(
    "kv_conditions_failed", "Operations that changed nothing because a condition did not hold; they are no errors."
)
CONFIG_UPDATES = _counter("kv_config_updates", "Accepted configuration changes.")
HEALTH_CHECKS = _counter("kv_health_checks", "Health checks made; clients that ask at the same time share one.")
HEALTH_CHECK_LATENCY = _histogram("kv_health_check_latency_seconds", "Seconds of one health check made.")

# Eviction and expiry.

EVICTIONS = _counter("kv_evictions", "Keys evicted, by reason.", "reason")
EVICTED_BYTES = _counter("kv_evicted_bytes", "Bytes of the keys and records evicted, by reason.", "reason")
EVICTIONS_FUTILE = _counter(
    "kv_evictions_futile", "Checks that found a disk full of something else than keys: evicting all would not help."
)
EXPIRATIONS = _counter("kv_expirations", "Expired keys deleted by the sweeper.")
EXPIRY_ENTRIES_REPLACED = _counter(
    "kv_expiry_entries_replaced", "Entries of the expiry index deleted by the write that replaced their key."
)
EXPIRY_ENTRIES_SCRUBBED = _counter(
    "kv_expiry_entries_scrubbed", "Entries of the expiry index without a record, found and deleted later."
)
CLOCK_AHEAD = _gauge(
    "kv_clock_ahead_seconds", "How far the time that ttls go by is ahead of a wall clock that was set back."
)

# The storage. Sampled figures are shown from the start, as 0.

WRITES_REFUSED = _counter("kv_writes_refused", "Writes refused at the high-water mark.")
DISK_NEARLY_FULL = _gauge("kv_disk_nearly_full", "1 while writes are refused at the high-water mark.")
DATA_BYTES = _gauge("kv_data_bytes", "Bytes on disk of the RocksDB folder.")
VALUE_BYTES = _gauge("kv_value_bytes", "Bytes on disk of the large-value folder.")
DISK_USED_BYTES = _gauge("kv_disk_used_bytes", "Bytes in use on the data's file system.")
DISK_FREE_BYTES = _gauge("kv_disk_free_bytes", "Bytes free on the data's file system.")
DISK_USED_PERCENT = _gauge("kv_disk_used_percent", "Percent of the file system in use.")
INODES = _gauge("kv_inodes", "Inodes of the data's file system; 0: made as needed.")
INODES_FREE = _gauge("kv_inodes_free", "Inodes free on the data's file system.")
#: By the name that a `core.resources.Use` has.
OF_RESOURCES = {name: _resource(name) for name in ("file descriptors", "threads")}
KEYS = _gauge("kv_keys", "Keys stored, as RocksDB estimates.")
CACHE_HITS = _counter("kv_cache_hits", "Gets answered from the hot cache.")
CACHE_MISSES = _counter("kv_cache_misses", "Gets that the hot cache could not answer.")
CACHE_BYTES = _gauge("kv_cache_bytes", "Bytes of the hot cache's entries.")

# Requests that are under way.

IN_FLIGHT_REQUESTS = _gauge("kv_in_flight_requests", "Requests being worked on or waiting.")
IN_FLIGHT_BYTES = _gauge("kv_in_flight_bytes", "Bytes of keys and values of those requests.")
POOL_QUEUE_DEPTH = _gauge("kv_pool_queue_depth", "Jobs and writes of requests that wait for a storage thread.")
OVERLOADED = _counter(
    "kv_overloaded", "Requests refused for limits.max_in_flight, max_in_flight_per_principal or max_bytes_in_flight."
)
OVERDUE = _counter("kv_overdue", "Requests given up because their time ran out before the storage began with them.")

# Connections and what they hold.

CONNECTIONS = _gauge("kv_connections", "Open connections.", "transport")
CONNECTIONS_MADE_WAY = _counter(
    "kv_connections_made_way", "Idle connections closed to make room at a limit on connections."
)
CONNECTIONS_REFUSED = _counter(
    "kv_connections_refused", "Connections refused because there were too many.", "transport", "reason"
)
UNFINISHED_REQUEST_BYTES = _gauge(
    "kv_unfinished_request_bytes",
    "Bytes of incomplete requests, the room promised to them included.",
    "transport",
)
UNFINISHED_REFUSED = _counter(
    "kv_unfinished_refused",
    "Incomplete requests refused because such requests took limits.max_unfinished_bytes.",
    "transport",
)
UNSENT_ANSWER_BYTES = _gauge("kv_unsent_answer_bytes", "Bytes of answers that clients have not taken yet.", "transport")
CUT_OFF = _counter(
    "kv_cut_off",
    "Connections cut off because their clients were too slow or held too much.",
    "transport",
    "reason",
)
HTTP_REFUSED = _counter("kv_http_refused", "HTTP requests refused before they were complete.", "reason")
STREAMS = _gauge("kv_streams", "Open streams, but for watchers of keys.", "kind")
STREAMS_REFUSED = _counter(
    "kv_streams_refused", "Streams refused because there were too many, in all or of one client.", "kind"
)
WATCHERS = _gauge("kv_watchers", "Open Watches of keys.")
WATCH_EVENTS = _counter("kv_watch_events", "Events that watchers were told of; one for several counts once for each.")
WATCH_HISTORY_BYTES = _gauge("kv_watch_history_bytes", "Bytes of the last commits that are kept for who watches.")

# Who asks.

DENIED = _counter("kv_denied", "Requests refused for their sender: no valid token, no right, or over a rate.", "reason")
TOKENS = _gauge("kv_tokens", "Tokens and certificates that are known.")
QUOTA_BYTES = _gauge("kv_quota_bytes", "Bytes that a principal may keep by its quota; 0: no limit.", "principal")
QUOTA_USED_BYTES = _gauge(
    "kv_quota_used_bytes", "Bytes that a principal with a quota keeps, approximately.", "principal"
)
QUOTA_KEYS = _gauge("kv_quota_keys", "Keys that a principal may keep by its quota; 0: no limit.", "principal")
QUOTA_USED_KEYS = _gauge("kv_quota_used_keys", "Keys that a principal with a quota keeps, approximately.", "principal")
QUOTA_REFUSED = _counter("kv_quota_refused", "Writes refused for a principal's quota.", "principal")
CERTIFICATE_EXPIRY = _gauge(
    "kv_tls_certificate_expiry_seconds", "When the certificate in force expires, in seconds since 1970.", "listener"
)

# The server itself.

LOG_LINES_DROPPED = _counter("kv_log_lines_dropped", "Lines that were not written, by log.", "log")
LOG_LINES_WAITING = _gauge("kv_log_lines_waiting", "Lines to be written, by log.", "log")
LOG_STUCK = _gauge("kv_log_stuck", "1 while writes to a log fail or hang, by log.", "log")
BUILD_INFO = _gauge(
    "kv_build_info", "Always 1; the labels tell versions.", "version", "engine", "python", "twisted", "grpcio"
)


def engine_property(name: str) -> Entry:
    """The entry of a figure that the engine keeps; only the engine knows which there are."""
    return _gauge(f"kv_rocksdb_{name.replace('-', '_')}", f"RocksDB property rocksdb.{name}.")


def entries() -> list[Entry]:
    """All entries, those of operations and resources included; not those of `engine_property`."""
    single = [value for value in globals().values() if isinstance(value, Entry)]
    grouped = [entry for group in (*OF_OPERATIONS.values(), *OF_RESOURCES.values()) for entry in group]
    return single + grouped
