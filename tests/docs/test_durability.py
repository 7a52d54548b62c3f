"""docs/durability.md: the tests and variables that it names are there, and the settings are those of the code."""

from __future__ import annotations

import re

from kvtwisted.config.schema import KEYS

from .pages import ROOT, prose, tables

PAGE = ROOT / "docs" / "durability.md"


def test_every_test_named_is_there() -> None:
    """Each row names a file, and a test in it; no test of these files is left out."""
    named: dict[str, set[str]] = {}
    for _, cell in tables(PAGE, "what is shown"):
        path, _, test = cell.replace("`", "").partition(": ")
        named.setdefault(path, set()).update([test] if test else [])
    assert len(named) == 4
    for path, tests in named.items():
        there = set(re.findall(r"^def (test_\w+)", (ROOT / path).read_text("utf-8"), re.MULTILINE))
        assert tests in (there, set()), path


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
