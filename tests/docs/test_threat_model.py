"""docs/threat-model.md: no entry of the list is left out, and its figures are those of the tests."""

from __future__ import annotations

import re

from tests.e2e.siege import BACK_SECONDS, FEW_BYTES, MIB
from tests.e2e.test_attacks import MANY

from .pages import ROOT, prose, tables

PAGE = ROOT / "docs" / "threat-model.md"
ENTRIES = {row[0]: row[-1] for row in tables(PAGE, "entry")}


def test_all_ten_entries_are_there() -> None:
    """In their order, each with a test at least."""
    assert [entry.split()[0] for entry in ENTRIES] == [f"API{number}" for number in range(1, 11)]
    for entry, cell in ENTRIES.items():
        assert re.search(r"`tests/\S+\.py::test_\w+`", cell), entry


def test_figures() -> None:
    """What the attacks allow is what the page says."""
    text = " ".join(prose(PAGE).split())
    assert f"Within {BACK_SECONDS:.0f} s of each attack" in text
    assert f"memory is within {FEW_BYTES // MIB} MiB" in text
    assert f"opens {MANY:,} idle connections" in text
