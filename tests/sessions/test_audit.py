"""The lines of the audit log."""

from __future__ import annotations

import json

from kvtwisted.config.settings import LoggingSettings
from kvtwisted.sessions.audit import ANONYMOUS, EACH_BURST, MAX_LINE, MAX_TEXT, WINDOW, Audit, Floods


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


def test_long_values_are_cut() -> None:
    """Texts, lists and whole lines have a bound; what is left is JSON, and says how much there was."""
    lines: list[bytes] = []
    audit = Audit(lines.append)
    audit.record("config_refused", "alice", reason="é" * 1_000_000)
    audit.record("tokens_changed", "server", added=[f"token-{number}" for number in range(5000)])
    audit.record(
        "config_changed", "alice", changes={f"key-{number}": ["old" * 500, "new" * 500] for number in range(200)}
    )
    assert all(len(line) <= MAX_LINE + 1 and line.endswith(b"}\n") for line in lines)
    refused, tokens, changed = map(json.loads, lines)
    assert refused["reason"] == "é" * MAX_TEXT + "... (1000000 characters)"
    assert (tokens["added"][0], tokens["added"][-1]) == ("token-0", "... (5000 entries)")
    assert (changed["event"], changed["who"]) == ("config_changed", "alice")
    assert changed["cut"].startswith('{"changes": {"key-0": ["oldold')


class Flooded:
    """Floods over an audit whose lines are kept, at a time under the test's control."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []
        self.now = 1000.0
        self.floods = Floods(Audit(lambda line: self.lines.append(json.loads(line))), lambda: self.now)

    def of(self, event: str, who: str) -> list[dict[str, object]]:
        """The lines of one kind and principal, without their times."""
        found = [line for line in self.lines if (line["event"], line["who"]) == (event, who)]
        return [{name: value for name, value in line.items() if name not in ("time", "event", "who")} for line in found]


def test_a_flood_is_folded_into_a_count() -> None:
    """The first lines are written, the others told after a minute: how many, their sums, and the last of them."""
    world = Flooded()
    for number in range(1000):
        world.floods.record("eviction", "server", reason=f"r{number}", keys=2)
    world.floods.tell()
    assert len(world.of("eviction", "server")) == EACH_BURST
    world.now += WINDOW
    world.floods.tell()
    world.floods.tell()
    left_out = 1000 - EACH_BURST
    assert world.of("eviction", "server")[EACH_BURST:] == [
        {"left_out": left_out, "keys": 2 * left_out, "last": {"reason": "r999", "keys": 2}}
    ]


def test_one_flood_takes_no_line_of_another_kind_or_principal() -> None:
    """Kinds and principals are counted apart, and anonymous ones cannot take the lines of those who are known."""
    world = Flooded()
    for number in range(5000):
        world.floods.record("login_failed", ANONYMOUS, address=f"192.0.2.{number % 250}")
        world.floods.record("config_refused", "mallory", reason="no")
    world.floods.record("denied", "mallory", operation="get")
    world.floods.record("config_refused", "alice", reason="typo")
    assert world.of("denied", "mallory") == [{"operation": "get"}]
    assert world.of("config_refused", "alice") == [{"reason": "typo"}]


def test_a_flood_that_goes_on_takes_little() -> None:
    """A day of refusals from ten tokens and 250 addresses is a small part of what an audit log holds by default."""
    world = Flooded()
    size = 0

    def measure(line: bytes) -> None:
        nonlocal size
        size += len(line)

    floods = Floods(Audit(measure), lambda: world.now)
    for second in range(0, 86_400, 60):
        world.now += 60
        for number in range(10):
            floods.record("config_refused", f"token-{number}", reason="x" * 10_000)
            floods.record("login_failed", ANONYMOUS, address=f"192.0.2.{(second + number) % 250}", reason="no")
        floods.tell()
    settings = LoggingSettings()
    assert size < settings.max_bytes * (settings.max_files + 1)


def test_what_is_left_out_is_told_at_the_end() -> None:
    """A server that stops does not wait for the minute to be over."""
    world = Flooded()
    for _ in range(EACH_BURST + 3):
        world.floods.record("denied", "mallory", operation="get")
    world.floods.tell(at_once=True)
    assert world.of("denied", "mallory")[-1] == {"left_out": 3, "last": {"operation": "get"}}
