"""The ten operations: their limits, how they are counted, and what a failure of theirs says."""

from __future__ import annotations

from .fault import Fault

_LIMITS = "kvtwisted/core/limits.py"
_STORE = "kvtwisted/backends/local/store.py"
_OPERATIONS = "kvtwisted/core/operations.py"

FAULTS = (
    Fault(
        "key-limit",
        "A key of 1,025 bytes is refused.",
        _LIMITS,
        "    if len(prefix) > MAX_KEY_BYTES:\n",
        "    if len(prefix) > MAX_KEY_BYTES + 1:\n",
        "tests/core/test_limits.py",
    ),
    Fault(
        "empty-key",
        "A Set of the empty key is refused, also one without a ttl, which has a shorter way.",
        _STORE,
        "without the calls.\n        if not 0 < len(key) <= MAX_KEY_BYTES:\n",
        "without the calls.\n        if not 0 <= len(key) <= MAX_KEY_BYTES:\n",
        "tests/backends/local/test_store.py tests/core/test_limits.py",
    ),
    Fault(
        "value-limit",
        "A Set of a value over 1 MiB is refused, also without a ttl.",
        _STORE,
        """            check_value(value)
        recency = self._recency
        if not recency.young[hash(key) & recency.mask]:
            recency.touch(key)
        self._writer.put(key, value, deadline)
""",
        """            pass
        recency = self._recency
        if not recency.young[hash(key) & recency.mask]:
            recency.touch(key)
        self._writer.put(key, value, deadline)
""",
        "tests/backends/local/test_store.py tests/core/test_limits.py tests/rpc/test_operations.py",
    ),
    Fault(
        "ttl-limit",
        "A ttl of one second over 100 years is refused.",
        _LIMITS,
        "    if ttl > MAX_TTL_SECONDS:\n",
        "    if ttl > MAX_TTL_SECONDS + 1:\n",
        "tests/core/test_limits.py",
    ),
    Fault(
        "mset-ttl",
        "An MSet with a ttl that is not allowed is refused.",
        _STORE,
        "        check_pairs(pairs, self.limits)\n        check_ttl(ttl)\n",
        "        check_pairs(pairs, self.limits)\n",
        "tests/core/test_limits.py tests/backends/local/test_store.py tests/rpc/test_operations.py",
    ),
    Fault(
        "batch-count",
        "A batch of one key more than limits.max_batch_keys is refused.",
        _LIMITS,
        "    if count > limit:\n",
        "    if count > limit + 1:\n",
        "tests/core/test_limits.py",
    ),
    Fault(
        "batch-bytes",
        "The bytes of an MSet's values count for limits.max_request_bytes, not those of its keys alone.",
        _LIMITS,
        "_check_total(sum(sizes) + sum(value_sizes),",
        "_check_total(sum(sizes),",
        "tests/core/test_limits.py",
    ),
    Fault(
        "mdelete-unchecked",
        "The keys of an MDelete are checked as those of an MGet are.",
        _STORE,
        "        check_keys(keys, self.limits)\n        return [(key, None, 0) for key in keys]\n",
        "        return [(key, None, 0) for key in keys]\n",
        "tests/core/test_limits.py tests/backends/local/test_store.py",
    ),
    Fault(
        "overdue-runs",
        "A request whose time is over before it is started is not carried out.",
        _OPERATIONS,
        "            if started > deadline:\n                raise _overdue()\n            result = call()\n",
        "            result = call()\n",
        "tests/core/test_operations.py",
    ),
    Fault(
        "failures-counted-well",
        "An operation that failed is counted as failed.",
        _OPERATIONS,
        "self._recorder.operation(name, keys, monotonic() - started, True)",
        "self._recorder.operation(name, keys, monotonic() - started, False)",
        "tests/core/test_operations.py",
    ),
    Fault(
        "nearly-full-unhealthy",
        "A write that is refused since the disk is nearly full does not make the server look broken.",
        _OPERATIONS,
        " and not isinstance(error, NearlyFull):",
        ":",
        "tests/core/test_operations.py tests/backends/local/maintenance/test_space.py tests/core/test_health.py",
    ),
    Fault(
        "mget-budget",
        "The values of an MGet that exceed the budget of one answer are refused, when none is in the hot cache.",
        "kvtwisted/backends/local/batch_reads.py",
        " size += len(key) + len(stored) + ENTRY_OVERHEAD\n",
        " size += len(stored)\n",
        "tests/backends/local/test_store.py tests/core/test_limits.py tests/backends/local/test_cache.py",
    ),
    Fault(
        "scan-limit",
        "A scan with a limit gives that many entries at most.",
        "kvtwisted/backends/local/pages.py",
        "(limit and len(items) == limit)",
        "(limit and len(items) > limit)",
        "tests/backends/local/test_store_scan.py",
    ),
    Fault(
        "scan-cursor",
        "A page begins after the cursor, not with it.",
        "kvtwisted/backends/local/pages.py",
        'max(prefix, cursor + b"\\0") if cursor',
        "max(prefix, cursor) if cursor",
        "tests/backends/local/test_store_scan.py",
    ),
    Fault(
        "scan-ends-early",
        "A page that ends before the end of the range has a cursor to go on from.",
        "kvtwisted/backends/local/pages.py",
        "                        return Page(items, items[-1][0])\n",
        '                        return Page(items, b"")\n',
        "tests/backends/local/test_store_scan.py",
    ),
    Fault(
        "scan-keys-budget",
        "The values count nothing for the budget of a scan of keys alone.",
        "kvtwisted/backends/local/pages.py",
        "(0 if keys_only else value_bytes)",
        "value_bytes",
        "tests/backends/local/test_store_scan.py",
    ),
    Fault(
        "scan-shows-expired",
        "A scan leaves out keys that have expired and are not swept yet.",
        "kvtwisted/backends/local/pages.py",
        "expired = max(expired, record.expires_at_ms)\n                            continue\n",
        "expired = max(expired, record.expires_at_ms)\n",
        "tests/backends/local/test_store_scan.py tests/backends/local/maintenance/test_expiry.py",
    ),
)
