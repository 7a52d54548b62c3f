"""docs/failures.md: every row names a test that is there, and the lines it shows are those of the code."""

from __future__ import annotations

import re

from .pages import ROOT, prose, tables

PAGE = ROOT / "docs" / "failures.md"


def test_every_row_has_its_test() -> None:
    """The last cell of each row is a test of the file that the table's head names."""
    files = re.findall(r"\| test in `([^`]+)` \|", prose(PAGE))
    in_files = {
        name for file in files for name in re.findall(r"^def (test_\w+)", (ROOT / file).read_text("utf-8"), re.M)
    }
    rows = tables(PAGE, "cause")
    assert len(rows) == 20
    assert {row[-1].strip("`") for row in rows} == in_files - {"test_engine_tells_where_a_log_is_damaged"}


def test_sentences_are_the_codes() -> None:
    """What the page quotes of errors and of the log stands in the code."""
    code = "\n".join(file.read_text("utf-8") for file in (ROOT / "kvtwisted").rglob("*.py"))
    text = " ".join(prose(PAGE).split())
    for sentence in ("writes fail: ", "writes work again", "the storage is being reopened; try again"):
        assert sentence in text
        assert sentence in code
