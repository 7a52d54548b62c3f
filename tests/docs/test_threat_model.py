"""docs/threat-model.md: the tests that it names are there, and no entry of the list is left out."""

from __future__ import annotations

import ast
import re

import pytest

from tests.e2e.siege import BACK_SECONDS, FEW_BYTES, MIB
from tests.e2e.test_attacks import MANY

from .pages import ROOT, code, prose, tables

PAGE = ROOT / "docs" / "threat-model.md"
NAMED = sorted({text for text in code(PAGE) if text.startswith("tests/")})
ENTRIES = {row[0]: row[-1] for row in tables(PAGE, "entry")}


def names_in(path: str) -> set[str]:
    """The test functions of a file, also those of its classes."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions) and node.name.startswith("test_")}


@pytest.mark.parametrize("named", NAMED)
def test_every_test_named_is_there(named: str) -> None:
    """The file exists, and what stands behind `::` is a test in it."""
    path, separator, test = named.partition("::")
    assert (ROOT / path).exists()
    if separator:
        assert test in names_in(path)


def test_all_ten_entries_are_there() -> None:
    """In their order, each with a test at least."""
    assert [entry.split()[0] for entry in ENTRIES] == [f"API{number}" for number in range(1, 11)]
    for entry, cell in ENTRIES.items():
        assert re.search(r"`tests/\S+\.py::test_\w+`", cell), entry


def test_every_flood_has_a_test() -> None:
    """And every attack of the module is on the page."""
    for row in tables(PAGE, "attack"):
        assert "::test_" in row[-1], row[0]
    attacks = "tests/e2e/test_attacks.py"
    assert {named.partition("::")[2] for named in NAMED if named.startswith(f"{attacks}::")} == names_in(attacks)


def test_figures() -> None:
    """What the attacks allow is what the page says."""
    text = " ".join(prose(PAGE).split())
    assert f"Within {BACK_SECONDS:.0f} s of each attack" in text
    assert f"memory is within {FEW_BYTES // MIB} MiB" in text
    assert f"opens {MANY:,} idle connections" in text
