"""docs/durability.md: the variables that it names are there, and the settings are those of the code."""

from __future__ import annotations

import re

from kvtwisted.config.schema import KEYS

from .pages import ROOT, prose, tables

PAGE = ROOT / "docs" / "durability.md"


def test_variables_are_read_by_the_tests() -> None:
    """The table has each variable with its default, in the file that reads it."""
    rows = {row[0].strip("`"): row[1].strip("`") for row in tables(PAGE, "variable")}
    source = "".join(
        (ROOT / "tests" / "e2e" / name).read_text("utf-8") for name in ("test_crash.py", "test_power_loss.py")
    )
    read = dict(re.findall(r'os\.environ\.get\("(KVTWISTED_\w+)", (.+?)\)', source))
    assert rows.keys() == read.keys()
    for name, default in rows.items():
        if not name.endswith("_SEED"):
            assert read[name].strip('"') == default


def test_default_of_the_interval() -> None:
    """The row that is marked as the default has it."""
    default = KEYS["storage.wal_sync_interval_ms"].default
    assert f"`storage.wal_sync_interval_ms` = N (default, {default})" in prose(PAGE)
    assert KEYS["rocksdb.options.sync"].default is False
