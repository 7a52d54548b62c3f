"""What a seeded fault is."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One small mistake that somebody could make, and who ought to notice."""

    name: str
    #: What is promised, and does not hold any more. It tells the fault when code moves; the rest says where it is now.
    behaviour: str
    #: The file, from the repository's root.
    file: str
    #: What stands there exactly once, and what the mistake makes of it.
    old: str
    new: str
    #: Targets of pytest, separated by spaces: the fewest that ought to fail.
    tests: str
