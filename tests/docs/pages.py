"""The documentation as the tests read it: its pages, and the blocks, tables and links in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md")))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")


class Step(NamedTuple):
    """One command of a console session (perhaps of several lines) and what it prints."""

    command: str
    output: str


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of that language, in order."""
    return [text for found, text in _BLOCK.findall(page.read_text("utf-8")) if found == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text("utf-8"))


def session(page: Path) -> list[Step]:
    """The steps of all console blocks: a command begins with `$ `, and its further lines with two spaces."""
    steps: list[Step] = []
    in_command = False
    for line in "".join(blocks(page, "console")).splitlines(keepends=True):
        if line.startswith("$ "):
            steps.append(Step(line[2:], ""))
            in_command = True
        elif in_command and line.startswith("  "):
            steps[-1] = Step(steps[-1].command + line, "")
        else:
            steps[-1] = Step(steps[-1].command, steps[-1].output + line)
            in_command = False
    return steps


def tables(page: Path, header: str) -> list[list[str]]:
    """The rows, cell by cell, of the tables whose first column is headed so."""
    rows: list[list[str]] = []
    inside = False
    for line in prose(page).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            inside = False
        elif inside:
            rows.append(cells)
        elif cells[0] == header:
            inside = True
    return [row for row in rows if not set(row[0]) <= {"-"}]


def links(page: Path) -> list[str]:
    """The targets of the links, as they are written."""
    return _LINK.findall(prose(page))


def code(page: Path) -> list[str]:
    """What stands in backticks outside of fenced blocks."""
    return _CODE.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The fragments that lead to the page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
