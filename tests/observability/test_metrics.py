"""Metrics: their names, what they count, and the text that Prometheus reads."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from kvtwisted.commands.command import OPERATIONS
from kvtwisted.core.disk import DiskUsage
from kvtwisted.observability import catalogue
from kvtwisted.observability.metrics import BUCKETS, CONTENT_TYPE, OPEN_METRICS, Metrics, StorageSample, Totals
from kvtwisted.sessions.door import Recorder

#: Section 8 of the contract.
HISTOGRAMS = [
    "kv_set_latency_seconds",
    "kv_get_latency_seconds",
    "kv_delete_latency_seconds",
    "kv_scan_latency_seconds",
    "kv_health_check_latency_seconds",
]
COUNTERS = [
    "kv_sets_total",
    "kv_gets_total",
    "kv_deletes_total",
    "kv_scans_total",
    "kv_set_errors_total",
    "kv_get_errors_total",
    "kv_delete_errors_total",
    "kv_scan_errors_total",
    "kv_config_updates_total",
    "kv_health_checks_total",
]


class Scraped:
    """Metrics, read as Prometheus reads them: through the text."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())

    def samples(self) -> list[Sample]:
        """Everything in the text."""
        families = list(text_string_to_metric_families(self.metrics.text().decode()))
        assert len({family.name for family in families}) == len(families)
        return [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        """One figure; None when it is not there."""
        found = [sample.value for sample in self.samples() if (sample.name, sample.labels) == (name, labels)]
        assert len(found) <= 1
        return found[0] if found else None

    def types(self) -> dict[str, str]:
        """The type of each family."""
        return {family.name: family.type for family in text_string_to_metric_families(self.metrics.text().decode())}


@pytest.fixture
def scraped() -> Scraped:
    """Metrics of a server that has done nothing."""
    return Scraped()


def test_is_what_operations_report_to(scraped: Scraped) -> None:
    """It has each method of Recorder."""
    recorder: Recorder = scraped.metrics
    assert all(callable(getattr(recorder, name)) for name in vars(Recorder) if not name.startswith("_"))


def test_names_and_types_are_the_contract(scraped: Scraped) -> None:
    """Each name of the contract is there from the start, with its type, and at zero."""
    types = scraped.types()
    for name in HISTOGRAMS:
        assert types[name] == "histogram"
        assert scraped.value(f"{name}_count") == 0
    for name in COUNTERS:
        assert types[name[: -len("_total")]] == "counter"
        assert scraped.value(name) == 0


def test_every_metric_has_help(scraped: Scraped) -> None:
    """Each family says what it is in a sentence, and has a name of ours."""
    scraped.metrics.sample = StorageSample(figures={"estimate-num-keys": 1})
    for family in text_string_to_metric_families(scraped.metrics.text().decode()):
        assert re.fullmatch("kv_[a-z][a-z0-9_]*", family.name)
        assert family.documentation.endswith(".") or family.name.endswith("_created"), family.name


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(scraped: Scraped, name: str) -> None:
    """A call is one observation and counts its keys; failed ones count as errors too; others are left alone."""
    scraped.metrics.operation(name, 1, 0.0003, False)
    scraped.metrics.operation(name, 7, 0.02, True)
    for other in OPERATIONS:
        touched = other == name
        assert scraped.value(f"kv_{other}s_total") == (8 if touched else 0)
        assert scraped.value(f"kv_{other}_errors_total") == (7 if touched else 0)
        assert scraped.value(f"kv_{other}_latency_seconds_count") == (2 if touched else 0)
        assert scraped.value(f"kv_{other}_latency_seconds_sum") == pytest.approx(0.0203 if touched else 0)
    assert scraped.value(f"kv_{name}_latency_seconds_bucket", le="0.00025") == 0
    assert scraped.value(f"kv_{name}_latency_seconds_bucket", le="0.0005") == 1
    assert scraped.value(f"kv_{name}_latency_seconds_bucket", le="+Inf") == 2


def test_config_updates_and_health_checks(scraped: Scraped) -> None:
    """Each has its counter; a health check its latency too."""
    scraped.metrics.config_update()
    scraped.metrics.health_check(0.5)
    scraped.metrics.health_check(0.25)
    assert scraped.value("kv_config_updates_total") == 1
    assert scraped.value("kv_health_checks_total") == 2
    assert scraped.value("kv_health_check_latency_seconds_count") == 2
    assert scraped.value("kv_health_check_latency_seconds_sum") == 0.75


def test_evictions_and_expirations(scraped: Scraped) -> None:
    """Evictions by reason with their bytes, futile looks, expirations."""
    scraped.metrics.evicted("lru", 3, 300)
    scraped.metrics.evicted("lru", 2, 20)
    scraped.metrics.evicted("expired", 1, 7)
    scraped.metrics.eviction_futile()
    scraped.metrics.expired(5)
    scraped.metrics.expired(0)
    assert scraped.value("kv_evictions_total", reason="lru") == 5
    assert scraped.value("kv_evicted_bytes_total", reason="lru") == 320
    assert scraped.value("kv_evictions_total", reason="expired") == 1
    assert scraped.value("kv_evicted_bytes_total", reason="expired") == 7
    assert scraped.value("kv_evictions_futile_total") == 1
    assert scraped.value("kv_expirations_total") == 5


def test_sample(scraped: Scraped) -> None:
    """The last sample's figures are gauges; RocksDB's own have its names with underscores."""
    assert scraped.metrics.sample == StorageSample()
    sample = StorageSample(
        11, 22, DiskUsage(300, 100), keys=4, figures={"estimate-num-keys": 4.0, "block-cache-usage": 55.0}
    )
    scraped.metrics.sample = StorageSample(1, 1, DiskUsage(1, 1), figures={"gone": 1.0})
    scraped.metrics.sample = sample
    assert scraped.metrics.sample is sample
    figures = {sample.name: sample.value for sample in scraped.samples()}
    assert {name: figures[name] for name in figures if name.startswith(("kv_d", "kv_v", "kv_k", "kv_r"))} == {
        **{name: value for name, value in figures.items() if name.startswith(("kv_delete", "kv_denied"))},
        "kv_data_bytes": 11,
        "kv_value_bytes": 22,
        "kv_disk_used_bytes": 300,
        "kv_disk_free_bytes": 100,
        "kv_disk_used_percent": 75,
        "kv_keys": 4,
        "kv_rocksdb_estimate_num_keys": 4,
        "kv_rocksdb_block_cache_usage": 55,
    }
    assert {scraped.types()[name] for name in ("kv_data_bytes", "kv_keys", "kv_rocksdb_block_cache_usage")} == {"gauge"}


def test_refusals_by_reason(scraped: Scraped) -> None:
    """Each reason that there is shows from the start."""
    scraped.metrics.denied("permission_denied")
    shown = {sample.labels["reason"]: sample.value for sample in scraped.samples() if sample.name == "kv_denied_total"}
    assert shown == {"unauthenticated": 0, "permission_denied": 1, "rate_limited": 0}


def test_before_the_first_sample(scraped: Scraped) -> None:
    """Figures are 0 until there is a sample."""
    assert scraped.value("kv_keys") == scraped.value("kv_disk_used_percent") == 0


def test_shown_gauges_are_read_when_asked(scraped: Scraped) -> None:
    """A gauge shows what it reads now, with its labels if it has any."""
    figures = [1.0, 2.0]
    scraped.metrics.show(catalogue.IN_FLIGHT_REQUESTS, lambda: figures[0])
    scraped.metrics.show(catalogue.CONNECTIONS, lambda: figures[1], transport="http")
    assert scraped.value("kv_in_flight_requests") == 1
    figures[:] = [3.0, 4.0]
    assert scraped.value("kv_in_flight_requests") == 3
    assert scraped.value("kv_connections", transport="http") == 4


def test_shown_counters_are_read_when_asked_and_never_fall(scraped: Scraped) -> None:
    """With labels, each set of them by itself, all of one family."""
    counts = {"a": 3.0, "b": 0.0}
    for reason in counts:
        scraped.metrics.show(catalogue.HTTP_REFUSED, lambda reason=reason: counts[reason], reason=reason)
    scraped.metrics.show(catalogue.WRITES_REFUSED, lambda: counts["a"])
    assert scraped.types()["kv_http_refused"] == "counter"
    assert [scraped.value("kv_http_refused_total", reason=reason) for reason in counts] == [3, 0]
    counts.update(a=1, b=2)
    assert [scraped.value("kv_http_refused_total", reason=reason) for reason in counts] == [3, 2]
    assert scraped.value("kv_writes_refused_total") == 3


def test_labels_are_those_of_the_catalogue(scraped: Scraped) -> None:
    """All of them and no other; else a figure would stand under a name that nobody has heard of."""
    for labels in ({}, {"reason": "all"}, {"transport": "http", "reason": "all"}):
        with pytest.raises(ValueError, match="kv_connections has the labels"):
            scraped.metrics.show(catalogue.CONNECTIONS, lambda: 1, **labels)


def test_build_info(scraped: Scraped) -> None:
    """Always 1; the labels tell what runs, whatever they hold."""
    facts = {"version": "1.2.3", "engine": 'rocksdict "quoted"\\ \n', "python": "3", "twisted": "26", "grpcio": "1"}
    scraped.metrics.show(catalogue.BUILD_INFO, lambda: 1, **facts)
    assert scraped.value("kv_build_info", **facts) == 1


def test_totals(scraped: Scraped) -> None:
    """Keys, failed keys, and calls by bucket, each call in one bucket."""
    scraped.metrics.operation("get", 1, BUCKETS[0], False)
    scraped.metrics.operation("get", 5, BUCKETS[0] * 1.01, True)
    scraped.metrics.operation("get", 1, 100.0, False)
    totals = scraped.metrics.totals()
    assert set(totals) == set(OPERATIONS)
    assert totals["get"] == Totals(7, 5, [1, 1, *[0] * (len(BUCKETS) - 2), 1])
    assert totals["set"] == Totals(0, 0, [0] * (len(BUCKETS) + 1))


def test_buckets_reach_from_5_us_to_10_s() -> None:
    """Bounds go up, from 5 us to 10 s."""
    assert list(BUCKETS) == sorted(set(BUCKETS))
    assert (BUCKETS[0], BUCKETS[-1]) == (5e-6, 10)


def test_content_type() -> None:
    """The text is what its content type says: Prometheus' text format in UTF-8."""
    assert CONTENT_TYPE.startswith("text/plain; version=")
    assert "charset=utf-8" in CONTENT_TYPE


def test_counting_from_many_threads(scraped: Scraped) -> None:
    """No count is lost."""
    start = threading.Barrier(4)

    def count() -> None:
        start.wait(60)
        for _ in range(500):
            scraped.metrics.operation("set", 2, 0.001, True)
            scraped.metrics.evicted("lru", 1, 10)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert scraped.metrics.totals()["set"][:2] == (4000, 4000)
    assert scraped.value("kv_set_latency_seconds_count") == 2000
    assert scraped.value("kv_evicted_bytes_total", reason="lru") == 20_000


def test_two_servers_in_one_process() -> None:
    """Each has a registry of its own."""
    first, second = Scraped(), Scraped()
    first.metrics.operation("set", 1, 0.1, False)
    assert (first.value("kv_sets_total"), second.value("kv_sets_total")) == (1, 0)


def test_both_formats_tell_the_same(scraped: Scraped) -> None:
    """OpenMetrics, for those who ask for it, has the samples of the text format; each is named as it is."""
    kind, text = scraped.metrics.exposition(False)
    open_kind, open_text = scraped.metrics.exposition(True)
    assert (kind, open_kind) == (CONTENT_TYPE, OPEN_METRICS)
    assert (kind, open_kind) == (
        "text/plain; version=0.0.4; charset=utf-8",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )
    assert open_text.endswith(b"# EOF\n")

    def samples(families: Any) -> set[tuple[str, str]]:
        return {
            (sample.name, str(sorted(sample.labels.items())))
            for family in families
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    found = samples(open_metrics_families(open_text.decode()))
    assert found == samples(text_string_to_metric_families(text.decode()))
    assert "kv_gets_total" in {name for name, _ in found}
