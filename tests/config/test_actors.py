"""Who may change which keys, and what the audit is told."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from kvtwisted.commands.command import ANONYMOUS, Actor
from kvtwisted.config.manager import ConfigManager
from kvtwisted.config.schema import KEYS
from kvtwisted.core.errors import InvalidConfig, PermissionDenied
from kvtwisted.core.options import GUARDS

from .sites import Site

TUNER = Actor("tuner", administers=False)
#: What it may change.
PACE = "logging.performance_interval"


class Told(list[tuple[str, str, Mapping[str, object]]]):
    """What the audit was told."""

    def __call__(self, event: str, who: str, facts: Mapping[str, object]) -> None:
        """One thing."""
        self.append((event, who, facts))


@pytest.fixture
def told() -> Told:
    """An auditor."""
    return Told()


@pytest.fixture
def manager(site: Site, told: Told) -> ConfigManager:
    """One that is audited."""
    manager = site.load()
    manager.audit = told
    return manager


def test_guarded_keys_are_for_administrators(manager: ConfigManager, told: Told) -> None:
    """Where data lies is not changed by who may only tune; nothing of such a change is taken."""
    with pytest.raises(PermissionDenied, match=r"rocksdb\.path .* admin"):
        manager.update({PACE: 7, "rocksdb.path": "/elsewhere"}, TUNER)
    assert manager.settings.logging.performance_interval == 60
    assert manager.update({"rocksdb.path": "/elsewhere"}, ANONYMOUS) == ["rocksdb.path"]
    assert [event for event, _, _ in told] == ["config_refused", "config_changed"]


def test_a_guarded_key_may_be_sent_as_it_is(manager: ConfigManager) -> None:
    """The whole document that GetConfig shows can be sent back, whoever sends it."""
    assert manager.update({"rocksdb.path": "./data", PACE: 7}, TUNER) == []
    assert manager.running.logging.performance_interval == 7


def test_a_change_is_told_with_who_and_what(manager: ConfigManager, told: Told) -> None:
    """Old and new value of each key that changed."""
    manager.update({"logging": {"performance_interval": 5, "format": "text"}}, TUNER)
    assert told == [("config_changed", "tuner", {"changes": {PACE: [60, 5]}})]


@pytest.mark.parametrize("text", ["{", '{"no.such": 1}', '{"http.port": "x"}', "[]"])
def test_a_refusal_is_told_with_its_reason(manager: ConfigManager, told: Told, text: str) -> None:
    """Also when the text is no JSON."""
    with pytest.raises(InvalidConfig) as refused:
        manager.update(text, TUNER)
    assert told == [("config_refused", "tuner", {"reason": str(refused.value)})]


#: What `config_write` alone may change: how much is logged and measured, and how soon what has expired is deleted.
UNGUARDED = {
    "storage.expiry_interval",
    "monitoring.sample_interval",
    "logging.format",
    "logging.level",
    "logging.access",
    "logging.performance_interval",
}


def test_all_that_could_hurt_is_guarded() -> None:
    """What deletes data, ends durability, decides who comes in or shuts others out; a new key is decided here."""
    assert {name for name, key in KEYS.items() if not key.guarded} == UNGUARDED
    assert {key.guarded for key in KEYS.values()} == {"", *GUARDS}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eviction.disk_usage_threshold", 1),
        ("eviction.high_water_mark", 81),
        ("limits.max_connections", 1),
        ("cache.max_bytes", 1 << 40),
        ("storage.wal_sync_interval_ms", 0),
        ("rocksdb.options.sync", True),
        ("rocksdb.options.bottommost_compression", "none"),
        ("rocksdb.options.block_size", 4 << 20),
        ("rocksdb.options.target_file_size_base", 1 << 20),
        ("http.fast_lane", False),
        ("monitoring.health_path", "/elsewhere"),
    ],
)
def test_config_write_is_not_enough_to_hurt_others(manager: ConfigManager, name: str, value: object) -> None:
    """Each of these destroys, locks out, or makes the server many times as slow or large; nothing of it is taken."""
    before = manager.settings
    with pytest.raises(PermissionDenied, match=name):
        manager.update({name: value}, TUNER)
    assert manager.settings is before
    manager.update({name: value}, ANONYMOUS)


def test_every_number_has_bounds() -> None:
    """A least and a greatest value, the default among them."""
    for key in KEYS.values():
        if key.type == "integer":
            assert key.low is not None
            assert key.high is not None
            assert key.low <= key.default <= key.high
