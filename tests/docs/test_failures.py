"""docs/failures.md: the lines that it shows are those of the code."""

from __future__ import annotations

from .pages import ROOT, prose

PAGE = ROOT / "docs" / "failures.md"


def test_sentences_are_the_codes() -> None:
    """What the page quotes of errors and of the log stands in the code."""
    code = "\n".join(file.read_text("utf-8") for file in (ROOT / "kvtwisted").rglob("*.py"))
    text = " ".join(prose(PAGE).split())
    for sentence in ("writes fail: ", "writes work again", "the storage is being reopened; try again"):
        assert sentence in text
        assert sentence in code
