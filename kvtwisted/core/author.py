"""Who changes the configuration."""

from __future__ import annotations

from typing import NamedTuple


class Author(NamedTuple):
    """A name for the audit log, and whether guarded keys may be among the changes."""

    name: str
    administers: bool


#: Whoever comes when nobody has to say who they are.
ANONYMOUS = Author("anonymous", administers=True)
