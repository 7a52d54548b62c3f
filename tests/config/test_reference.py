"""`docs/configuration.md` holds the table of keys as it is declared."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from kvtwisted.config.__main__ import reference, row_of
from kvtwisted.config.schema import KEYS, Key
from kvtwisted.config.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_current() -> None:
    """The page holds the printed table word for word; after a change of a declaration, print it again."""
    text = PAGE.read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- begin: python -m kvtwisted.config -->\n")
    table, end, _ = rest.partition("\n<!-- end -->")
    assert end, "the markers around the table are missing"
    assert table.strip() == reference().strip()


def test_the_table_names_every_key_with_its_limits() -> None:
    """Each key has exactly one row, with its default, limits or choices, variable, and when it takes effect."""
    rows = {row.split("`")[1]: row for row in reference().splitlines() if row.startswith("| `")}
    assert list(rows) == list(KEYS)
    for name, row in rows.items():
        key = KEYS[name]
        assert f"| {key.type} |" in row
        assert f"`{key.env}`" in row
        assert key.help in row
        assert (
            f"| {'at once' if key.live else 'at restart'}{f', guarded ({key.guarded})' if key.guarded else ''} |" in row
        )
        if key.type == "integer":
            assert f"| `{key.default}` | {key.low} to {key.high} |" in row
        assert all(f"`{choice}`" in row for choice in key.choices)


def test_rows_cannot_break_the_table() -> None:
    """A bar in an explanation does not end the cell."""
    row = row_of(Key("a.b", "a", "boolean", True, "One | two.", (), False, ""))
    assert row.count(" | ") == 6
    assert "One \\| two." in row


def test_the_command_prints_the_table() -> None:
    """`python -m kvtwisted.config` prints what the page holds."""
    run = subprocess.run(
        [sys.executable, "-m", "kvtwisted.config"], check=True, capture_output=True, text=True, cwd=PAGE.parents[1]
    )
    assert run.stdout == reference() + "\n"


def test_examples_on_the_page_name_real_keys() -> None:
    """Every section.key, variable and option that the text mentions exists."""
    text = PAGE.read_text(encoding="utf-8")
    sections = "|".join(name for name in vars(Settings()))
    names = set(re.findall(rf"`((?:{sections})\.[a-z0-9_.]+)`", text))
    assert names - {"rocksdb.options"} <= set(KEYS)
    flags = set(re.findall(r"--([a-z]+-[a-z-]+)", text)) - {"runtime-config"}
    assert {f"--{flag}" for flag in flags} <= {key.flag for key in KEYS.values()} | {"--rocksdb-options"}
