"""The catalogue of metrics: each entry is well named, documented, and the only place that has its name."""

from __future__ import annotations

import re
from pathlib import Path

import kvtwisted
from kvtwisted.core import resources
from kvtwisted.observability import catalogue
from tests.docs.pages import ROOT, tables

PACKAGE = Path(kvtwisted.__file__).parent
ENTRIES = {entry.name: entry for entry in catalogue.entries()}
#: Of figures that the engine keeps.
ENGINE = catalogue.engine_property("").name


def test_names_are_of_one_kind_and_differ() -> None:
    """Names are ours, counters' end as Prometheus wants them to, nobody else's do."""
    assert len(ENTRIES) == len(catalogue.entries())
    for entry in ENTRIES.values():
        assert re.fullmatch("kv_[a-z][a-z0-9_]*", entry.name)
        assert entry.name.endswith("_total") == (entry.type == catalogue.COUNTER), entry
        assert not entry.name.startswith(ENGINE), entry


def test_help_is_a_sentence() -> None:
    """It begins and ends like one."""
    for entry in ENTRIES.values():
        assert re.fullmatch(r"(gRPC|[A-Z0-9]).*\.", entry.help), entry


def test_page_lists_each_entry_with_its_type_and_labels() -> None:
    """And no other metric, but those of the engine."""
    rows = {row[0].strip("`"): row for row in tables(ROOT / "docs" / "operations.md", "metric")}
    listed = {name: row[1] for name, row in rows.items() if not name.startswith(ENGINE)}
    assert listed == {name: entry.type for name, entry in ENTRIES.items()}
    for entry in ENTRIES.values():
        for label in entry.labels:
            assert f"`{label}" in rows[entry.name][2], (entry.name, label)


def test_nobody_else_has_names_of_metrics() -> None:
    """All others name an entry."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path != Path(catalogue.__file__):
            assert not re.search(r"""f?["']kv_""", path.read_text()), path


def test_each_resource_has_entries() -> None:
    """Those that are looked at are those that are shown."""
    assert {use().name for use in (resources.descriptors, resources.threads)} == set(catalogue.OF_RESOURCES)


def test_figures_of_the_engine() -> None:
    """Their names are RocksDB's own, as Prometheus can have them."""
    entry = catalogue.engine_property("block-cache-usage")
    assert (entry.name, entry.type) == ("kv_rocksdb_block_cache_usage", "gauge")
    assert entry.help == "RocksDB property rocksdb.block-cache-usage."
