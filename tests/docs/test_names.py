"""What the pages name is there: links, files, modules, configuration keys, notes."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.config.schema import KEYS, SECTIONS

from .pages import PAGES, README, ROOT, anchors, code, links, prose, tables

#: Names that begin like a configuration section and are gRPC's own.
GRPC_NAMES = re.compile(r"grpc\.(health|reflection)\.|grpc\.max_receive_message_length$")
_KEY = re.compile(rf"(?:{'|'.join(name for name in SECTIONS if '.' not in name)})(?:\.[a-z0-9_]+)+")
_PATH = re.compile(r"(?:kvtwisted|twisted/plugins|tests|proto|docs|scripts)/[\w./-]*")
_MODULE = re.compile(r"kvtwisted(?:\.(?!json$)\w+)+")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the repository, and its fragment a heading there."""
    broken = []
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        name, _, fragment = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []


@each_page
def test_paths_exist(page: Path) -> None:
    """Every file or folder of the repository that stands in backticks is there."""
    named = [text for text in code(page) if _PATH.fullmatch(text)]
    assert [path for path in named if not (ROOT / path).exists()] == []


@each_page
def test_modules_exist(page: Path) -> None:
    """Every dotted name in backticks that begins with kvtwisted can be imported, down to its attribute."""
    assert [name for name in code(page) if _MODULE.fullmatch(name) and not _resolves(name)] == []


@each_page
def test_configuration_keys_exist(page: Path) -> None:
    """Every `section.key` in backticks is a key or a section."""
    named = {match[0] for text in code(page) if (match := _KEY.match(text)) and not GRPC_NAMES.match(text)}
    assert named - KEYS.keys() - SECTIONS.keys() == set()


def test_checks_of_names_see_them() -> None:
    """The pages do name files, modules and keys in the way that these tests look for."""
    named = [text for page in PAGES for text in code(page)]
    for form in (_PATH, _MODULE, _KEY):
        assert any(form.fullmatch(text) for text in named), form
    assert any("#" in link for page in PAGES for link in links(page))


def test_every_page_is_in_both_indexes() -> None:
    """README.md and docs/README.md lead to each page of docs, and the index of decisions to each decision."""
    docs, decisions = ROOT / "docs", ROOT / "docs" / "decisions"
    for folder, indexes in ((docs, (README, docs / "README.md")), (decisions, (decisions / "README.md",))):
        pages = {page for page in PAGES if page.parent == folder and page.name != "README.md"}
        for index in indexes:
            assert pages <= {(index.parent / link).resolve() for link in links(index)}


def test_architecture_is_read_in_ten_minutes() -> None:
    """It stays short, and its table of rooms has each room."""
    page = ROOT / "docs" / "architecture.md"
    assert len(page.read_text("utf-8").splitlines()) <= 200
    rooms = {folder.parent.relative_to(ROOT).as_posix() + "/" for folder in (ROOT / "kvtwisted").rglob("__init__.py")}
    named = {name for row in tables(page, "room") for name in re.findall(r"`([^`]+)`", row[0])}
    assert rooms - {"kvtwisted/", "kvtwisted/rpc/generated/"} == named - {"kvtwisted/tap.py"}


def test_notes_stand_where_the_page_says() -> None:
    """The titled notes of the code are those of docs/notes.md, each with its file."""
    in_code = {
        (title, file.relative_to(ROOT).as_posix())
        for file in (ROOT / "kvtwisted").rglob("*.py")
        for title in re.findall(r"Note \[([^\]]+)\]:", file.read_text("utf-8"))
    }
    page = prose(ROOT / "docs" / "notes.md")
    assert set(re.findall(r"^\| Note \[([^\]]+)\] \| `([^`]+)` \|", page, re.MULTILINE)) == in_code


@each_page
def test_notes_that_are_named_exist(page: Path) -> None:
    """A page refers to a note by the title that it has in the code."""
    titles = {
        title
        for file in (ROOT / "kvtwisted").rglob("*.py")
        for title in re.findall(r"Note \[([^\]]+)\]:", file.read_text("utf-8"))
    }
    assert set(re.findall(r"Note \[([^\]]+)\]", " ".join(prose(page).split()))) <= titles


def _resolves(name: str) -> bool:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute, None)
        return found is not None
    return False
