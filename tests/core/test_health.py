"""Conditions that come and go, and who is told of them."""

from __future__ import annotations

from kvtwisted.core.health import Health


def test_healthy_at_first() -> None:
    """Without a condition there is no reason."""
    health = Health()
    assert health.reason() is None
    assert not health.failing("disk")


def test_condition_comes_and_goes() -> None:
    """A condition's reason is told until it recovers."""
    health = Health()
    health.fail("disk", "the disk is full")
    assert health.failing("disk")
    assert health.reason() == "the disk is full"
    health.recover("disk")
    assert not health.failing("disk")
    assert health.reason() is None


def test_every_condition_is_named() -> None:
    """Reasons stand side by side; each recovers by itself; a new reason replaces the old."""
    health = Health()
    health.fail("disk", "the disk is full")
    health.fail("server", "the server is stopping")
    assert health.reason() == "the disk is full; the server is stopping"
    health.fail("disk", "the disk is broken")
    assert health.reason() == "the disk is broken; the server is stopping"
    health.recover("disk")
    assert health.reason() == "the server is stopping"


def test_recovering_what_is_fine() -> None:
    """Nothing happens."""
    health = Health()
    health.recover("disk")
    assert health.reason() is None


def test_listeners_are_told_at_once_and_of_changes_only() -> None:
    """A listener gets the present state, then each change; what is no change is not told."""
    health = Health()
    health.fail("disk", "full")
    seen: list[str | None] = []
    health.on_change(seen.append)
    assert seen == ["full"]
    health.fail("disk", "full")
    health.recover("server")
    assert seen == ["full"]
    health.fail("server", "stopping")
    health.recover("disk")
    health.recover("server")
    assert seen == ["full", "full; stopping", "stopping", None]


def test_every_listener_is_told() -> None:
    """Several listeners see the same."""
    health = Health()
    first: list[str | None] = []
    second: list[str | None] = []
    health.on_change(first.append)
    health.on_change(second.append)
    health.fail("disk", "full")
    assert first == second == [None, "full"]
