"""The lines of the audit log."""

from __future__ import annotations

import json

from kvtwisted.security.audit import Audit


def test_a_line_is_one_object() -> None:
    """Time, event, who, and the facts; a line feed at the end and nowhere else."""
    lines: list[bytes] = []
    Audit(lines.append, now=lambda: 1_700_000_000.25).record(
        "denied", "alice", operation="set", reason="two\nlines \udcff", changes={"a": [1, 2]}
    )
    assert [line.count(b"\n") for line in lines] == [1]
    assert lines[0].endswith(b"}\n")
    assert json.loads(lines[0]) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "event": "denied",
        "who": "alice",
        "operation": "set",
        "reason": "two\nlines \udcff",
        "changes": {"a": [1, 2]},
    }
