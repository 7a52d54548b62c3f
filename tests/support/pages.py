"""Pages of scans, as tests write them."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import ANY

from kvtwisted.commands.scan import Page


def page_of(items: Sequence[tuple[bytes, bytes]], next_cursor: bytes = b"") -> Page:
    """The page with these pairs, from a view of any revision."""
    return Page([key for key, _ in items], [value for _, value in items], next_cursor, revision=ANY)
