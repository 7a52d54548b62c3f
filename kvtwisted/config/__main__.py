"""`python -m kvtwisted.config` prints the table of keys in `docs/configuration.md`; a test compares the two."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .schema import KEYS, SECTIONS, Key

_HEADER = (
    "| key | type | default | allowed | takes effect | environment variable | meaning |",
    "|---|---|---|---|---|---|---|",
)


def reference() -> str:
    """The Markdown of every key: one heading and one table for each section."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for section in SECTIONS:
        yield from ("", f"### {section}", "", *_HEADER)
        yield from (row_of(key) for key in KEYS.values() if key.section == section)


def row_of(key: Key) -> str:
    """One row of a table."""
    cells = (
        f"`{key.name}`",
        key.type,
        f"`{json.dumps(key.default)}`",
        _allowed(key),
        ("at once" if key.live else "at restart") + (f", guarded ({key.guarded})" if key.guarded else ""),
        f"`{key.env}`",
        key.help,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _allowed(key: Key) -> str:
    if key.choices:
        return ", ".join(f"`{choice}`" for choice in key.choices)
    return f"{key.low} to {key.high}" if key.type == "integer" else ""


if __name__ == "__main__":
    print(reference())
